"""Learning-rate schedules as pure functions of the step, and `make_scheduler`, which puts one into an optimizer.

Each function takes the number of updates already made (0, 1, …) and returns the *ratio* to the optimizer's own rate, so
that one schedule serves parameter groups of different rates, and nothing needs a state beyond the step. Past
`total_steps` the ratio stays at its last value. Cosine and warm restarts: Loshchilov & Hutter 2016 (arXiv:1608.03983);
linear warmup: Goyal et al. 2017 (arXiv:1706.02677); one cycle: Smith & Topin 2017 (arXiv:1708.07120).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau


def constant(step: int, *, warmup_steps: int = 0) -> float:
    """1 throughout, after a linear warmup: (step + 1) / warmup_steps, so that the first step already moves."""
    return (step + 1) / warmup_steps if step < warmup_steps else 1.0


def step_decay(step: int, *, milestones: Sequence[int], gamma: float = 0.1) -> float:
    """`gamma` to the number of milestones (steps) that are reached. As `MultiStepLR`."""
    return gamma ** sum(step >= milestone for milestone in milestones)


def exponential(step: int, *, gamma: float) -> float:
    """`gamma` to the power of the step. As `ExponentialLR`."""
    return gamma**step


def cosine(step: int, *, total_steps: int, min_ratio: float = 0.0) -> float:
    """Half a cosine from 1 down to `min_ratio`, and flat past the end. Up to there as `CosineAnnealingLR(T_max)`.

    Raises ValueError for total_steps below 1.
    """
    if total_steps < 1:
        raise ValueError(f"total_steps={total_steps} must be at least 1: epochs × steps an epoch")
    progress = min(step / total_steps, 1.0)
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int, min_ratio: float = 0.0) -> float:
    """Linear from 1 / warmup_steps to 1, then half a cosine down to `min_ratio`, which it reaches at `total_steps`.

    Raises ValueError for a warmup that leaves no step of the run to the cosine.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps={warmup_steps} must be at least 0 and less than total_steps={total_steps}")
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return cosine(step - warmup_steps, total_steps=total_steps - warmup_steps, min_ratio=min_ratio)


def warm_restarts(step: int, *, cycle_steps: int, factor: int = 1, min_ratio: float = 0.0) -> float:
    """Cosines from 1 to `min_ratio`, one after the other, each `factor` times as long. As CosineAnnealingWarmRestarts.

    Raises ValueError for cycle_steps or factor below 1.
    """
    if cycle_steps < 1 or factor < 1:
        raise ValueError(f"cycle_steps={cycle_steps} and factor={factor} must both be at least 1")
    while step >= cycle_steps:
        step -= cycle_steps
        cycle_steps *= factor
    return cosine(step, total_steps=cycle_steps, min_ratio=min_ratio)


def one_cycle(
    step: int, *, total_steps: int, rising: float = 0.3, start_ratio: float = 1 / 25, end_ratio: float = 1 / 25e4
) -> float:
    """Up a half cosine from `start_ratio` to 1 in the first part, `rising`, of the run, then down to `end_ratio`.

    The optimizer's own rate is the highest. As `OneCycleLR(max_lr, total_steps, cycle_momentum=False)`, whose last step
    is total_steps − 1, with two differences: past it the ratio stays, where OneCycleLR raises, and a `rising` of less
    than a step begins at the top. Raises ValueError for total_steps below 1 and rising outside 0 ≤ rising < 1.
    """
    if total_steps < 1 or not 0 <= rising < 1:
        raise ValueError(f"total_steps={total_steps} must be at least 1 and rising={rising} at least 0 and less than 1")
    last = total_steps - 1
    top = max(rising * total_steps - 1, 0.0)  # as OneCycleLR: a step number that need not be whole
    step = min(step, last)
    if step > top:
        return end_ratio + (1 - end_ratio) * 0.5 * (1 + math.cos(math.pi * (step - top) / (last - top)))
    return start_ratio + (1 - start_ratio) * 0.5 * (1 - math.cos(math.pi * step / top)) if top else 1.0


SCHEDULES: dict[str, Callable[..., float]] = {
    function.__name__: function
    for function in (constant, step_decay, exponential, cosine, warmup_cosine, warm_restarts, one_cycle)
}


class RatioSchedule(LambdaLR):
    """One of this module's functions in an optimizer: after n steps each group has its own rate times the ratio of n."""

    interval = "step"
    """When the Trainer steps it: after each update of the weights."""

    def __init__(self, optimizer: Optimizer, function: Callable[..., float], **options: Any) -> None:
        super().__init__(optimizer, partial(function, **options))

    @property  # not a value of its own: a loaded state must not change it, since it would not change the function either
    def total_steps(self) -> int | None:
        """The updates that it is made for; None for a schedule without an end."""
        return self.lr_lambdas[0].keywords.get("total_steps")  # type: ignore[attr-defined]


def make_scheduler(name: str, optimizer: Optimizer, **options: Any) -> LRScheduler:
    """A scheduler by name: one of this module's functions with its options, or "plateau".

        make_scheduler("warmup_cosine", optimizer, warmup_steps=100, total_steps=epochs * len(loader))
        make_scheduler("plateau", optimizer, factor=0.5, patience=3)      # the options of ReduceLROnPlateau

    The Trainer knows when to step it: after each update of the weights, "plateau" after each epoch. Raises ValueError
    for an unknown name (with the nearest), an unknown or missing option, and options that do not fit together, here and
    not at some later step.
    """
    known: dict[str, Callable[..., Any]] = {**SCHEDULES, "plateau": ReduceLROnPlateau}
    if name not in known:
        nearest = get_close_matches(str(name), known, n=1, cutoff=0.4) or known
        raise ValueError(f"there is no schedule {name!r}; did you mean {' or '.join(map(repr, nearest))}?")
    parameters = list(inspect.signature(known[name]).parameters.values())[1:]  # after the step, or the optimizer
    if unknown := options.keys() - {parameter.name for parameter in parameters}:
        allowed = ", ".join(parameter.name for parameter in parameters)
        raise ValueError(f"{name} has no option {min(unknown)!r}; it takes {allowed}")
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in options:
            raise ValueError(f"{name} needs {parameter.name}=…")
    if name == "plateau":
        return ReduceLROnPlateau(optimizer, **options)
    return RatioSchedule(optimizer, known[name], **options)  # asks for the ratio of step 0, which checks the options
