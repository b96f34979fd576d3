"""The learning-rate range test: raise the rate from step to step and watch the loss (Smith 2015, arXiv:1506.01186)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dlcourse.runtime import progress
from dlcourse.training.batches import Means
from dlcourse.training.engine import LossFunction, NonFiniteLoss, set_training_mode, train_step
from dlcourse.training.rng import generator_states, restore_generators, restore_rng, rng_state


@dataclass(frozen=True)
class LRRange:
    """What the range test saw. `suggestion` is None when the loss never fell."""

    learning_rates: list[float]
    """Of each step, rising by a constant factor (of the group with the highest rate)."""
    losses: list[float]
    """The loss before each step, smoothed: an average that forgets, without the pull of its start."""
    suggestion: float | None
    """The rate at which the loss fell fastest per decade, allowing for the steps by which the smoothed loss lags."""


def lr_range_test(
    model: nn.Module,
    loader: Iterable[Any],
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    stop_at: float = 4.0,
) -> LRRange:
    """Train a copy of model and optimizer for `steps` steps while the rate rises from `low` to `high`.

    It ends early when the smoothed loss is above `stop_at` times its lowest, or not finite. Groups of different rates keep
    their ratios. Weights, buffers, rates, optimizer state, modes and random generators are afterwards as they were.

    Raises ValueError for rates that are not 0 < low < high, fewer than 2 steps, a smoothing or stop_at that makes no
    sense, and an empty loader.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"low={low} and high={high} must satisfy 0 < low < high")
    if steps < 2:
        raise ValueError(f"steps={steps} must be at least 2")
    if not 0 <= smoothing < 1 or not stop_at > 1:
        raise ValueError(
            f"smoothing={smoothing} must lie in 0 ≤ smoothing < 1, and stop_at={stop_at} be greater than 1"
        )
    model, optimizer = copy.deepcopy((model, optimizer))  # together: the copied optimizer holds the copied parameters
    before, generators = rng_state(), generator_states([loader])
    own = [float(group["lr"]) for group in optimizer.param_groups]
    shares = [rate / max(own) if max(own) else 1.0 for rate in own]
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    try:
        set_training_mode(model)
        optimizer.zero_grad()
        for step, batch in enumerate(progress(_endless(loader, steps), "learning-rate range test", steps)):
            rate = low * (high / low) ** (step / (steps - 1))
            for group, share in zip(optimizer.param_groups, shares, strict=True):
                group["lr"] = rate * share
            means = Means()
            try:
                train_step(model, [batch], loss_fn, optimizer, means, f"a rate of {rate:.3g}")
            except NonFiniteLoss:
                break
            average = smoothing * average + (1 - smoothing) * means.result()["loss"]
            rates.append(rate)
            losses.append(average / (1 - smoothing ** (step + 1)))  # without it the average would begin at 0
            if losses[-1] > stop_at * min(losses):
                break
    finally:
        restore_rng(before)
        restore_generators([loader], generators)
    return LRRange(rates, losses, _suggestion(rates, losses, lag=round(smoothing / (1 - smoothing))))


def _endless(loader: Iterable[Any], steps: int) -> Iterator[Any]:
    given = 0
    while given < steps:
        before = given
        for batch in loader:
            yield batch
            given += 1
            if given == steps:
                return
        if given == before:
            raise ValueError("the loader is empty: it gave no batch")


def _suggestion(rates: list[float], losses: list[float], lag: int) -> float | None:
    """The rate `lag` steps before the middle of the tenth of the test over which the loss falls most before its lowest.

    A stretch, because from step to step the batches differ more than the rate moves the loss.
    """
    half = max(1, len(losses) // 20)
    lowest = min(range(len(losses)), key=losses.__getitem__, default=0)
    falls = {i: losses[i - half] - losses[i + half] for i in range(2 * half, lowest - half + 1)}
    steepest = max(falls, key=falls.__getitem__, default=None)
    if steepest is None or falls[steepest] <= 1e-6 * abs(losses[0]):  # not by rounding alone
        return None
    return rates[max(0, steepest - lag)]
