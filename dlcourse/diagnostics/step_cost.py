"""Where the time and the memory of a training step go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, TypeVar

import torch
from torch import nn

from dlcourse.diagnostics.memory import MemoryAccount, memory_account
from dlcourse.diagnostics.traces import is_batch, take_batch, without_a_trace, working_copy
from dlcourse.training.engine import LossFunction, device_of, forward, set_training_mode

T = TypeVar("T")


@dataclass(frozen=True)
class StepCost:
    """Seconds of the parts of one step, each the median of several rounds."""

    loading: float | None
    """Until the loader gives a batch; None when a batch was given."""
    forward: float
    """Outputs and loss, the way to the device included."""
    backward: float
    step: float
    """The optimizer's step (nothing without one) and `zero_grad`."""
    memory: MemoryAccount

    @property
    def seconds(self) -> dict[str, float]:
        """The parts by name, without a loading that was not measured."""
        parts = {"loading": self.loading, "forward": self.forward, "backward": self.backward, "step": self.step}
        return {name: value for name, value in parts.items() if value is not None}

    @property
    def total(self) -> float:
        """Seconds of a whole step."""
        return sum(self.seconds.values())

    @property
    def slowest(self) -> str:
        """The part that takes longest: where to look first."""
        return max(self.seconds, key=self.seconds.__getitem__)


def step_cost(
    model: nn.Module, data: Any, loss_fn: LossFunction, optimizer: torch.optim.Optimizer | None = None, rounds: int = 5
) -> StepCost:
    """Time `rounds` training steps of a copy of model and optimizer; `data` is a batch, or a loader whose time counts too.

    One round before them is not counted: the first one makes what the later ones use again. A loader with fewer batches
    begins again. Model, optimizer, modes and random generators are afterwards as they were.

    Raises ValueError for fewer than 1 round, and for an empty loader.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds} must be at least 1")
    with without_a_trace(data):
        model, optimizer = working_copy(model, optimizer)
        device = device_of(model)
        set_training_mode(model)
        times: dict[str, list[float]] = {"loading": [], "forward": [], "backward": [], "step": []}

        def timed(part: str, work: Callable[[], T]) -> T:
            started = time.perf_counter()
            result = work()
            wait_for(device)
            times[part].append(time.perf_counter() - started)
            return result

        def update() -> None:
            if optimizer is not None:
                optimizer.step()
            model.zero_grad()

        model.zero_grad()
        batches = _endless([take_batch(data)] if is_batch(data) else data)
        for _ in range(rounds + 1):
            batch = timed("loading", lambda: next(batches))
            loss = timed("forward", partial(forward, model, batch, loss_fn))[0]
            timed("backward", loss.backward)
            timed("step", update)
        account = memory_account(model, take_batch(batch)[0], optimizer)
    loading, forwards, backward, step = (median(seconds[1:]) for seconds in times.values())
    return StepCost(None if is_batch(data) else loading, forwards, backward, step, account)


def _endless(loader: Iterable[Any]) -> Iterator[Any]:
    """One batch after another, from the beginning again where the loader ends."""
    while True:
        batch = None
        for batch in loader:
            yield batch
        if batch is None:
            raise ValueError("the loader is empty: it gave no batch")


def wait_for(device: torch.device) -> None:
    """A GPU works on after the call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
