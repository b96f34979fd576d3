"""The check of precision.loss_scaling_step: the same short runs by the answer, by the reference, and with one mistake in them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dlcourse.exercises.checking import Answer, Mistake, compare

Step = Callable[[Tensor, Optimizer, float], Any]


@dataclass(frozen=True)
class _Case:
    """A run of steps, one for each letter of `steps`: how the gradients of that step turn out."""

    text: str
    steps: str
    scale: float
    lr: float = 0.1
    momentum: float = 0.0
    dtype: torch.dtype = torch.float32


_CASES = (
    _Case("a loss with the gradient 3 and scale 8", "a", 8.0),
    _Case("gradients of two parameters and scale 1024, in float64", "b", 1024.0, dtype=torch.float64),
    _Case("two steps with momentum", "bb", 4.0, momentum=0.9),
    _Case("a gradient that vanishes in fp16 unless the loss is scaled", "u", 65536.0, lr=1e8),
    _Case("an infinite gradient of the second parameter (the loss is finite)", "i", 16.0),
    _Case("an infinite gradient of the first parameter (the loss is finite)", "j", 16.0),
    _Case("infinite gradients of both parameters (the loss is finite)", "x", 16.0),
    _Case("a NaN in the gradient of the second parameter (the loss is finite)", "n", 16.0),
    _Case("gradients that overflow in fp16 through the scale", "o", 65536.0),
    _Case("a good step, an infinite gradient, a good step, with momentum", "bib", 16.0, momentum=0.9),
    _Case("two infinite gradients one after the other, then a good step", "iib", 3.0),
)


def _root(x: Tensor) -> Tensor:
    """Zero, with an infinite gradient."""
    return (x - x.detach()).sqrt()


def _loss(kind: str, a: Tensor, b: Tensor) -> Tensor:
    fine = (a * torch.tensor([3.0, -1.0], dtype=a.dtype)).sum()
    if kind == "a":
        return 3 * a[0]
    if kind == "b":
        return fine + (b**2).sum()
    if kind == "i":
        return fine + _root(b[1])
    if kind == "j":
        return _root(a[1]) + (b**2).sum()
    if kind == "x":
        return _root(a[1]) + _root(b[1])
    if kind == "n":
        return fine + 0 * _root(b[0]) + b[1]
    if kind == "u":
        return (a.half() * 1e-4).float().sum() * 1e-5
    return 10 * a.half().float().sum() + b.sum()  # "o"


class _Run:
    """The two parameters and the optimizer of a case, and what a step left behind."""

    def __init__(self, case: _Case) -> None:
        self.case = case
        self.a = torch.tensor([1.0, -2.0], dtype=case.dtype, requires_grad=True)
        self.b = torch.tensor([0.5, 4.0], dtype=case.dtype, requires_grad=True)
        unused = torch.tensor([7.0], dtype=case.dtype, requires_grad=True)  # its gradient stays None
        groups: list[dict[str, Any]] = [{"params": [self.a, unused]}, {"params": [self.b], "lr": 0.5 * case.lr}]
        self.optimizer = torch.optim.SGD(groups, lr=case.lr, momentum=case.momentum)
        self.scale: Any = case.scale

    def step(self, step: Step, kind: str) -> None:
        self.scale = step(_loss(kind, self.a, self.b), self.optimizer, self.scale)

    def weights(self) -> Tensor:
        return torch.cat([self.a, self.b]).detach().clone()

    def left(self) -> Tensor:
        gradients = [p.grad for p in (self.a, self.b) if p.grad is not None]
        return torch.cat(gradients) if gradients else torch.zeros(0)


def check(answer: Answer, reference: Step) -> str:
    for case in _CASES:
        ours, theirs, before = _Run(case), _Run(case), case.scale
        for number, kind in enumerate(case.steps, start=1):
            given = case.text + f" (step {number} of {len(case.steps)})" * (len(case.steps) > 1)
            ours.step(answer, kind)
            theirs.step(reference, kind)
            got, want, skipped = ours.weights(), theirs.weights(), theirs.scale != before
            if not torch.allclose(got, want, rtol=1e-4, atol=1e-6):
                compare(got, want, given=given, what="the weight", mistakes=dict.fromkeys(_names(answer), got))
            compare(ours.scale, theirs.scale, given=given, what="the scale that it returns", mistakes=_wrong_scales(before, skipped))
            if bool((ours.left() != 0).any()):  # true for NaN too
                which = "a skipped step" if skipped else "a step"
                raise Mistake(f"It leaves gradients behind after {which}, given {given}: the next backward() adds to them.")
            before = theirs.scale
    return (
        "weights, scale and cleared gradients over steps that are good, underflow, overflow, are infinite or NaN, with two "
        "groups, momentum and a parameter without gradient"
    )


def _trace(step: Step) -> Tensor:
    """The weights after every step of every case, each with the scale as it should be."""
    weights = []
    for case in _CASES:
        run = _Run(case)
        for kind in case.steps:
            scale = run.scale
            run.step(step, kind)
            run.scale = scale / (2 if kind in "ijnox" else 1)
            for parameter in (run.a, run.b):
                parameter.grad = None
            weights.append(run.weights().double())
    return torch.cat(weights)


def _names(answer: Answer) -> list[str]:
    """The mistake that explains what the answer does in every case, if one does."""
    with contextlib.suppress(Mistake):
        got = _trace(answer)
        for sentence, how in _MISTAKES.items():
            if torch.allclose(got, _trace(functools.partial(_wrong_step, **how)), rtol=1e-4, atol=1e-6, equal_nan=True):
                return [sentence]
    return []


def _wrong_step(
    loss: Tensor, optimizer: Optimizer, scale: float, *, scaled: bool = True, unscaled: bool = True, guard: str = "all",
) -> float:  # fmt: skip
    """The step with one part missing or wrong."""
    (loss * scale if scaled else loss).backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if unscaled:
        for parameter in parameters[: 1 if guard == "unscale first" else None]:
            parameter.grad = parameter.grad / scale
    gradients: list[Tensor] = [p.grad for p in parameters]
    fine = [bool(g.isfinite().all()) for g in gradients]
    if guard == "each":
        for parameter, good in zip(parameters, fine, strict=True):
            parameter.grad = parameter.grad if good else None
    if guard == "zeroed":
        for parameter in parameters:
            parameter.grad = torch.nan_to_num(parameter.grad, 0.0, 0.0, 0.0)
    go = {
        "all": all(fine), "first": fine[0], "last": fine[-1], "any": any(fine), "no": True, "each": True, "zeroed": True,
        "loss": bool(loss.isfinite()), "nan": not any(g.isnan().any() for g in gradients),
        "inf": not any(g.isinf().any() for g in gradients), "never": False, "unscale first": all(fine),
        "first number": all(bool(g.flatten()[0].isfinite()) for g in gradients),
    }[guard]  # fmt: skip
    if go:
        optimizer.step()
    optimizer.zero_grad()
    return scale if all(fine) else scale / 2


_MISTAKES: dict[str, dict[str, Any]] = {
    "scales neither the loss nor the gradients: small gradients vanish": {"scaled": False, "unscaled": False},
    "does not scale the loss before backward()": {"scaled": False},
    "does not divide the gradients by the scale before the step": {"unscaled": False},
    "divides only the first parameter's gradient by the scale": {"guard": "unscale first"},
    "never steps": {"guard": "never"},
    "steps although a gradient is not finite": {"guard": "no"},
    "looks only at the first parameter's gradient": {"guard": "first"},
    "looks only at the last parameter's gradient": {"guard": "last"},
    "looks only at the first number of each gradient": {"guard": "first number"},
    "skips only where no gradient at all is finite: one bad number spoils the step": {"guard": "any"},
    "looks whether the loss is finite: gradients overflow while the loss is fine": {"guard": "loss"},
    "looks for NaN only: an overflow is infinite": {"guard": "nan"},
    "looks for infinite numbers only: a NaN spoils the weights too": {"guard": "inf"},
    "leaves out the parameters with a bad gradient and steps the others: skip the whole step": {"guard": "each"},
    "sets bad numbers to zero and steps: skip the whole step": {"guard": "zeroed"},
}


def _wrong_scales(scale: float, skipped: bool) -> dict[str, float]:
    if skipped:
        return {
            "leaves the scale as it is after a skipped step": scale,
            "doubles the scale after a skipped step": 2 * scale,
            "quarters the scale: halve it": scale / 4,
            "sets the scale to 1 after a skipped step: halve it": 1.0,
        }
    return {"halves the scale after a good step": scale / 2, "doubles the scale after every good step": 2 * scale}
