"""What the course writes by hand equals torch.nn: values, every gradient, buffers, in training and in eval mode."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dlcourse.models import layers


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def gradients(out, tensors):
    """Of a loss with a different weight on every output, so that no two errors can cancel."""
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    return torch.autograd.grad((out * weights).sum(), tensors)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), list(itertools.product((1, 2, 3), (0, 1, 2), (1, 2)))
)
def test_conv2d_equals_torch(stride, padding, dilation):
    images = torch.randn(2, 3, 9, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    ours, theirs = layers.conv2d(images, weight, bias, **options), F.conv2d(images, weight, bias, **options)
    assert_close(ours, theirs)
    inputs = (images, weight, bias)
    assert_close(gradients(ours, inputs), gradients(theirs, inputs))
    assert_close(layers.conv2d(images, weight, **options), F.conv2d(images, weight, **options))


def test_conv2d_without_room_says_so():
    with pytest.raises(ValueError, match="size=2 with padding=0 has no room for a window of 5 pixels"):
        layers.conv2d(torch.zeros(1, 1, 9, 2), torch.zeros(1, 1, 3, 3), dilation=2)


@pytest.mark.parametrize("size", range(5, 12))
def test_output_size_is_torchs(size):
    for kernel_size, stride, padding, dilation in itertools.product((1, 2, 3), (1, 2, 3), (0, 1), (1, 2)):
        conv = nn.Conv2d(1, 1, kernel_size, stride, padding, dilation)
        want = conv(torch.zeros(1, 1, size, size)).shape[-1]
        assert want == layers.conv_output_size(size, kernel_size, stride=stride, padding=padding, dilation=dilation)


@pytest.mark.parametrize(
    ("stack", "field"),
    [
        ([], 1),
        ([(3, 1, 1)], 3),
        ([(3, 1, 1)] * 3, 7),
        ([(3, 1, 1), (2, 2, 1)] * 3, 22),  # SimpleCNN
        ([(3, 1, 1), (3, 1, 2), (3, 1, 4)], 15),
        ([(7, 2, 1), (3, 2, 1), (3, 1, 1)], 19),
    ],
)
def test_receptive_field_is_what_the_gradient_shows(stack, field):
    assert layers.receptive_field(stack) == field
    modules = [nn.Conv2d(1, 1, k, s, dilation=d, dtype=torch.float64) for k, s, d in stack]
    images = torch.randn(1, 1, 40, 40, dtype=torch.float64, requires_grad=True)
    nn.Sequential(*modules)(images)[0, 0, 0, 0].backward()
    seen = images.grad[0, 0].nonzero()
    assert (seen.amax(dim=0) - seen.amin(dim=0) + 1).tolist() == [field, field]


NORMS = [
    pytest.param(lambda: layers.BatchNorm2d(6), lambda: nn.BatchNorm2d(6), id="batch"),
    pytest.param(
        lambda: layers.BatchNorm2d(6, 1e-2, momentum=0.3), lambda: nn.BatchNorm2d(6, 1e-2, momentum=0.3), id="options"
    ),
    pytest.param(lambda: layers.LayerNorm(5), lambda: nn.LayerNorm(5), id="layer, last"),
    pytest.param(lambda: layers.LayerNorm((6, 4, 5), 1e-2), lambda: nn.LayerNorm((6, 4, 5), 1e-2), id="layer, all"),
    pytest.param(lambda: layers.GroupNorm(3, 6), lambda: nn.GroupNorm(3, 6), id="group"),
    pytest.param(lambda: layers.GroupNorm(1, 6, 1e-2), lambda: nn.GroupNorm(1, 6, 1e-2), id="one group"),
]


@pytest.mark.parametrize(("build", "build_torchs"), NORMS)
def test_norm_equals_torch_in_training_and_in_eval(build, build_torchs):
    ours, theirs = build().double(), build_torchs().double()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for training in (True, True, False, True, False):
        ours.train(training)
        theirs.train(training)
        x = torch.randn(3, 6, 4, 5, dtype=torch.float64).mul(3).add(2).requires_grad_()
        a, b = ours(x), theirs(x)
        assert_close(a, b)
        assert_close(gradients(a, (x, *ours.parameters())), gradients(b, (x, *theirs.parameters())))
        assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))
    theirs.load_state_dict(ours.state_dict(), strict=True)


def test_running_statistics_carry_no_graph():
    norm = layers.BatchNorm2d(2)
    norm(torch.randn(3, 2, 4, 4, requires_grad=True))
    assert not any(buffer.requires_grad for buffer in norm.buffers())
    copy.deepcopy(norm)


def test_batch_norm_refuses_one_value_a_channel_in_training_only():
    norm = layers.BatchNorm2d(2)
    with pytest.raises(ValueError, match="more than one value a channel"):
        norm(torch.randn(1, 2, 1, 1))
    assert norm.num_batches_tracked == 0
    assert norm.eval()(torch.randn(1, 2, 1, 1)).isfinite().all()


def test_group_norm_needs_groups_that_divide():
    with pytest.raises(ValueError, match="num_channels=6 cannot be split into num_groups=4"):
        layers.GroupNorm(4, 6)


def test_initialize_keeps_the_size_of_activations_and_makes_the_head_small():
    model = nn.Sequential(*[layer for _ in range(10) for layer in (nn.Linear(400, 400), nn.ReLU())], nn.Linear(400, 10))
    assert layers.initialize(model) is model
    assert all(not module.bias.any() for module in model if isinstance(module, nn.Linear))
    x = torch.randn(256, 400)
    hidden = model[:-1](x)
    assert 0.5 < hidden.square().mean() < 2
    assert model[-1].weight.std().item() == pytest.approx(0.001, rel=0.1)
    loss = F.cross_entropy(model(x), torch.arange(256) % 10)
    assert loss.item() == pytest.approx(math.log(10), abs=0.01)


def test_initialize_takes_layers_without_a_bias_and_leaves_norms_alone():
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, bias=False), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(64, 64, bias=False),
        nn.Linear(64, 2),
    )
    layers.initialize(model, head_std=0.5)
    assert model[0].weight.std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.1)
    assert model[1].weight.eq(1).all()
    assert model[3].weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    assert model[4].weight.std().item() == pytest.approx(0.5, rel=0.3)


def test_initialize_takes_a_head_that_is_not_last_and_a_network_without_one():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    layers.initialize(model, head=model[0], head_std=0.01)
    assert model[0].weight.std() < 0.02 < model[1].weight.std()
    conv = nn.Sequential(nn.Conv2d(8, 64, 3))
    assert layers.initialize(conv)[0].weight.std().item() == pytest.approx((2 / 72) ** 0.5, rel=0.1)


def test_drop_path_drops_samples_and_keeps_the_expectation():
    torch.manual_seed(0)
    drop, x = layers.DropPath(0.25), torch.ones(4000, 3, 2)
    out = drop(x)
    kept = out[:, 0, 0] > 0
    assert torch.equal(out[kept], torch.full_like(out[kept], 1 / 0.75))  # a sample is kept whole, and scaled up
    assert not out[~kept].any()
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert drop.eval()(x) is x
    assert layers.DropPath()(x) is x
    assert repr(drop) == "DropPath(p=0.25)"


def test_drop_path_passes_the_gradient_of_the_kept_samples():
    torch.manual_seed(0)
    x = torch.randn(50, 4, requires_grad=True)
    out = layers.DropPath(0.5)(x)
    out.sum().backward()
    assert_close(x.grad, 2.0 * (out != 0))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_drop_path_refuses_a_rate_that_leaves_nothing(p):
    with pytest.raises(ValueError, match=f"p={p} must lie in 0 ≤ p < 1"):
        layers.DropPath(p)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), r"\(B, 3, H, W\), not torch.float32 of shape \(3, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8), r"not torch.float32 of shape \(2, 1, 8, 8\)"),
        (torch.zeros(2, 8, 8, 3), r"not torch.float32 of shape \(2, 8, 8, 3\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "float images .* not torch.uint8"),
        (torch.zeros(0, 3, 8, 8), r"an empty batch, shape \(0, 3, 8, 8\), cannot be trained on"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        layers.check_images(images, 3, training=True)


def test_an_empty_batch_may_be_evaluated():
    layers.check_images(torch.zeros(0, 3, 8, 8), 3, training=False)
