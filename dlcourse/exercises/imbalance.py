"""Exercises on unbalanced classes (chapter 12): weights for the classes, focal loss.

Sources: Lin et al. 2017, Focal loss for dense object detection (arXiv:1708.02002).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dlcourse.exercises._parity import compare_gradients
from dlcourse.exercises.checking import Answer, Mistake, NotAttempted, compare, describe
from dlcourse.exercises.registry import register


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """The weight N / (K · count) of each of the K classes, (K,) in float32, from labels (N,)."""
    counts = torch.bincount(labels, minlength=num_classes)  # (N,) -> (K,)
    if (counts == 0).any():
        raise ValueError(f"no sample of class {(counts == 0).nonzero().flatten().tolist()}")
    return (len(labels) / (num_classes * counts)).float()


def check_class_weights(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    cases = [([0, 1, 1, 2, 2, 2], 3), ([0, 1, 1, 1], 2), ([2, 0, 0, 1, 2, 2, 0, 2], 3), ([1, 1, 0, 1], 2), ([0] * 900 + [1] * 100, 2), ([0, 1, 2, 3], 4)]
    for listed, k in cases:
        labels = torch.tensor(listed)
        labels = labels[torch.randperm(len(labels), generator=generator)] if len(labels) > 100 else labels
        want = class_weights(labels, k)
        compare(answer(labels, k), want, given=describe(labels, k), mistakes=_weight_mistakes(labels, k))
    for listed, k, absent in (([0, 0, 2], 3, 1), ([0, 1, 1], 3, 2), ([6, 7, 8, 8, 5, 4, 3, 2, 1], 9, 0)):
        _check_absent_class(answer, torch.tensor(listed), k, absent)
    return "values for two to four classes, 900 against 100, labels in any order, and a class without samples refused by name"


def _weight_mistakes(labels: Tensor, k: int) -> dict[str, Callable[[], Tensor]]:
    counts = torch.bincount(labels, minlength=k).float()
    n, right = len(labels), len(labels) / (k * counts)
    return {
        "gives 1 / count, which shrinks the loss with the size of the data set: multiply by N / K": lambda: 1 / counts,
        "forgets the K: N / count makes the loss K times as large": lambda: n / counts,
        "gives each class its share of the samples: that favours the common class still more": lambda: counts / n,
        "gives one minus the share of the class: far too flat for a rare class": lambda: 1 - counts / n,
        "normalises the weights to a sum of 1": lambda: right / right.sum(),
        "normalises the weights to a sum of K: the mean over the samples is to be 1": lambda: right / right.sum() * k,
        "takes the count relative to the most common class": lambda: counts.max() / counts,
        "takes the root of the weights": lambda: right.sqrt(),
        "divides by the number of samples once too often": lambda: right / n,
        "turns the weights upside down: the common class gets the large one": lambda: k * counts / n,
        "returns a weight for each sample: one for each class is asked for": lambda: right[labels],
        "orders the weights by how common the class is: entry k belongs to class k": lambda: right[counts.argsort(descending=True)],
        "returns float64: a loss in float32 refuses such weights": lambda: right.double(),
    }


def _check_absent_class(answer: Answer, labels: Tensor, k: int, absent: int) -> None:
    given = describe(labels, k)
    advice = f"raise a ValueError that names class {absent}, of which there is no sample."
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = answer.value(labels, k)
    except NotImplementedError:
        raise NotAttempted from None
    except ValueError as error:
        if str(absent) not in str(error):
            raise Mistake(f"Its ValueError for {given} does not name the class: {advice}") from None
        return
    except Exception as error:
        raise Mistake(f"It raises {type(error).__name__} for {given}: {advice}") from None
    if isinstance(result, Tensor) and bool(result.isinf().any()):
        raise Mistake(f"It gives an infinite weight for {given}: {advice}")
    raise Mistake(f"It lets a class without samples through: {given} gives {describe(result)}; {advice}")


register(
    "imbalance.class_weights",
    class_weights,
    check_class_weights,
    difficulty=2,
    importance=4,
    minutes=10,
    hints=(
        "The classes should weigh the same in total: count · weight must be one number for all of them.",
        "That number is N / K, so that the weights are 1 on average over the samples. torch.bincount counts.",
        "counts = torch.bincount(labels, minlength=num_classes); look for zeros in it, then len(labels) / (num_classes * counts).",
    ),
)


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: Tensor | None = None) -> Tensor:
    """Mean of −alpha[y] · (1 − p)^gamma · log p over logits (N, K) and labels y (N,), p the probability of the true class."""
    log_p = logits.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]  # (N, K) -> (N,)
    losses = -((1 - log_p.exp()) ** gamma) * log_p
    if alpha is not None:
        losses = alpha[labels] * losses
    return losses.mean()


def check_focal_loss(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    cases = [(torch.tensor([[1.0, 3.0, 0.0], [0.0, 1.0, 0.5]]), torch.tensor([0, 1]), 2.0)]
    for n, k, gamma in ((4, 6, 1.0), (7, 3, 0.5), (5, 4, 0.0)):
        cases.append((2 * torch.randn(n, k, generator=generator), torch.randint(k, (n,), generator=generator), gamma))
    for logits, labels, gamma in cases:
        want = focal_loss(logits, labels, gamma)
        compare(answer(logits, labels, gamma), want, given=describe(logits, labels, gamma), mistakes=_focal_mistakes(logits, labels, gamma))
    logits, labels, _ = cases[1]
    compare(answer(logits, labels), focal_loss(logits, labels), given=describe(logits, labels), what="the result at the default gamma of 2")

    for logits, labels, gamma in (*cases, (cases[1][0][:3, :3], torch.tensor([0, 2, 2]), 2.0)):  # the last: as many samples as classes
        alpha = torch.linspace(0.25, 2, logits.shape[1])
        want = focal_loss(logits, labels, gamma, alpha)
        mistakes = _alpha_mistakes(logits, labels, gamma, alpha)
        compare(answer(logits, labels, gamma, alpha), want, given=describe(logits, labels, gamma, alpha=alpha), mistakes=mistakes)

    large = torch.tensor([[1000.0, 0.0]])
    for picked in (0, 1):
        got, want = answer(large, torch.tensor([picked]), 2.0), focal_loss(large, torch.tensor([picked]))
        given = describe(large, torch.tensor([picked]), 2.0)
        if isinstance(got, Tensor) and not bool(got.isfinite().all()):
            raise Mistake(f"It overflows. Given {given}, {want.item():g} is expected: start from log_softmax, not from log(softmax).")
        clipped = {"clips the probability (a small constant in the logarithm, or clamp)": got} if 0 < float(got) < 999 else None
        compare(got, want, given=given, mistakes=clipped)

    logits, labels, _ = cases[1]
    wide, alpha = logits.double().requires_grad_(), torch.linspace(0.25, 2, logits.shape[1], dtype=torch.float64)
    got, given = answer(wide, labels, 2.0, alpha), describe(wide, labels, 2.0, alpha=alpha)
    _check_factor_learns(got, wide, labels, alpha, given)
    compare_gradients(got, focal_loss(wide, labels, 2.0, alpha), {"logits": wide}, given)
    return "values for four gammas, a weight for each class, as many samples as classes, logits of 1000, float64, the gradient"


def _check_factor_learns(got: Tensor, logits: Tensor, labels: Tensor, alpha: Tensor, given: str) -> None:
    log_p = logits.log_softmax(1)[range(len(labels)), labels]
    constant = -(alpha[labels] * (1 - log_p.exp()).detach() ** 2 * log_p).mean()
    if isinstance(got, Tensor) and got.requires_grad:
        (ours,) = torch.autograd.grad(got, logits, retain_graph=True)
        if torch.allclose(ours, torch.autograd.grad(constant, logits)[0], rtol=1e-6):
            raise Mistake(f"It treats the factor (1 − p)^gamma as a constant: its gradient is missing. Given {given}.")


def _focal_mistakes(logits: Tensor, labels: Tensor, gamma: float, alpha: Tensor | None = None) -> dict[str, Callable[[], Tensor]]:
    log_p = logits.log_softmax(1)[range(len(labels)), labels]
    p, ones = log_p.exp(), torch.ones(logits.shape[1]) if alpha is None else alpha
    w = ones[labels]

    def sigmoid() -> Tensor:
        one_hot = F.one_hot(labels, logits.shape[1]).to(logits)
        ce = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
        return ((1 - (-ce).exp()) ** gamma * ce).mean()

    mean = F.cross_entropy(logits, labels)
    right = -(w * (1 - p) ** gamma * log_p).mean()
    return {
        "ignores gamma: this is the plain cross-entropy": lambda: -(w * log_p).mean(),
        "uses a gamma of 2 whatever gamma it is given": lambda: -(w * (1 - p) ** 2 * log_p).mean(),
        "has p^gamma for (1 − p)^gamma: that turns up the samples that are right already": lambda: -(w * p**gamma * log_p).mean(),
        "multiplies 1 − p by gamma; gamma is its exponent": lambda: -(w * gamma * (1 - p) * log_p).mean(),
        "takes the factor from the mean loss of the batch; each sample has a p of its own": lambda: (1 - (-mean).exp()) ** gamma * mean,
        "forgets the minus sign": lambda: -right,
        "leaves out the logarithm": lambda: -(w * (1 - p) ** gamma).mean(),
        "sums over the batch instead of averaging": lambda: right * len(labels),
        "divides by N·K: the mean is over the samples": lambda: right / logits.shape[1],
        "returns one loss a sample: the mean over the batch is missing": lambda: -w * (1 - p) ** gamma * log_p,
        "takes a sigmoid for each class; here the classes exclude each other, so p comes from the softmax": sigmoid,
        "takes the softmax twice": lambda: focal_loss(logits.softmax(1), labels, gamma, alpha),
    }


def _alpha_mistakes(logits: Tensor, labels: Tensor, gamma: float, alpha: Tensor) -> dict[str, Callable[[], Tensor]]:
    log_p = logits.log_softmax(1)[range(len(labels)), labels]
    losses, w = -((1 - log_p.exp()) ** gamma) * log_p, alpha[labels]

    def weighted_first() -> Tensor:
        ce = F.cross_entropy(logits, labels, weight=alpha, reduction="none")
        return ((1 - (-ce).exp()) ** gamma * ce).mean()

    return {
        "ignores alpha": lambda: losses.mean(),
        "multiplies (N,) losses by (K,) weights, place by place: take alpha[labels], the weight of each sample's class": lambda: (
            alpha * losses
        ).mean(),
        "takes the mean of alpha for every sample, which only rescales the loss: take alpha[labels]": lambda: (
            losses.mean() * alpha.mean()
        ),
        "takes the first weight for every sample, which only rescales the loss: take alpha[labels]": lambda: (alpha[0] * losses).mean(),
        "divides by the sum of the weights, as F.cross_entropy does: the mean is over the samples": lambda: (w * losses).sum() / w.sum(),
        "weighs the cross-entropy before it computes p from it: p is exp(−loss) of the unweighted loss": weighted_first,
        "applies alpha twice": lambda: (w**2 * losses).mean(),
        "divides by alpha": lambda: (losses / w).mean(),
        "weighs by one minus alpha": lambda: ((1 - w) * losses).mean(),
        **_focal_mistakes(logits, labels, gamma, alpha),
    }


register(
    "imbalance.focal_loss",
    focal_loss,
    check_focal_loss,
    difficulty=3,
    importance=3,
    minutes=15,
    hints=(
        "First the log-probability of each sample's true class, (N,). Everything else is arithmetic on it.",
        "p is the exponential of that log-probability. The factor (1 − p)^gamma is a number for each sample, and it has a gradient.",
        "losses = -(1 - log_p.exp()) ** gamma * log_p; alpha[labels] is the weight of each sample's class; the mean comes last.",
    ),
)
