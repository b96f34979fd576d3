"""The losses written out equal PyTorch's, in value and gradient, and refuse what PyTorch would broadcast silently."""

import pytest
import torch
from torch.nn import functional as F

from dlcourse.training import losses

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
