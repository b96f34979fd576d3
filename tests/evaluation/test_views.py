"""Test-time augmentation: the mean of the probabilities over the views, wherever a model serves."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlcourse.evaluation import TestTimeAugmentation, predict_all
from dlcourse.evaluation.views import VIEWS
from dlcourse.training import evaluate


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5)).eval()


IMAGES = torch.randn(6, 3, 8, 11, generator=torch.Generator().manual_seed(1))


def test_the_answer_is_the_mean_of_the_probabilities():
    model = make_model()
    answer = TestTimeAugmentation(model, list(VIEWS))(IMAGES)
    by_hand = sum(model(view(IMAGES)).softmax(1) for view in VIEWS.values()) / len(VIEWS)
    torch.testing.assert_close(answer.exp(), by_hand)
    torch.testing.assert_close(answer.softmax(1), by_hand)
    logits = sum(model(view(IMAGES)) for view in VIEWS.values()) / len(VIEWS)
    assert not torch.allclose(answer.softmax(1), logits.softmax(1), atol=1e-4)


def test_one_view_is_the_model():
    model = make_model()
    torch.testing.assert_close(TestTimeAugmentation(model, ["identity"])(IMAGES), model(IMAGES).log_softmax(1))
    assert torch.equal(VIEWS["identity"](IMAGES), IMAGES)


def test_two_views_that_mirror_each_other_do_not_care_which_way_round_the_image_is():
    answer = TestTimeAugmentation(make_model())
    torch.testing.assert_close(answer(IMAGES), answer(IMAGES.flip(-1)))


def test_a_sure_model_gives_finite_answers():
    answer = TestTimeAugmentation(nn.Flatten())(torch.tensor([[[[500.0, -500.0]]], [[[500.0, 400.0]]]]))
    torch.testing.assert_close(answer[0].exp(), torch.tensor([0.5, 0.5]))
    unchanged = TestTimeAugmentation(nn.Flatten(), ["identity"])(torch.tensor([[[[500.0, -500.0]]]]))
    assert unchanged.tolist() == [[0, -1000]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flip", [[4, 3, 2, 1], [8, 7, 6, 5], [12, 11, 10, 9]]),
        ("left", [[3, 4, 4, 4], [7, 8, 8, 8], [11, 12, 12, 12]]),
        ("right", [[1, 1, 1, 2], [5, 5, 5, 6], [9, 9, 9, 10]]),
        ("up", [[9, 10, 11, 12]] * 3),
        ("down", [[1, 2, 3, 4]] * 3),
    ],
)
def test_what_each_view_does(name, expected):
    image = torch.arange(1.0, 13).reshape(1, 1, 3, 4)
    before = image.clone()
    assert VIEWS[name](image)[0, 0].tolist() == expected
    assert torch.equal(image, before)


def test_a_function_is_a_view_too():
    model = make_model()
    answer = TestTimeAugmentation(model, ["identity", lambda images: images.flip(2)])(IMAGES)
    torch.testing.assert_close(answer.exp(), (model(IMAGES).softmax(1) + model(IMAGES.flip(2)).softmax(1)) / 2)


def test_it_serves_wherever_a_model_does():
    labels = torch.arange(6) % 5
    loader = DataLoader(TensorDataset(IMAGES, labels), 4)
    model = TestTimeAugmentation(make_model().train())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predictions = predict_all(model, loader)
    expected = model.eval()(IMAGES)
    torch.testing.assert_close(predictions.logits, expected)
    torch.testing.assert_close(predictions.probabilities, expected.exp())
    metrics = evaluate(model, loader, nn.CrossEntropyLoss())
    assert metrics["accuracy"] == pytest.approx((expected.argmax(1) == labels).float().mean().item())
    assert metrics["loss"] == pytest.approx(nn.functional.nll_loss(expected, labels).item(), rel=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("views", "says"),
    [
        (["identity", "filp"], r"there is no view 'filp'; did you mean 'flip'\?"),
        (["xyz"], "did you mean 'identity' or 'flip' or .* or 'down'"),
        ([3], "there is no view 3"),
        ([], r"views=\[\] must be a list of at least one view"),
        ("flip", "views='flip' must be a list"),
    ],
)
def test_wrong_views_are_named(views, says):
    with pytest.raises(ValueError, match=says):
        TestTimeAugmentation(make_model(), views)
