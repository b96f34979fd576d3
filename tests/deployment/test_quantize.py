"""A quantised file keeps its card and its accuracy, takes about a quarter of the bytes, and leaves nothing behind."""

import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dlcourse.data import eval_transform
from dlcourse.deployment.backends import OnnxBackend
from dlcourse.deployment.card import KEY, ModelCard
from dlcourse.deployment.export import export_onnx, file_size
from dlcourse.deployment.quantize import quantize_dynamic, quantize_static

CARD = ModelCard(["a", "b", "c"], eval_transform(8), name="net", details={"licence": "MIT"})
IMAGES = torch.randn(70, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(4), nn.Flatten(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 3),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return export_onnx(network(), tmp_path_factory.mktemp("source") / "net.onnx", CARD)


def weights(path):
    """The dtypes of everything with more than one axis, by the number of axes."""
    name = onnx.TensorProto.DataType.Name
    return {(len(t.dims), name(t.data_type)) for t in onnx.load(path).graph.initializer if len(t.dims) > 1}


@pytest.mark.parametrize("per_channel", [True, False])
def test_static_quantisation_is_close_small_and_for_any_batch(source, tmp_path, per_channel, capfd, recwarn):
    target = quantize_static(source, tmp_path / "folder" / "int8.onnx", IMAGES, per_channel=per_channel)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert file_size(target) < 0.3 * file_size(source)
    assert weights(target) == {(4, "INT8"), (2, "INT8")}
    for size in (1, 2, 7, 64):
        images = IMAGES[:size].numpy()
        wanted = OnnxBackend(source)(images)
        assert np.abs(OnnxBackend(target)(images) - wanted).max() < 0.05 * np.abs(wanted).max() + 0.01


def test_weights_use_seven_bits_so_that_no_cpu_saturates(source, tmp_path):
    target = quantize_static(source, tmp_path / "int8.onnx", IMAGES)
    stored = [onnx.numpy_helper.to_array(t) for t in onnx.load(target).graph.initializer if len(t.dims) > 1]
    assert all(np.abs(array.astype(int)).max() == 64 for array in stored)


def test_dynamic_quantisation_leaves_convolutions_alone(source, tmp_path):
    target = quantize_dynamic(source, tmp_path / "dynamic.onnx")
    assert weights(target) == {(4, "FLOAT"), (2, "INT8")}
    images = IMAGES[:7].numpy()
    wanted = OnnxBackend(source)(images)
    assert np.abs(OnnxBackend(target)(images) - wanted).max() < 0.05 * np.abs(wanted).max() + 0.01


def test_the_card_is_kept_and_says_what_was_done(source, tmp_path):
    for target in (quantize_static(source, tmp_path / "s.onnx", IMAGES), quantize_dynamic(source, tmp_path / "d.onnx")):
        card = ModelCard.from_json(OnnxBackend(target).metadata()[KEY])
        assert (card.classes, card.preprocessing, card.name) == (CARD.classes, CARD.preprocessing, CARD.name)
        assert card.details["licence"] == "MIT"
        assert card.details["quantised"]["weights"] == "int8, per channel, 7 bits used"
        with pytest.raises(ValueError, match="is quantised already"):
            quantize_dynamic(target, tmp_path / "twice.onnx")
    assert ModelCard.from_json(OnnxBackend(tmp_path / "s.onnx").metadata()[KEY]).details["quantised"]["calibration images"] == 70


def test_images_may_come_in_any_form_and_give_the_same_file(source, tmp_path):
    labelled = ((batch, torch.zeros(len(batch))) for batch in IMAGES.split(16))
    forms = [IMAGES, IMAGES.numpy(), list(IMAGES), labelled, iter(IMAGES.split(32))]
    files = {quantize_static(source, tmp_path / "a.onnx", form).read_bytes() for form in forms}
    assert len(files) == 1


def test_threads_do_not_disturb_one_another_and_nothing_is_left(source, tmp_path, monkeypatch):
    room = tmp_path / "temporary"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    before = source.read_bytes()
    with ThreadPoolExecutor(4) as pool:
        targets = list(pool.map(lambda i: quantize_static(source, tmp_path / f"{i}.onnx", IMAGES), range(4)))
    assert len({target.read_bytes() for target in targets}) == 1
    assert not list(room.iterdir())
    assert source.read_bytes() == before
    assert sorted(path.name for path in source.parent.iterdir()) == ["net.onnx"]


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([], "images is empty"),
        (5, "images is a int"),
        (IMAGES.double(), "float64"),
        (torch.zeros(2, 3, 9, 8), r"\(2, 3, 9, 8\); needs float32 \(N, 3, 8, 8\)"),
        (["a.png"], "holds a str"),
        (IMAGES / 0, "not finite"),
    ],
)
def test_images_that_do_not_fit_are_named(source, tmp_path, images, says):
    with pytest.raises(ValueError, match=says):
        quantize_static(source, tmp_path / "a.onnx", images)
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_fit_is_named(source, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        quantize_dynamic(tmp_path / "missing.onnx", tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="'a.bin' is no .onnx file"):
        quantize_dynamic(source, tmp_path / "a.bin")
    (tmp_path / "odd.onnx").write_bytes(b"odd")
    with pytest.raises(ValueError, match="odd.onnx cannot be read"):
        quantize_dynamic(tmp_path / "odd.onnx", tmp_path / "a.onnx")
    proto = onnx.load(source)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "bare.onnx")
    with pytest.raises(ValueError, match="holds no model card"):
        quantize_dynamic(tmp_path / "bare.onnx", tmp_path / "a.onnx")


def test_a_network_without_a_linear_layer_is_refused_by_the_dynamic_way(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 3, 8), nn.Flatten())
    source = export_onnx(model, tmp_path / "net.onnx", CARD)
    with pytest.raises(ValueError, match="nothing in 'net' could be quantised"):
        quantize_dynamic(source, tmp_path / "a.onnx")
