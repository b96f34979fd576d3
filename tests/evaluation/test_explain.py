"""Heat maps against hand-computed ones, on every network of the package, and without a trace left on the model."""

import copy

import pytest
import torch
from torch import nn
from zoo import EVERYDAY, build, images

from dlcourse.evaluation import grad_cam, occlusion
from dlcourse.evaluation.explain import steps, weighted_maps
from dlcourse.models import create_model, list_models

LAST = {"simple_cnn": "features", "resnet": "layer4", "mobilenet_v1": "blocks", "mobilenet": "features", "efficientnet": "features"}
CNNS = [name for name in list_models() if not name.startswith("vit")]  # tokens: see the test of `reshape`
each_cnn = pytest.mark.parametrize(
    "name", [name if name in EVERYDAY else pytest.param(name, marks=pytest.mark.large) for name in CNNS]
)


def small_network():
    """A linear readout of mean activations: Grad-CAM's weights are then the readout's own, over the number of places."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def test_grad_cam_of_a_mean_pooled_network_is_the_class_activation_map():
    """Zhou et al. 2015 (arXiv:1512.04150): with mean pooling and one linear layer CAM needs no gradient."""
    model, x = small_network().eval(), torch.randn(3, 3, 6, 8)
    heat = grad_cam(model, model[1], x, torch.tensor([4, 0, 2]))
    activations = model[:2](x)
    weights = model[4].weight[torch.tensor([4, 0, 2])] / 48
    torch.testing.assert_close(heat, torch.einsum("bk,bkhw->bhw", weights, activations).relu().detach())


def test_the_formula_by_hand():
    activations = torch.tensor([[[[1.0, 2.0]], [[3.0, 1.0]]]])  # (1, 2, 1, 2)
    gradients = torch.tensor([[[[2.0, 0.0]], [[-1.0, -1.0]]]])  # mean weights 1 and −1
    assert weighted_maps(activations, gradients).tolist() == [[[0.0, 1.0]]]


def test_targets_are_the_predicted_classes_one_for_all_or_each_its_own():
    model, x = small_network(), torch.randn(3, 3, 6, 8)
    predicted = model.eval()(x).argmax(1)
    torch.testing.assert_close(grad_cam(model, "1", x), grad_cam(model, "1", x, predicted))
    torch.testing.assert_close(grad_cam(model, "1", x, 2), grad_cam(model, "1", x, torch.tensor([2, 2, 2])))
    assert not torch.equal(grad_cam(model, "1", x, 2), grad_cam(model, "1", x, 3))
    torch.testing.assert_close(occlusion(model, x, None, 3, 2), occlusion(model, x, predicted, 3, 2))


def state_of(model):
    return {
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "learns": [p.requires_grad for p in model.parameters()],
        "weights": copy.deepcopy(model.state_dict()),
    }


def assert_same_state(before, after):
    for name in ("modes", "hooks", "learns"):
        assert before[name] == after[name], name
    for a, b in zip(before["grads"], after["grads"], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert all(torch.equal(before["weights"][key], after["weights"][key]) for key in before["weights"])


@each_cnn
def test_every_network_is_explained_and_left_as_it_was(name):
    model, x = build(name), images(name)
    model.train()
    next(module for module in model.modules() if not list(module.children())).eval()
    next(iter(model.parameters())).grad = torch.ones_like(next(iter(model.parameters())))
    before, given = state_of(model), x.clone()
    layer = next(layer for family, layer in LAST.items() if name.startswith(family))
    heat, worth = grad_cam(model, layer, x), occlusion(model, x, 1, size=32, stride=32)
    assert heat.shape == worth.shape == (2, *x.shape[2:])
    assert heat.isfinite().all()
    assert (heat >= 0).all()
    assert not heat.requires_grad
    assert worth.isfinite().all()
    assert torch.equal(x, given)
    assert_same_state(before, state_of(model))


def test_grad_cam_is_the_gradient_that_backward_gives_through_a_whole_network():
    model, x = build("resnet18").eval(), images("resnet18")
    kept = {}
    hook = model.layer3.register_forward_hook(lambda m, i, o: kept.update(out=o))
    score = model(x)[:, 3].sum()
    hook.remove()
    expected = weighted_maps(kept["out"].detach(), torch.autograd.grad(score, kept["out"])[0])
    expected = nn.functional.interpolate(expected[:, None], x.shape[2:], mode="bilinear")[:, 0]
    torch.testing.assert_close(grad_cam(model, "layer3", x, 3), expected)


def test_frozen_weights_and_callers_without_gradients_get_the_same_map():
    model, x = small_network(), torch.randn(2, 3, 6, 6)
    expected = grad_cam(model, "0", x, 1)
    with torch.no_grad():
        torch.testing.assert_close(grad_cam(model, "0", x, 1), expected)
    with torch.inference_mode():
        torch.testing.assert_close(grad_cam(model, "0", x, 1), expected)
    assert torch.is_grad_enabled()
    torch.testing.assert_close(grad_cam(model.requires_grad_(False), "0", x, 1), expected)


def test_what_follows_may_work_in_place():
    model, x = small_network(), torch.randn(2, 3, 6, 6)
    expected = grad_cam(model, "0", x, 1)
    model[1] = nn.ReLU(inplace=True)
    torch.testing.assert_close(grad_cam(model, "0", x, 1), expected)


def test_nothing_is_left_after_an_error():
    model, x = small_network().train(), torch.randn(2, 3, 6, 6)
    before = state_of(model)
    with pytest.raises(ValueError, match=r"targets=\[5, 5\] must lie in 0 … 4"):
        grad_cam(model, "1", x, 5)
    with torch.no_grad(), pytest.raises(ValueError, match="targets"):
        grad_cam(model, "1", x, -1)
    with pytest.raises(ValueError, match="targets"):
        occlusion(model, x, 5, 2, 2)
    assert torch.is_grad_enabled()
    assert_same_state(before, state_of(model))


def test_a_transformers_tokens_need_to_be_laid_out():
    model, x = build("vit_tiny_patch16"), images("vit_tiny_patch16")
    with pytest.raises(ValueError, match=r"shape \(2, 7, 192\), not \(B, C, h, w\): give reshape=…"):
        grad_cam(model, "blocks.11.norm1", x)
    heat = grad_cam(
        model, "blocks.11.norm1", x, 1, reshape=lambda t: t[:, 1:].unflatten(1, model.patch_embed.grid).permute(0, 3, 1, 2)
    )
    assert heat.shape == (2, *x.shape[2:])
    assert heat.any()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer9", "no layer 'layer9'; its parts are conv1, bn1, relu"),
        (nn.ReLU(), "the layer, a ReLU, is not part of the model"),
        ("layer1.0.conv1", "runs 2 times in one pass"),
        ("unused", "runs 0 times in one pass"),
        ("fc", r"shape \(2, 10\), not \(B, C, h, w\)"),
    ],
)
def test_a_layer_that_cannot_be_asked_is_named(layer, message):
    model = create_model("resnet18", 10)
    model.unused = nn.Identity()
    model.layer1[0].conv2 = model.layer1[0].conv1  # one module in two places
    with pytest.raises(ValueError, match=message):
        grad_cam(model, layer, torch.randn(2, 3, 64, 64))


def test_a_layer_and_a_model_with_other_outputs_are_refused():
    lstm = nn.Sequential(nn.Flatten(2), nn.LSTM(4, 4))
    with pytest.raises(ValueError, match="output is a tuple, not a tensor"):
        grad_cam(lstm, "1", torch.randn(2, 3, 2, 2))
    with pytest.raises(ValueError, match=r"the model's output has shape \(2, 3, 4\), not \(B, K\)"):
        grad_cam(nn.Sequential(nn.Flatten(2)), "0", torch.randn(2, 3, 2, 2))


class Brightest(nn.Module):
    """Two classes; the first one's logit is the sum of the top left pixel of every channel."""

    def forward(self, x):
        return torch.stack([x[:, :, 0, 0].sum(1), torch.zeros(len(x))], dim=1)


def test_occlusion_by_hand():
    x = torch.zeros(2, 3, 4, 5)
    x[0, :, 0, 0] = 1.0
    drop = torch.sigmoid(torch.tensor(3.0)).item() - 0.5
    heat = occlusion(Brightest(), x, 0, size=2, stride=1)
    expected = torch.zeros(2, 4, 5)
    expected[0, 0, :2] = torch.tensor([drop, drop / 2])  # the pixel beside it is covered by two squares, one of which drops
    expected[0, 1, :2] = torch.tensor([drop / 2, drop / 4])
    torch.testing.assert_close(heat, expected)
    torch.testing.assert_close(occlusion(Brightest(), x, 1, size=2, stride=1), -expected)
    assert occlusion(Brightest(), x, 0, size=2, stride=1, fill=1.0)[0, 0, 0].item() == 0


def test_squares_cover_every_pixel():
    assert steps(10, 4, 3) == [0, 3, 6]
    assert steps(11, 4, 3) == [0, 3, 6, 7]
    assert steps(4, 4, 1) == [0]


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        (0, 1, "size=0 must lie in 1 … 4"),
        (5, 1, "size=5 must lie in 1 … 4"),
        (2, 3, "stride=3 must lie in 1 … 2"),
        (2, 0, "stride=0 must lie in 1 … 2"),
    ],
)
def test_squares_that_do_not_fit_are_refused(size, stride, message):
    with pytest.raises(ValueError, match=message):
        occlusion(Brightest(), torch.zeros(1, 3, 4, 5), 0, size, stride)
