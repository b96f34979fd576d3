"""The losses of chapters 3 and 12 written out, each equal to PyTorch's or torchvision's own (the tests hold them to it).

All take a batch and return its mean, a scalar. Classification losses take logits, never probabilities: the logarithm
and the exponential meet inside, where they can be kept from overflowing (the log-sum-exp trick: subtract the largest
logit first).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error, (B, …) and (B, …) -> scalar. As `nn.MSELoss`."""
    _check_same_shape(outputs, targets)
    return ((outputs - targets) ** 2).mean()


def l1(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error, (B, …) and (B, …) -> scalar. As `nn.L1Loss`."""
    _check_same_shape(outputs, targets)
    return (outputs - targets).abs().mean()


def log_softmax(logits: Tensor) -> Tensor:
    """Logarithms of the softmax over the last dimension, (…, K) -> (…, K), stable for logits of any size."""
    shifted = logits - logits.amax(dim=-1, keepdim=True).detach()  # exp of it lies in (0, 1]
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()


def nll(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of the true classes, (B, K) and integer (B,) -> scalar. As `nn.NLLLoss`."""
    _check_labels(labels)
    return -log_probabilities.gather(1, labels.unsqueeze(1)).mean()  # (B, K) -> (B, 1) -> scalar


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, K) against integer labels (B,) -> scalar. As `nn.CrossEntropyLoss`."""
    return nll(log_softmax(logits), labels)


def binary_cross_entropy_with_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of independent yes/no answers, (B, …) and 0…1 of the same shape -> scalar.

    As `nn.BCEWithLogitsLoss`; also the loss of multi-label classification, one logit a label.
    −t·log σ(z) − (1−t)·log(1−σ(z)) = max(z, 0) − z·t + log(1 + exp(−|z|)), and the right side cannot overflow.
    """
    _check_same_shape(logits, targets)
    return (logits.clamp(min=0) - logits * targets + torch.log1p((-logits.abs()).exp())).mean()


def hinge(scores: Tensor, targets: Tensor, *, margin: float = 1.0) -> Tensor:
    """Binary hinge loss max(0, margin − t·s), scores (B, …) and targets −1 or +1 of the same shape -> scalar.

    PyTorch has no HingeLoss: its `nn.HingeEmbeddingLoss` is another function (of a distance).
    """
    _check_same_shape(scores, targets)
    if not torch.all(targets.abs() == 1):
        raise ValueError("hinge: targets must be −1 or +1 (from 0 and 1: 2 * targets − 1)")
    return (margin - targets * scores).clamp(min=0).mean()


def multiclass_hinge(scores: Tensor, labels: Tensor, *, margin: float = 1.0) -> Tensor:
    """Σ over the wrong classes of max(0, margin − s_true + s_wrong), divided by K: (B, K) and (B,) -> scalar.

    As `nn.MultiMarginLoss`, which divides by all K classes, the true one included.
    """
    _check_labels(labels)
    true = scores.gather(1, labels.unsqueeze(1))  # (B, 1)
    losses = (margin - true + scores).clamp(min=0)  # (B, K)
    return losses.scatter(1, labels.unsqueeze(1), 0.0).mean()


def kl_divergence(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """KL(targets ‖ exp(log_probabilities)), both (B, K), summed over classes and averaged over the batch -> scalar.

    As `nn.KLDivLoss(reduction="batchmean")`; its default, "mean", divides by B·K and is not the divergence.
    """
    _check_same_shape(log_probabilities, targets)
    return (torch.xlogy(targets, targets) - targets * log_probabilities).sum(dim=1).mean()  # xlogy: 0·log 0 = 0


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy against softened labels, logits (B, K) and integers (B,) -> scalar. As `nn.CrossEntropyLoss`.

    The target is 1 − s + s/K for the true class and s/K for each other (Szegedy et al. 2015, arXiv:1512.00567). Spreading
    s over the K − 1 wrong classes alone is the same with s·(K − 1)/K in place of s. Raises ValueError for s outside
    0 ≤ s < 1 and for labels that are not integers (B,).
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing={smoothing} must lie in 0 ≤ smoothing < 1")
    log_probabilities = log_softmax(logits)
    uniform = -log_probabilities.mean(dim=1).mean()  # against 1/K for every class
    return (1 - smoothing) * nll(log_probabilities, labels) + smoothing * uniform


class FocalLoss(nn.Module):
    """Cross-entropy times (1 − p)^gamma, p the probability given to the true class: logits (B, K), integers (B,) -> scalar.

    It turns down the samples that are right already (Lin et al. 2017, arXiv:1708.02002); gamma = 0 is cross-entropy.
    `alpha` (K,) weighs the classes, each sample by that of its own class. The mean is over samples, so that two classes
    give `torchvision.ops.sigmoid_focal_loss(reduction="mean")`. A single number for alpha would only rescale the loss,
    and is refused. Raises ValueError for gamma < 0, an alpha that is not K finite numbers ≥ 0, and soft labels.
    """

    def __init__(self, gamma: float = 2.0, alpha: Tensor | Sequence[float] | None = None) -> None:
        super().__init__()
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma={gamma} must be a finite number of at least 0")
        weights = None if alpha is None else torch.as_tensor(alpha, dtype=torch.float32)
        if weights is not None and (weights.ndim != 1 or not (torch.isfinite(weights) & (weights >= 0)).all()):
            raise ValueError(f"alpha={alpha} must be one finite weight ≥ 0 for each class, shape (K,)")
        self.gamma = gamma
        self.register_buffer("alpha", weights)
        self.alpha: Tensor | None

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        _check_labels(labels)
        log_p = log_softmax(logits).gather(1, labels.unsqueeze(1)).squeeze(1)  # (B, K) -> (B,)
        missing = -torch.expm1(log_p)  # 1 − p; where it is 0, a root of it has an infinite slope
        losses = -(missing.clamp(min=torch.finfo(log_p.dtype).tiny) ** self.gamma) * log_p
        if self.alpha is not None:
            if len(self.alpha) != logits.shape[1]:
                raise ValueError(f"alpha has {len(self.alpha)} weights for {logits.shape[1]} classes")
            losses = self.alpha.to(logits)[labels] * losses
        return losses.mean()


def _check_same_shape(outputs: Tensor, targets: Tensor) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(
            f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)} must have the same shape: "
            f"broadcasting would compare every output with every target (outputs.squeeze(1) drops a last 1)"
        )


def _check_labels(labels: Tensor) -> None:
    if labels.is_floating_point() or labels.ndim != 1:
        raise ValueError(
            f"labels must be integers of shape (B,), but are {labels.dtype} of shape {tuple(labels.shape)}; "
            f"use labels.long()"
        )
