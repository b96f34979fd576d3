"""Exercises on losses (chapter 03): cross-entropy from logits, Kullback-Leibler divergence.

Sources: torch.nn.functional.cross_entropy and torch.nn.functional.kl_div, to which the references are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits (N, K) and labels (N,): a scalar, exact for logits of any size."""
    shifted = logits - logits.max(dim=1, keepdim=True).values  # softmax is the same, exp cannot overflow
    log_probabilities = shifted - shifted.exp().sum(dim=1, keepdim=True).log()  # (N, K)
    rows = torch.arange(len(labels), device=labels.device)
    return -log_probabilities[rows, labels].mean()  # (N,) -> scalar


def check_cross_entropy(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    cases = [(torch.tensor([[1.0, 3.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 1]))]  # N, K and 1 differ: so do mistakes
    cases.append((torch.tensor([[2.0, 0.0]]), torch.tensor([0])))
    for n, k in ((3, 4), (7, 10)):
        cases.append((3 * torch.randn(n, k, generator=generator), torch.randint(k, (n,), generator=generator)))
    for logits, labels in cases:
        want = F.cross_entropy(logits, labels)
        compare(answer(logits, labels), want, given=describe(logits, labels), mistakes=_cross_entropy_mistakes(logits, labels))

    large = torch.tensor([[1000.0, 0.0]])
    apart = torch.tensor([[1000.0, 0.0], [2.0, 0.0]])  # the maximum of the batch is not the second row's
    for logits, picked in ((large, [0]), (large, [1]), (-large - 1000.0, [1]), (apart, [0, 0]), (apart, [1, 1])):
        labels = torch.tensor(picked)
        got, want = answer(logits, labels), F.cross_entropy(logits, labels)
        given = describe(logits, labels)
        if isinstance(got, Tensor) and not bool(got.isfinite().all()):
            raise Mistake(
                f"It overflows. Given {given}, the result is {got.item():g} where {want.item():g} is expected: "
                "in float32 exp(1000) is inf and exp(-1000) is 0. Subtract each row's maximum first."
            )
        if isinstance(got, Tensor) and 0 < float(got.detach()) < 0.99 * want.item():
            raise Mistake(
                f"It clips the probability (a small constant in the logarithm, or clamp). Given {given}, the result is "
                f"{float(got.detach()):.4g} where {want.item():g} is expected, and no gradient is left."
            )
        compare(got, want, given=given)

    wide, labels = cases[2][0].double().requires_grad_(), cases[2][1]
    compare(answer(wide, labels), F.cross_entropy(wide, labels), given=describe(wide, labels), rtol=1e-6, atol=1e-6)
    for logits, labels in ((wide, cases[2][1]), (apart.clone().requires_grad_(), torch.tensor([0, 1]))):
        got = answer(logits, labels)
        if not got.requires_grad:
            raise Mistake("It cuts the graph (detach, item, no_grad or NumPy): the loss has no gradient for the logits.")
        (gradient,) = torch.autograd.grad(got, logits)
        (want,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
        compare(gradient, want, given=describe(logits, labels), what="the gradient for the logits")
    return "values on four shapes, logits of ±1000, float64, the gradient (softmax − one-hot) / N"


def _cross_entropy_mistakes(logits: Tensor, labels: Tensor) -> dict[str, Callable[[], Tensor]]:
    log_p, rows = logits.log_softmax(1), torch.arange(len(labels))
    mean = F.cross_entropy(logits, labels)
    return {
        "takes the softmax twice: log-softmax is applied to probabilities instead of logits": lambda: F.cross_entropy(
            logits.softmax(1), labels
        ),
        "forgets the minus sign": lambda: -mean,
        "normalises over the batch (dim 0) instead of over the classes (dim 1)": lambda: F.nll_loss(
            logits.log_softmax(0), labels
        ),
        "treats the logits as log-probabilities: they are not normalised": lambda: F.nll_loss(logits, labels),
        "averages the probabilities without the logarithm": lambda: -log_p.exp()[rows, labels].mean(),
        "gives the probabilities, not their negative logarithm": lambda: log_p.exp()[rows, labels].mean(),
        "takes the logarithm after the mean over the batch": lambda: -log_p.exp()[rows, labels].mean().log(),
        "sums over the batch instead of averaging": lambda: mean * len(labels),
        "divides by N·K: it averages over the classes too, where they are to be summed": lambda: mean / logits.shape[1],
        "divides by K, the number of classes: the mean is over the N samples": lambda: mean * len(labels) / logits.shape[1],
        "picks [:, labels], a table of N × N, instead of one entry a row": lambda: -log_p[:, labels].mean(),
        "returns one loss a sample: the mean over the batch is missing": lambda: F.cross_entropy(
            logits, labels, reduction="none"
        ),
        "uses the logarithm to base 2": lambda: mean / torch.log(torch.tensor(2.0)),
    }


register(
    "losses.cross_entropy",
    cross_entropy,
    check_cross_entropy,
    difficulty=2,
    importance=5,
    minutes=15,
    hints=(
        "Cross-entropy is the negative log-probability of the right class, averaged over the batch. Which function turns "
        "logits into log-probabilities, and along which dimension?",
        "log softmax(z) = z − log Σ exp(z). exp(1000) overflows; subtracting the row's maximum from z changes nothing else.",
        "shifted = logits - logits.max(1, keepdim=True).values; log_p = shifted - shifted.exp().sum(1, keepdim=True).log(); "
        "then take log_p[torch.arange(N), labels], its mean, and the minus sign.",
    ),
)


def kl_divergence(log_q: Tensor, p: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q), summed over the classes, averaged over the batch: a scalar.

    `log_q` are the model's log-probabilities (N, K), `p` the target probabilities (N, K); a p of zero adds zero.
    """
    return (torch.xlogy(p, p) - p * log_q).sum(dim=1).mean()  # (N, K) -> (N,) -> scalar


def check_kl_divergence(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    cases = []
    for n, k in ((2, 3), (5, 7)):  # N, K and 1 differ: so do mistakes
        logits = torch.randn(2, n, k, generator=generator)
        cases.append((logits[0].log_softmax(1), logits[1].softmax(1)))
    cases.append((torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.5, 0.5]])))
    for log_q, p in cases:
        want = F.kl_div(log_q, p, reduction="batchmean")
        compare(answer(log_q, p), want, given=describe(log_q, p), mistakes=_kl_mistakes(log_q, p))

    one = torch.tensor([[0.25, 0.75]]).log()
    for log_q, p in ((one, torch.tensor([[0.0, 1.0]])), (one.repeat(2, 1), torch.tensor([[0.0, 1.0], [0.5, 0.5]]))):
        got, want = answer(log_q, p), F.kl_div(log_q, p, reduction="batchmean")
        if isinstance(got, Tensor) and bool(got.isnan().any()):
            raise Mistake(
                f"It gives nan where a target probability is 0. Given {describe(log_q, p)}, {want.item():.4g} is expected: "
                "0 · log 0 counts as 0. torch.xlogy knows that."
            )
        row_left_out = F.kl_div(log_q[1:], p[1:], reduction="batchmean")  # nan for a single row
        compare(got, want, given=describe(log_q, p), mistakes={
            "leaves out the whole row where a target probability is 0": row_left_out,
        })  # fmt: skip

    logits, p = cases[0][0].double().requires_grad_(), cases[0][1].double()
    log_q = logits.log_softmax(1)
    got = answer(log_q, p)
    if not got.requires_grad:
        raise Mistake("It cuts the graph (detach, item, no_grad or NumPy): the loss has no gradient for log_q.")
    want = F.kl_div(log_q, p, reduction="batchmean")
    compare(got, want, given=describe(log_q, p), mistakes=_kl_mistakes(log_q, p), rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(got, logits)  # not for log_q: an answer may normalise log_q once more
    want = (log_q.detach().exp() - p) / len(p)
    compare(gradient, want, given=describe(log_q, p), what="the gradient for the logits behind log_q")
    return "values on three shapes, a target probability of 0, float64, the gradient (q − p) / N for the logits behind log_q"


def _kl_mistakes(log_q: Tensor, p: Tensor) -> dict[str, Callable[[], Tensor]]:
    def kl(log_q: Tensor, p: Tensor) -> Tensor:
        return F.kl_div(log_q, p, reduction="batchmean")

    def shifted(eps: float) -> Tensor:
        return (p * ((p + eps).log() - log_q)).sum(1).mean()

    n, k = p.shape
    return {
        "averages over all N·K entries, as nn.KLDivLoss does by default: sum over the classes first": lambda: kl(log_q, p) / k,
        "sums over the batch instead of averaging": lambda: kl(log_q, p) * n,
        "sums over the batch and averages over the classes: it is the other way round": lambda: kl(log_q, p) * n / k,
        "swaps the two distributions: this is KL(q ‖ p)": lambda: kl(p.log(), log_q.exp()),
        "weights by q instead of by the target p": lambda: (log_q.exp() * (p.log() - log_q)).sum(1).mean(),
        "has the sign wrong: KL divergence is never negative": lambda: -kl(log_q, p),
        "leaves out Σ p log p: this is the cross-entropy, which is not zero where q = p": lambda: -(p * log_q).sum(1).mean(),
        "takes the logarithm of log_q once more": lambda: (p * (p.log() - log_q.log())).sum(1).mean(),
        "uses log_q as if it were a probability, without the logarithm of p": lambda: (p * (p - log_q)).sum(1).mean(),
        "applies the exponential to log_q: the difference needs logarithms": lambda: (p * (p.log() - log_q.exp())).sum(1).mean(),
        "returns one value a sample: the mean over the batch is missing": lambda: F.kl_div(log_q, p, reduction="none").sum(1),
        "returns one value an entry: sum over the classes, then average": lambda: F.kl_div(log_q, p, reduction="none"),
        **{
            f"adds {eps:g} inside the logarithm, which shows: torch.xlogy needs no such constant": partial(shifted, eps)
            for eps in (1e-6, 1e-5, 1e-4, 1e-3)
        },
    }


register(
    "losses.kl_divergence",
    kl_divergence,
    check_kl_divergence,
    difficulty=2,
    importance=3,
    minutes=10,
    hints=(
        "It is an expectation under the target p: Σ p · (log p − log q). The model already hands you log q.",
        "Sum over the classes (dim 1) before you average over the batch. Then look at what p · log p gives for p = 0.",
        "torch.xlogy(p, p) is p · log p with 0 at p = 0: (torch.xlogy(p, p) - p * log_q).sum(dim=1).mean().",
    ),
)
