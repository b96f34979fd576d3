"""The values that mistakes in the distillation loss lead to."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def distillation_mistakes(s: Tensor, t: Tensor, labels: Tensor, temperature: float, alpha: float) -> dict[str, Callable[[], Tensor]]:
    def loss(
        *, factor: float = temperature**2, student: float = temperature, teacher: float = temperature, hard: float = 1.0,
        weight: float = alpha, soft: Callable[[Tensor, Tensor], Tensor] = lambda q, p: F.kl_div(q, p, reduction="batchmean"),
    ) -> Tensor:  # fmt: skip
        log_q, p = (s / student).log_softmax(1), (t / teacher).softmax(1)
        return weight * factor * soft(log_q, p) + (1 - weight) * F.cross_entropy(s / hard, labels)

    k = s.shape[1]
    return {
        "forgets the factor T²: the soft gradients shrink with 1/T², and the balance with the labels moves": lambda: loss(factor=1),
        "multiplies by T where T² is meant": lambda: loss(factor=temperature),
        "divides by T² instead of multiplying": lambda: loss(factor=temperature**-2),
        "swaps the two distributions: this is KL(student ‖ teacher)":
            lambda: loss(soft=lambda q, p: F.kl_div(p.log(), q.exp(), reduction="batchmean")),
        "averages over all B·K entries, as nn.KLDivLoss does by default: reduction='batchmean'":
            lambda: loss(soft=lambda q, p: F.kl_div(q, p, reduction="none").mean()),  # reduction="mean" would warn
        "sums over the batch instead of averaging": lambda: loss(soft=lambda q, p: F.kl_div(q, p, reduction="sum")),
        "takes the cross-entropy with the soft targets: without the teacher's own entropy it is no KL divergence":
            lambda: loss(soft=lambda q, p: -(p * q).sum(1).mean()),
        "softens the student alone, not the teacher": lambda: loss(teacher=1),
        "softens the teacher alone, not the student": lambda: loss(student=1),
        "does not soften at all: T scales the loss and nothing else": lambda: loss(student=1, teacher=1),
        "multiplies the logits by T instead of dividing": lambda: loss(student=1 / temperature, teacher=1 / temperature),
        "softens the logits for the labels too: the hard loss is taken at T = 1": lambda: loss(hard=temperature),
        "swaps the weights: alpha belongs to the teacher's part": lambda: loss(weight=1 - alpha),
        "applies T² to both parts": lambda: temperature**2 * loss(factor=1),
        "adds the parts without the weights": lambda: 2 * loss(weight=0.5),
        "leaves out the labels": lambda: alpha * temperature**2 * F.kl_div((s / temperature).log_softmax(1), (t / temperature).softmax(1), reduction="batchmean"),
        "takes the softmax of the student, where F.kl_div wants its logarithm":
            lambda: loss(soft=lambda q, p: F.kl_div(q.exp(), p, reduction="batchmean")),
        "normalises over the batch (dim 0) instead of the classes": lambda: alpha * temperature**2 * F.kl_div(
            (s / temperature).log_softmax(0), (t / temperature).softmax(0), reduction="batchmean") + (1 - alpha) * F.cross_entropy(s, labels),
        "compares the logits by their squared difference": lambda: loss(soft=lambda q, p: F.mse_loss(s, t)),
        "has the sign of the soft part wrong": lambda: loss(factor=-(temperature**2)),
        "averages the squared difference of the probabilities": lambda: loss(soft=lambda q, p: k * F.mse_loss(q.exp(), p)),
    }  # fmt: skip
