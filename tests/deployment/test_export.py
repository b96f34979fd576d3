"""An exported file answers as its model does, holds its card, is written whole or not at all, and leaves the model alone."""

import json
import logging
import os

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from dlcourse.data import eval_transform
from dlcourse.deployment import export as export_module
from dlcourse.deployment.card import KEY, ModelCard
from dlcourse.deployment.export import ExportError, export_onnx, export_program, file_size
from dlcourse.deployment.predictor import Predictor
from dlcourse.deployment.verify import verify_onnx
from dlcourse.deployment.weights import load_safetensors, save_safetensors
from dlcourse.models import create_model

CARD = ModelCard(["cat", "dog", "Ärmel"], eval_transform(8), name="pets", details={"licence": "MIT"})


def network(seed=0):
    """A small classifier with batch norm and dropout, in training mode."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(16, 3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = network()
    return model, export_onnx(model, tmp_path_factory.mktemp("onnx") / "new folder" / "pets.onnx", CARD)


def test_the_onnx_file_answers_as_the_model_for_every_batch_size(exported):
    model, path = exported
    session = onnxruntime.InferenceSession(path)
    assert [session.get_inputs()[0].name, session.get_outputs()[0].name] == ["images", "logits"]
    assert session.get_inputs()[0].shape == ["batch", 3, 8, 8]
    assert session.get_outputs()[0].shape == ["batch", 3]
    model = network().eval()
    for size in (1, 2, 7, 64):
        images = torch.randn(size, 3, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), model(images))


def test_it_is_one_file_with_card_and_labels_and_nothing_of_this_machine(exported):
    _, path = exported
    assert [file.name for file in path.parent.iterdir()] == ["pets.onnx"]
    assert file_size(path) == path.stat().st_size
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert ModelCard.from_json(metadata[KEY]) == CARD
    assert json.loads(metadata["classes"]) == ["cat", "dog", "Ärmel"]
    assert json.loads(metadata["preprocessing"])["size"] == 8
    assert proto.producer_name == "dlcourse"
    assert proto.graph.name == "pets"
    assert "3 classes" in proto.doc_string
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [18]
    assert os.fsencode(os.path.dirname(export_module.__file__)) not in path.read_bytes()  # noqa: PTH120


def test_exporting_leaves_model_and_process_as_they_were(tmp_path, capfd, recwarn):
    model = network()
    model[6].requires_grad_(False)
    model[2].eval()
    seen = []
    model[0].register_forward_hook(lambda *arguments: seen.append(arguments))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    state, level = torch.get_rng_state(), logging.root.level
    export_onnx(model, tmp_path / "a.onnx", CARD)
    export_program(model, tmp_path / "a.pt2", CARD)
    assert not seen
    assert len(model[0]._forward_hooks) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert torch.equal(torch.get_rng_state(), state)
    assert logging.root.level == level
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


def test_the_same_model_gives_the_same_bytes(exported, tmp_path):
    _, path = exported
    assert export_onnx(network(), tmp_path / "again.onnx", CARD).read_bytes() == path.read_bytes()


def test_an_older_file_is_replaced_and_survives_a_model_that_does_not_fit(exported, tmp_path):
    path = tmp_path / "pets.onnx"
    path.write_bytes(b"older")
    with pytest.raises(ExportError, match="3 classes"):
        export_onnx(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), path, CARD)
    assert path.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["pets.onnx"]


def test_weights_beyond_one_file_lie_beside_it_and_move_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "MOST_BYTES_IN_ONE_FILE", 100)
    path = export_onnx(network(), tmp_path / "pets.onnx", CARD)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pets.onnx", "pets.onnx.data"]
    assert file_size(path) > path.stat().st_size
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in ("pets.onnx", "pets.onnx.data"):
        (tmp_path / file).rename(moved / file)
    verify_onnx(network(), moved / "pets.onnx")
    (moved / "pets.onnx.data").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        Predictor(moved / "pets.onnx")


def test_one_file_takes_the_place_of_two(tmp_path, monkeypatch):
    (tmp_path / "pets.onnx.data").write_bytes(b"of a larger model")
    export_onnx(network(), tmp_path / "pets.onnx", CARD)
    assert [file.name for file in tmp_path.iterdir()] == ["pets.onnx"]


@pytest.mark.parametrize("opset", [11, 17, 24])
def test_an_opset_that_torch_would_silently_change_is_refused(opset, tmp_path):
    with pytest.raises(ValueError, match=f"opset={opset} is outside 18 to 23"):
        export_onnx(network(), tmp_path / "a.onnx", CARD, opset=opset)


def test_a_newer_opset_is_written(tmp_path):
    path = export_onnx(network(), tmp_path / "a.onnx", CARD, opset=20)
    assert onnx.load(path).opset_import[0].version == 20
    verify_onnx(network(), path)


class Two(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)), x


class FixesTheBatch(nn.Module):
    def forward(self, x):
        return x.view(2, -1)[:, :3]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), r"does not take images of the card's shape \(3, 8, 8\)"),
        (nn.Flatten(), r"shape \(2, 192\); the card has 3 classes"),
        (nn.Identity(), r"shape \(2, 3, 8, 8\)"),
        (Two(), "gives a tuple"),
        (FixesTheBatch(), "cannot trace the model for any batch size"),
    ],
)
def test_a_model_that_does_not_fit_its_card_is_an_error_before_anything_is_written(model, says, tmp_path):
    for write, name in ((export_onnx, "a.onnx"), (export_program, "a.pt2")):
        with pytest.raises(ExportError, match=says):
            write(model, tmp_path / "folder" / name, CARD)
    assert not list(tmp_path.iterdir())


def test_a_pruned_model_has_to_be_made_permanent(tmp_path):
    model = network()
    prune.l1_unstructured(model[6], "weight", amount=0.5)
    with pytest.raises(ExportError, match="prune.remove"):
        export_onnx(model, tmp_path / "a.onnx", CARD)


@pytest.mark.parametrize(
    ("write", "name"), [(export_onnx, "a.pt"), (export_program, "a.onnx"), (save_safetensors, "a.bin")]
)
def test_the_suffix_says_what_a_file_is(write, name, tmp_path):
    with pytest.raises(ValueError, match=f"not '{name}'"):
        write(network(), tmp_path / name, CARD)


def test_verify_sees_a_difference_and_names_the_first_batch_size(exported):
    model, path = exported
    equal = verify_onnx(network(), path, np.zeros((3, 3, 8, 8), np.float32), batch_sizes=(1, 5))
    assert equal.kinds == ("random", "real")
    assert equal.batch_sizes == (1, 5)
    assert 0 <= equal.relative <= equal.largest < 1e-5
    with pytest.raises(ExportError, match=r"for a batch of 4 random images: by .* is allowed"):
        verify_onnx(network(seed=1), path, batch_sizes=(4, 1))
    assert model.training  # it is as it came


def test_verify_finds_a_batch_size_that_is_built_in(tmp_path):
    torch.onnx.export(network().eval(), (torch.zeros(1, 3, 8, 8),), tmp_path / "a.onnx", dynamo=True, verbose=False)
    with pytest.raises(ExportError, match="refuses a batch of 2 real images|refuses a batch of 2 random images"):
        verify_onnx(network(), tmp_path / "a.onnx", torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="no model card"):
        verify_onnx(network(), tmp_path / "a.onnx")


def test_nan_is_a_difference(exported):
    with pytest.raises(ExportError, match="nan"):
        verify_onnx(network(), exported[1], np.full((1, 3, 8, 8), np.nan, np.float32))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_program_answers_as_the_model_and_brings_its_card(size, tmp_path):
    model = network()
    path = export_program(model, tmp_path / "a.pt2", CARD)
    extra = {KEY: ""}
    program = torch.export.load(path, extra_files=extra).module()
    images = torch.randn(size, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(program(images), model.eval()(images), rtol=0, atol=0)
    assert ModelCard.from_json(extra[KEY]) == CARD


TEN = ModelCard([str(i) for i in range(10)], eval_transform(32))


def test_safetensors_bring_back_model_and_card(tmp_path):
    model = create_model("mobilenet_v3_small", num_classes=10)
    state = torch.get_rng_state()
    path = save_safetensors(model, tmp_path / "folder" / "a.safetensors", TEN)
    loaded, card = load_safetensors(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert card == TEN
    assert not loaded.training
    assert loaded.spec == model.spec
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), model.eval()(images))


def test_layers_that_share_a_tensor_are_saved(tmp_path):
    model = create_model("simple_cnn", num_classes=10)
    model.features[0].bias = nn.Parameter(model.features[3].bias[:16])  # a view into another
    loaded, _ = load_safetensors(save_safetensors(model, tmp_path / "a.safetensors", TEN))
    assert torch.equal(loaded.features[0].bias, model.features[0].bias)


def test_what_weights_alone_do_not_bring_back_is_refused_with_the_way_out(tmp_path):
    changed = create_model("simple_cnn", num_classes=10)
    changed.classifier[3] = nn.Linear(512, 5)
    for model, card, says in (
        (network(), CARD, "without a `spec`.*export_onnx"),
        (changed, TEN, "was changed after create_model built it; use export_onnx"),
        (create_model("simple_cnn", num_classes=10), CARD, "10 outputs, the card 3 classes"),
    ):
        with pytest.raises(ExportError, match=says):
            save_safetensors(model, tmp_path / "a.safetensors", card)
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        load_safetensors(tmp_path / "missing.safetensors")
    path = tmp_path / "odd.safetensors"
    pickled = tmp_path / "pickled.safetensors"
    torch.save({"a": torch.zeros(1)}, pickled)
    with pytest.raises(ValueError, match="pickled.safetensors cannot be read"):
        load_safetensors(pickled)
    spec = {"name": "simple_cnn", "num_classes": 10, "in_channels": 3, "options": {}}
    for metadata, says in (
        (None, "holds no dlcourse and no spec"),
        ({KEY: TEN.to_json()}, "holds no spec"),
        ({KEY: "{}", "spec": json.dumps(spec)}, "cannot be used"),
        ({KEY: TEN.to_json(), "spec": "{}"}, "cannot be used"),
        ({KEY: TEN.to_json(), "spec": "[1]"}, "cannot be used"),
        ({KEY: TEN.to_json(), "spec": json.dumps(spec | {"name": "resnet"})}, "cannot be used.*no model 'resnet'"),
        ({KEY: TEN.to_json(), "spec": json.dumps(spec)}, "cannot be used.*only in the model"),
    ):
        save_file({"a": torch.zeros(1)}, path, metadata)
        with pytest.raises(ValueError, match="odd.safetensors " + says):
            load_safetensors(path)
