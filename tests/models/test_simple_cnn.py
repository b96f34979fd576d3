"""SimpleCNN is the network that chapter 4 draws: its layers, its count, its sizes, its first loss."""

import math

import pytest
import torch
from torch import nn

from dlcourse.models import SimpleCNN, count_parameters, simple_cnn


def test_the_layers_and_their_counts():
    leaves = [module for module in simple_cnn().modules() if not list(module.children())]
    assert [type(module).__name__ for module in leaves] == [
        *["Conv2d", "ReLU", "MaxPool2d"] * 3, "AdaptiveAvgPool2d", "Dropout", "Linear", "ReLU", "Linear",
    ]
    assert [count_parameters(m) for m in leaves if count_parameters(m)] == [448, 4_640, 18_496, 524_800, 5_130]
    assert count_parameters(simple_cnn()) == 553_514
    assert count_parameters(simple_cnn(in_channels=1)) == 553_514 - 2 * 16 * 9
    assert count_parameters(simple_cnn(42)) == 553_514 + 32 * 513


def test_stage_shapes():
    x, shapes = torch.zeros(2, 3, 32, 32), []
    for module in simple_cnn().features:
        x = module(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes[0] == (16, 32, 32)
    assert shapes[2::3] == [(16, 16, 16), (32, 8, 8), (64, 4, 4)]


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (33, 47), (64, 64), (224, 224)])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_takes_any_size_and_keeps_the_batch(size, channels):
    assert simple_cnn(7, channels).eval()(torch.randn(2, channels, *size)).shape == (2, 7)


def test_at_32_pixels_the_adaptive_pool_changes_nothing():
    model, x = simple_cnn(), torch.randn(2, 3, 32, 32)
    assert torch.equal(model.pool(model.features(x)), model.features(x))


@pytest.mark.parametrize("shape", [(2, 3, 7, 32), (2, 3, 32, 7), (3, 32, 32)])
def test_too_small_an_input_or_no_batch_is_said(shape):
    with pytest.raises(ValueError, match=r"takes (H and W of at least 8, not|float images of shape \(B, 3, H, W\), not)"):
        simple_cnn()(torch.zeros(shape))


@pytest.mark.parametrize("seed", range(5))
def test_the_first_loss_is_ln_of_the_classes(seed):
    torch.manual_seed(seed)
    x, labels = torch.randn(256, 3, 32, 32), torch.arange(256) % 10
    loss = nn.functional.cross_entropy(simple_cnn()(x), labels)
    assert loss.item() == pytest.approx(math.log(10), abs=0.01)


def test_it_begins_with_kaiming_a_small_head_and_no_bias():
    model = simple_cnn()
    assert not any(parameter.any() for name, parameter in model.named_parameters() if name.endswith("bias"))
    assert model.features[6].weight.std().item() == pytest.approx((2 / 288) ** 0.5, rel=0.05)
    assert model.classifier[-1].weight.std().item() == pytest.approx(0.001, rel=0.05)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model, x = simple_cnn(dropout=0.5), torch.randn(4, 3, 32, 32)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    plain = SimpleCNN()
    assert torch.equal(plain(x), plain(x))


def test_it_learns_from_its_small_head():
    torch.manual_seed(0)
    model, x, labels = simple_cnn(), torch.randn(32, 3, 32, 32), torch.arange(32) % 10
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 1 < losses[0]
