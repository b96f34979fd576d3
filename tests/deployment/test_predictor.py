"""One picture gets one answer, whatever form it comes in and whichever file answers."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dlcourse.data import eval_transform, load_dataset
from dlcourse.deployment import ModelCard, Predictor, export_onnx, save_safetensors
from dlcourse.models import create_model


@pytest.fixture(scope="module")
def photos():
    return load_dataset("fashion-mini", "test")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("simple_cnn", num_classes=10)


@pytest.fixture(scope="module")
def files(model, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    card = ModelCard(photos.classes, eval_transform(32), name="fashion")
    return export_onnx(model, folder / "model.onnx", card), save_safetensors(model, folder / "model.safetensors", card)


@pytest.fixture(scope="module", params=["onnx", "safetensors"])
def predictor(files, request):
    return Predictor(files[["onnx", "safetensors"].index(request.param)])


def as_bytes(image, kind="PNG"):
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def test_every_source_of_a_picture_gives_the_same_answer(predictor, photos, tmp_path):
    tensor = photos.images[3]
    array = tensor.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    (tmp_path / "a.png").write_bytes(as_bytes(picture))
    sources = [tensor, array, picture, as_bytes(picture), tmp_path / "a.png", str(tmp_path / "a.png")]
    answers = [predictor.predict(source).probabilities for source in sources]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


def test_greyscale_palette_transparency_and_other_sizes_are_taken(predictor):
    grey = Image.linear_gradient("L")
    for picture in (
        grey,
        grey.convert("P"),
        grey.convert("RGBA"),
        grey.convert("1"),
        grey.resize((7, 90)),
        grey.convert("CMYK"),
    ):
        assert predictor.predict(picture).probabilities.shape == (10,)
    np.testing.assert_array_equal(predictor.prepare(grey), predictor.prepare(np.asarray(grey)))
    np.testing.assert_array_equal(predictor.prepare(grey), predictor.prepare(np.asarray(grey)[:, :, None]))


def test_the_answer_is_that_of_the_model(predictor, model, photos):
    images = torch.stack([eval_transform(32)(image) for image in photos.images[:9]])
    with torch.no_grad():
        wanted = model.eval()(images).softmax(dim=1).numpy()
    answers = predictor.predict(list(photos.images[:9]), batch_size=4)
    np.testing.assert_allclose(np.stack([answer.probabilities for answer in answers]), wanted, atol=1e-5)
    assert [answer.index for answer in answers] == wanted.argmax(axis=1).tolist()


def test_an_answer_tells_label_confidence_and_the_most_probable(predictor, photos):
    answer = predictor.predict(photos.images[0])
    assert answer.probabilities.sum() == pytest.approx(1)
    assert answer.label == photos.classes[answer.index]
    assert answer.confidence == answer.probabilities.max()
    top = answer.top(3)
    assert top[0] == (answer.label, answer.confidence)
    assert [p for _, p in top] == sorted(answer.probabilities.tolist(), reverse=True)[:3]
    assert len(answer.top(99)) == 10


def test_a_model_in_memory_answers_too_and_keeps_its_mode(model, photos):
    model.train()
    buffers = {name: tensor.clone() for name, tensor in model.named_buffers()}
    answer = Predictor.of(model, ModelCard(photos.classes, eval_transform(32))).predict(photos.images[0])
    assert model.training
    assert all(torch.equal(tensor, buffers[name]) for name, tensor in model.named_buffers())
    model.eval()
    with torch.no_grad():
        wanted = model(eval_transform(32)(photos.images[0])[None]).softmax(1).max().item()
    assert answer.confidence == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (b"", "the image cannot be read as an image"),
        (b"GIF89a", "the image cannot be read as an image"),
        (np.zeros((4, 4), np.float32), "uint8.*not float32"),
        (np.full((4, 4, 3), np.nan), "uint8.*not float64"),
        (np.zeros((4, 4, 2), np.uint8), r"not uint8 \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"not uint8 \(2, 4, 4, 3\)"),
        (torch.zeros(3, 4, 4), r"needs torch.uint8 of shape \(3, H, W\)"),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), r"needs torch.uint8 of shape \(3, H, W\)"),
        (None, "not a NoneType"),
        (42, "not a int"),
    ],
    ids=str,
)
def test_what_is_no_picture_is_refused_in_words(predictor, picture, says):
    with pytest.raises(ValueError, match=says):
        predictor.predict(picture)


def test_a_missing_picture_is_named(predictor, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        predictor.predict(tmp_path / "gone.png")


def test_pixels_are_limited_before_they_are_decoded(predictor):
    with pytest.raises(ValueError, match="100×100 pixels are more than max_pixels=9,999"):
        predictor.prepare(as_bytes(Image.new("L", (100, 100))), max_pixels=9_999)
    with pytest.raises(ValueError, match="not that of an accepted kind"):
        predictor.prepare(as_bytes(Image.new("L", (9, 9)), "TIFF"), formats=("PNG",))


def test_prepared_images_of_another_shape_are_refused(predictor):
    with pytest.raises(ValueError, match=r"images has shape \(1, 3, 224, 224\); this model takes \(B, 3, 32, 32\)"):
        predictor.logits(np.zeros((1, 3, 224, 224), np.float32))


def test_outputs_that_are_not_finite_are_an_error(photos):
    model = create_model("simple_cnn", num_classes=10)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        Predictor.of(model, ModelCard(photos.classes, eval_transform(32))).predict(photos.images[0])


def test_files_that_are_no_models_are_refused(tmp_path, files):
    with pytest.raises(FileNotFoundError, match=r"no model file .*gone\.onnx"):
        Predictor(tmp_path / "gone.onnx")
    for name, says in (
        ("a.onnx", "cannot be read as an ONNX model"),
        ("a.safetensors", "a.safetensors"),
        ("a.pt", "neither"),
    ):
        (tmp_path / name).write_bytes(b"no model")
        with pytest.raises(ValueError, match=says):
            Predictor(tmp_path / name)
    with pytest.raises(ValueError, match="threads=0 must be at least 1"):
        Predictor(files[0], threads=0)


def test_an_onnx_file_without_a_card_is_refused(files, tmp_path):
    import onnx

    proto = onnx.load(files[0])
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "bare.onnx")
    with pytest.raises(ValueError, match="holds no model card"):
        Predictor(tmp_path / "bare.onnx")
