"""The losses written out equal PyTorch's, in value and gradient, and refuse what PyTorch would broadcast silently."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from dlcourse.data import class_weights
from dlcourse.training import FocalLoss, losses

LABELS = torch.tensor([0, 2, 1, 4, 2])


def signs(shape):
    return torch.randint(0, 2, shape).double() * 2 - 1


CASES = {
    "mse": (losses.mse, F.mse_loss, lambda: torch.randn(5, 3)),
    "l1": (losses.l1, F.l1_loss, lambda: torch.randn(5, 3)),
    "cross_entropy": (losses.cross_entropy, F.cross_entropy, lambda: LABELS),
    "nll": (losses.nll, F.nll_loss, lambda: LABELS),
    "bce": (losses.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, lambda: torch.rand(5, 3)),
    "multiclass_hinge": (losses.multiclass_hinge, F.multi_margin_loss, lambda: LABELS),
    "kl": (
        losses.kl_divergence,
        lambda outputs, targets: F.kl_div(outputs, targets, reduction="batchmean"),
        lambda: torch.rand(5, 3).softmax(dim=1),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_equal_to_torch(name, scale):
    torch.set_default_dtype(torch.float64)
    ours, reference, make_targets = CASES[name]
    targets = make_targets()
    width = 5 if targets.dtype == torch.long else 3
    mine = (scale * torch.randn(5, width)).requires_grad_()
    theirs = mine.detach().clone().requires_grad_()
    loss, expected = ours(mine, targets), reference(theirs, targets)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_binary_hinge():
    scores, targets = torch.tensor([2.0, 0.5, -1.0, -3.0]), torch.tensor([1.0, 1.0, 1.0, -1.0])
    assert losses.hinge(scores, targets).item() == (0 + 0.5 + 2 + 0) / 4
    assert losses.hinge(scores, targets, margin=0.25).item() == (0 + 0 + 1.25 + 0) / 4
    with pytest.raises(ValueError, match="−1 or"):
        losses.hinge(scores, torch.tensor([1.0, 0.0, 1.0, 0.0]))


def test_log_softmax_takes_logits_of_any_size():
    logits = torch.tensor([[1000.0, 0.0, -1000.0], [-5000.0, -5000.0, -5000.0]])
    torch.testing.assert_close(losses.log_softmax(logits), logits.log_softmax(dim=1))
    assert torch.isfinite(losses.binary_cross_entropy_with_logits(logits, torch.ones(2, 3)))


def test_kl_of_a_distribution_with_a_zero():
    targets = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    log_probabilities = torch.tensor([[0.3, 0.7], [0.5, 0.5]]).log()
    expected = F.kl_div(log_probabilities, targets, reduction="batchmean")
    torch.testing.assert_close(losses.kl_divergence(log_probabilities, targets), expected)


@pytest.mark.parametrize("loss", [losses.mse, losses.l1, losses.binary_cross_entropy_with_logits, losses.kl_divergence])
def test_shapes_that_would_broadcast_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(4, 1\) and targets \(4,\) must have the same shape"):
        loss(torch.randn(4, 1), torch.rand(4))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.nll, losses.multiclass_hinge])
def test_float_labels_are_refused(loss):
    with pytest.raises(ValueError, match=r"torch.float32 .* use labels.long\(\)"):
        loss(torch.randn(5, 5), LABELS.float())


# ---------------------------------------------------------------- chapter 12


@given(st.integers(1, 6), st.integers(2, 12), st.floats(0, 0.99), st.integers(0, 2**31))
def test_smoothed_cross_entropy_is_torchs_in_value_and_gradient(n, k, smoothing, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    mine = (3 * torch.randn(n, k, generator=generator, dtype=torch.float64)).requires_grad_()
    theirs = mine.detach().clone().requires_grad_()
    loss = losses.smoothed_cross_entropy(mine, labels, smoothing=smoothing)
    expected = F.cross_entropy(theirs, labels, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_a_smoothing_outside_its_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=f"smoothing={smoothing} must lie in 0 ≤ smoothing < 1"):
        losses.smoothed_cross_entropy(torch.randn(5, 5), LABELS, smoothing=smoothing)


def assert_same_loss_and_gradient(ours, reference, logits):
    mine, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = ours(mine), reference(theirs)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def test_focal_loss_with_gamma_0_is_cross_entropy():
    logits = 5 * torch.randn(5, 5, dtype=torch.float64)
    assert_same_loss_and_gradient(
        lambda z: FocalLoss(0.0)(z, LABELS), lambda z: F.cross_entropy(z, LABELS), logits
    )


def test_focal_loss_with_gamma_0_and_alpha_is_the_weighted_cross_entropy_averaged_over_samples():
    logits, alpha = 5 * torch.randn(5, 5, dtype=torch.float64), torch.tensor([0.5, 2.0, 0.25, 1.0, 3.0], dtype=torch.float64)
    assert_same_loss_and_gradient(
        lambda z: FocalLoss(0.0, alpha)(z, LABELS),
        lambda z: F.cross_entropy(z, LABELS, weight=alpha, reduction="none").mean(),
        logits,
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.75])
def test_focal_loss_of_two_classes_is_torchvisions(gamma, alpha):
    z = 3 * torch.randn(40, dtype=torch.float64)
    labels = torch.randint(0, 2, (40,))
    ours = FocalLoss(gamma, None if alpha is None else (1 - alpha, alpha))
    assert_same_loss_and_gradient(
        lambda z: ours(torch.stack([torch.zeros_like(z), z], dim=1), labels),
        lambda z: sigmoid_focal_loss(z, labels.double(), -1 if alpha is None else alpha, gamma, reduction="mean"),
        z,
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_focal_loss_takes_logits_of_any_size(gamma, dtype):
    logits = torch.tensor([[1000.0, 0.0], [0.0, 1000.0], [-5000.0, -5000.0]], dtype=dtype, requires_grad=True)
    loss = FocalLoss(gamma)(logits, torch.tensor([0, 0, 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert loss.item() == pytest.approx((1000 + math.log(2) * 0.5**gamma) / 3, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.25, [[1.0, 2.0]], [1.0, -1.0], [1.0, math.inf], [math.nan, 1.0]])
def test_an_alpha_that_is_not_a_weight_for_each_class_is_refused(alpha):
    with pytest.raises(ValueError, match=r"must be one finite weight ≥ 0 for each class, shape \(K,\)"):
        FocalLoss(alpha=alpha)


@pytest.mark.parametrize("gamma", [-1.0, math.nan, math.inf])
def test_a_gamma_out_of_range_is_refused(gamma):
    with pytest.raises(ValueError, match=f"gamma={gamma} must be a finite number of at least 0"):
        FocalLoss(gamma)


def test_focal_loss_refuses_soft_labels_and_an_alpha_for_other_classes():
    with pytest.raises(ValueError, match=r"labels must be integers of shape \(B,\)"):
        FocalLoss()(torch.randn(5, 5), torch.rand(5, 5).softmax(1))
    with pytest.raises(ValueError, match="alpha has 3 weights for 5 classes"):
        FocalLoss(alpha=[1.0, 2.0, 3.0])(torch.randn(5, 5), LABELS)


def test_alpha_goes_where_the_module_goes():
    loss = FocalLoss(alpha=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert loss.to("meta", torch.float64).alpha.device.type == "meta"
    assert loss.alpha.dtype == torch.float64
    moved = FocalLoss(alpha=[1, 2, 3, 4, 5]).double()
    assert moved(torch.randn(5, 5, dtype=torch.float64), LABELS).dtype == torch.float64
    assert FocalLoss(alpha=[1, 2, 3, 4, 5])(torch.randn(5, 5, dtype=torch.bfloat16), LABELS).dtype == torch.bfloat16
    assert [name for name, _ in FocalLoss(alpha=[1, 1]).named_buffers()] == ["alpha"]


def test_class_weights_serve_as_alpha_and_a_class_without_samples_has_none():
    loss = FocalLoss(alpha=class_weights([0, 0, 0, 1]))
    assert loss.alpha.tolist() == pytest.approx([4 / 6, 2])
    with pytest.raises(ValueError, match="labels holds no sample of class 1"):
        FocalLoss(alpha=class_weights([0, 0, 2]))
