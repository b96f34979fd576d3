"""What a loss wants, found out by asking it: made-up outputs, and what each of them costs.

Whether it heeds which target belongs to which output, whether right answers cost less than wrong ones, how low it gets with
outputs of the kind that the model gives, whether it is a mean over samples. What it answers says more than its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlcourse.diagnostics.case import Case, are_class_labels
from dlcourse.diagnostics.report import Finding

RANGES = {
    "Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0), "Hardtanh": (-1.0, 1.0), "Hardsigmoid": (0.0, 1.0),
    "Relu": (0.0, math.inf), "Softplus": (0.0, math.inf), "Exp": (0.0, math.inf), "Abs": (0.0, math.inf),
}  # fmt: skip


@dataclass
class Contract:
    """What is known of the loss: a case's outputs and targets, and a way to ask it."""

    outputs: Tensor
    targets: Tensor
    value: Callable[[Tensor, Tensor], float | None]
    """The loss of made-up outputs; None when it refuses them."""
    kind: str
    """What the outputs look like: "probabilities", "log-probabilities" (rows of them) or "numbers"."""
    last_operation: str

    @property
    def labels(self) -> bool:
        return are_class_labels(self.outputs, self.targets)

    def wanted(self, size: float) -> Tensor:
        """Outputs that name the right class, by `size` more than the others."""
        return size * nn.functional.one_hot(self.targets.long(), self.outputs.shape[1]).movedim(-1, 1).to(
            self.outputs.dtype
        )


def _made_up(facts: Contract, seed: int = 0) -> Tensor:
    """Random outputs of the kind that the model gives."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(facts.outputs.shape, generator=generator).to(facts.outputs)
    if facts.kind == "probabilities":
        return random.softmax(dim=1)
    if facts.kind == "log-probabilities":
        return random.log_softmax(dim=1)
    if "Sigmoid" in facts.last_operation:
        return random.sigmoid()
    return random


def pairing(facts: Contract) -> Iterator[Finding]:
    """Shapes that broadcast, and a loss that does not care which target belongs to which output."""
    outputs, targets = facts.outputs, facts.targets
    n = len(targets)
    if n < 4:
        return
    made_up = _made_up(facts)
    whole = facts.value(made_up, targets)
    if whole is None:
        return
    single = [facts.value(made_up[i : i + 1], targets[i : i + 1]) for i in range(n)]
    if not facts.labels and outputs.shape != targets.shape and None not in single:
        mean = sum(value for value in single if value is not None) / n
        if not any(math.isclose(whole, expected, rel_tol=1e-3, abs_tol=1e-6) for expected in (mean, mean * n)):
            yield Finding(
                "loss-target-mismatch",
                "error",
                "the shapes that meet in the loss",
                f"outputs {described(outputs)} against targets {described(targets)} are broadcast: each output is held against "
                f"the targets of other samples",
                advice(outputs, targets),
            )
            return
    if bool((targets == targets[:1]).all()):
        return
    rolled = [facts.value(made_up, targets.roll(shift, dims=0)) for shift in (1, 2, 3)]
    if all(value is not None and math.isclose(value, whole, rel_tol=1e-6, abs_tol=1e-9) for value in rolled):
        yield Finding(
            "loss-target-mismatch",
            "error",
            "the loss",
            "it stays the same when the targets are given to other samples: it does not compare an output with its own target",
            advice(outputs, targets) if outputs.shape != targets.shape else "check what the loss does with its targets",
        )


def right_is_cheaper(case: Case, facts: Contract) -> Iterator[Finding]:
    """Right answers must cost less than wrong ones, in one of the ways in which outputs may be written."""
    costs = []
    for right, wrong in _right_and_wrong(facts):
        cost = facts.value(right.to(facts.outputs), facts.targets), facts.value(wrong.to(facts.outputs), facts.targets)
        if cost[0] is not None and cost[1] is not None:
            costs.append((cost[0], cost[1]))
    if costs and facts.labels and all(math.isclose(right, wrong, rel_tol=1e-5, abs_tol=1e-7) for right, wrong in costs):
        case.metric = True  # it heeds which samples share a label, not which output bears its number
    elif costs and all(right >= wrong - 1e-9 for right, wrong in costs):
        yield Finding(
            "loss-target-mismatch",
            "error",
            "the loss",
            f"right answers cost as much as wrong ones or more (≈ {costs[0][0]:.3g} against {costs[0][1]:.3g})",
            "check sign, order of arguments and meaning of the loss",
        )
    elif costs and facts.labels and costs[0][0] < -1 and facts.kind == "numbers":
        yield _wants_logarithms("logits", costs[0][0])


def _wants_logarithms(gets: str, cost: float) -> Finding:
    return Finding(
        "loss-target-mismatch",
        "error",
        "the loss",
        f"it wants log-probabilities and gets {gets}: sure and right answers cost less than nothing (≈ {cost:.3g})",
        "nn.CrossEntropyLoss on logits, or log_softmax at the end of the model and nn.NLLLoss",
    )


def _right_and_wrong(facts: Contract) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs that say what the targets say, and others that do not."""
    outputs, targets = facts.outputs, facts.targets
    if facts.labels and outputs.shape[1] > 1:
        if facts.kind == "probabilities" and "Softmax" in facts.last_operation:
            return  # examined by `range_of_outputs`
        right, wrong = facts.wanted(8.0), facts.wanted(8.0).roll(1, dims=1)
        yield (
            (right.log_softmax(dim=1), wrong.log_softmax(dim=1))
            if facts.kind == "log-probabilities"
            else (right, wrong)
        )
    elif outputs.shape == targets.shape and targets.is_floating_point() and "Sigmoid" not in facts.last_operation:
        generator = torch.Generator().manual_seed(2)
        noise = torch.randn(targets.shape, generator=generator).to(targets)
        yield targets, targets + 3 * noise * targets.std().clamp(min=0.1)
        if bool(((targets >= 0) & (targets <= 1)).all()):
            logit = torch.logit(targets, eps=1e-3)
            yield logit, -logit
            if targets.ndim >= 2:
                log = targets.clamp(min=1e-4).log()
                yield log, log.roll(1, dims=1)


def _yes_or_no(targets: Tensor) -> bool:
    return bool(((targets == 0) | (targets == 1)).all())


def yes_no_range(facts: Contract) -> Iterator[Finding]:
    """Targets outside 0 … 1 for a loss of yes/no answers (a sigmoid inside), told by how it behaves on answers of 0 and 1."""
    targets = facts.targets
    if facts.outputs.shape != targets.shape or not targets.is_floating_point():
        return
    if bool(((targets >= 0) & (targets <= 1)).all()):
        return
    yes = (targets > targets.mean()).to(targets)
    sure = facts.value(60 * yes - 30, yes)
    unsure = facts.value(torch.zeros_like(facts.outputs), yes)
    wrong = facts.value(30 - 60 * yes, yes)
    if (
        None in (sure, unsure, wrong)
        or abs(sure or 0) > 1e-6
        or not 0.3 < (unsure or 0) < 3
        or not 10 < (wrong or 0) < 100
    ):
        return
    yield Finding(
        "label-range",
        "error",
        "the targets",
        f"the loss is one of yes/no answers, and the targets run from {float(targets.min()):g} to {float(targets.max()):g}",
        "targets of 0 and 1: (mask > 0).float(), or a division by 255",
    )


def range_of_outputs(facts: Contract) -> Iterator[Finding]:
    """How low the loss can get with outputs of the range that the model's last operation leaves."""
    operation = next((name for name in RANGES if facts.last_operation.startswith(name)), None)
    if operation is None and facts.kind != "probabilities":
        return
    low, high = RANGES[operation or "Softmax"]
    name = (operation or "softmax").lower()
    targets = facts.targets
    if facts.labels:
        answer = facts.wanted(1.0)
    elif facts.outputs.shape == targets.shape and _yes_or_no(targets):
        answer = targets.to(facts.outputs)
    else:
        outside = (
            float(((targets < low - 1e-3) | (targets > high + 1e-3)).float().mean())
            if targets.is_floating_point()
            else 0.0
        )
        if outside > 0.05:
            seen = f"the last operation is a {name}, and {outside:.0%} of the targets lie where it never comes"
            yield Finding(
                "output-range",
                "error",
                "the outputs",
                seen,
                "leave the last layer linear, or scale the targets into the range",
            )
        return
    best = facts.value(low + (min(high, 20.0) - low) * answer, targets)
    nothing = facts.value(
        torch.full_like(facts.outputs, 0.5 if facts.kind == "numbers" else 1 / facts.outputs.shape[1]), targets
    )
    if best is None or nothing is None:
        return
    if best < -1e-3:
        yield _wants_logarithms("probabilities", best)
    elif best > 0.2 * abs(nothing):
        yield Finding(
            "softmax-before-loss" if name in ("softmax", "sigmoid", "hardsigmoid") else "output-range",
            "error",
            "the outputs",
            f"they went through a {name}, and the loss takes logits: with outputs in this range it cannot fall below ≈ {best:.3g}, even if "
            f"all answers are right and sure",
            f"leave the {name} out of the model: the loss has its own; use it for predictions only",
        )
    elif operation == "Relu":
        seen = "the last operation is a ReLU: logits below 0 are cut off, and have no gradient"
        yield Finding("output-range", "warning", "the outputs", seen, "leave the last layer linear")


def squashed(facts: Contract) -> Iterator[Finding]:
    """A softmax or sigmoid inside the loss in front of another: however sure the right answers, they keep a price."""
    targets = facts.targets
    if facts.kind != "numbers":
        return
    if facts.labels and facts.outputs.shape[1] > 1:
        answer = facts.wanted(1.0)
    elif facts.outputs.shape == targets.shape and targets.is_floating_point() and _yes_or_no(targets):
        answer = 2 * targets - 1
    else:
        return
    sure, surer, wrong, more_wrong = (
        facts.value((size * answer).to(facts.outputs), targets) for size in (30, 60, -30, -60)
    )
    nothing = facts.value(torch.zeros_like(facts.outputs), targets)
    if sure is None or surer is None or wrong is None or more_wrong is None or nothing is None:
        return
    if (
        math.isclose(sure, surer, rel_tol=1e-5)
        and math.isclose(wrong, more_wrong, rel_tol=1e-5)
        and 0.2 * abs(nothing) < sure < wrong
    ):
        yield Finding(
            "softmax-before-loss",
            "error",
            "inside the loss",
            f"however sure, right answers cost ≈ {sure:.3g} and wrong ones no more than ≈ {wrong:.3g}: the outputs are squashed before they are "
            f"compared",
            "give the logits to the loss as they are: it has its own softmax (sigmoid)",
        )


def reduction(facts: Contract) -> Iterator[Finding]:
    """Whether the loss is a mean over samples, of the usual size."""
    n = len(facts.targets) // 2
    made_up = _made_up(facts, seed=1)
    if n >= 2:
        whole = facts.value(made_up[: 2 * n], facts.targets[: 2 * n])
        halves = facts.value(made_up[:n], facts.targets[:n]), facts.value(made_up[n : 2 * n], facts.targets[n : 2 * n])
        if whole is None or halves[0] is None or halves[1] is None or abs(whole) < 1e-12:
            return
        total = halves[0] + halves[1]
        if math.isclose(whole, total, rel_tol=1e-4):
            yield _scaled(
                "the loss of a batch is the sum of the losses of its halves: it grows with the batch size", "error"
            )
            return
        if math.isclose(whole, total / 4, rel_tol=1e-4):
            yield _scaled("twice the batch has half the loss: it is divided by the batch size twice", "error")
            return
    if facts.labels and facts.kind == "numbers":
        zero = facts.value(torch.zeros_like(facts.outputs), facts.targets)
        usual, what = math.log(facts.outputs.shape[1]) if facts.outputs.shape[1] > 1 else 0.0, "with all logits 0"
    elif (
        facts.outputs.shape == facts.targets.shape
        and facts.targets.is_floating_point()
        and not _yes_or_no(facts.targets)
    ):
        zero, usual, what = (
            facts.value((facts.targets + 1).to(facts.outputs), facts.targets),
            1.0,
            "when every answer is off by 1",
        )
    else:
        return
    if zero is None or usual == 0:
        return
    factor = abs(zero) / usual
    if factor > 6 or factor < 1 / 12:
        sure = factor > 30 or factor < 1 / 30
        yield _scaled(
            f"{what} it is ≈ {zero:.3g}, {factor:.2g} times the usual {usual:.3g}", "error" if sure else "warning"
        )


def _scaled(seen: str, severity: str) -> Finding:
    return Finding(
        "loss-scale",
        severity,
        "the loss",
        seen + "; gradients and the right learning rate are scaled with it",
        "reduction='mean' (or divide a sum by the number of samples, once), without further factors",
    )


def advice(outputs: Tensor, targets: Tensor) -> str:
    if outputs.ndim == 2 and targets.ndim == 1 and targets.is_floating_point():
        return "class labels are integers: targets.long(); for numbers to predict, a loss of numbers and outputs.squeeze(1)"
    if outputs.shape == targets.shape and not targets.is_floating_point():
        return "targets of the outputs' shape are probabilities or yes/no answers, and must be floats: targets.float()"
    if outputs.ndim == 2 and targets.ndim == 2 and targets.shape[1] == 1:
        return "class labels have the shape (B,): targets.squeeze(1)"
    if outputs.shape != targets.shape and outputs.numel() == targets.numel():
        return "give both the same shape: outputs.squeeze(1), or targets.unsqueeze(1)"
    return "class labels: integers (B,) against logits (B, K); soft or yes/no labels: floats of the outputs' own shape"


def described(values: Tensor) -> str:
    return f"{tuple(values.shape)} {str(values.dtype).removeprefix('torch.')}"
