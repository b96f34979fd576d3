"""Which settings train a network fastest on this machine: memory format, precision and compilation, timed in turn.

None of them is always right. bfloat16 is fast on a CPU with matrix units and slow on one without, a memory format depends
on the kernels, and compiling needs minutes that a short training does not get back. So: measure, then choose.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from dlcourse.diagnostics.step_cost import wait_for
from dlcourse.diagnostics.traces import take_batch, without_a_trace, working_copy
from dlcourse.training.batches import Means
from dlcourse.training.engine import LossFunction, check_precision, device_of, set_training_mode, train_step


@dataclass(frozen=True)
class Setting:
    """How a network is trained; `amp` and `channels_last` are those of TrainerConfig."""

    amp: str = "off"
    channels_last: bool = False
    compiled: bool = False
    """By `model.compile()`; it needs a C++ compiler on a CPU."""

    def __str__(self) -> str:
        parts = ["float32" if self.amp == "off" else self.amp]
        parts += ["channels_last"] * self.channels_last + ["compiled"] * self.compiled
        return " + ".join(parts)


@dataclass(frozen=True)
class SettingSpeed:
    """The seconds of a training step under a setting: the median of several rounds."""

    setting: Setting
    seconds: float
    speedup: float
    """Over the first setting: the median of the rounds' ratios."""


SETTINGS = (
    Setting(), Setting(channels_last=True), Setting(amp="bf16"), Setting(amp="bf16", channels_last=True),
)  # fmt: skip


def compare_settings(
    model: nn.Module, data: Any, loss_fn: LossFunction, settings: Sequence[Setting] = SETTINGS, *, rounds: int = 5
) -> list[SettingSpeed]:
    """Time training steps (forward, backward, SGD) of copies of the model under each setting, the fastest first.

        best = compare_settings(model, loader, loss_fn)[0].setting
        config = TrainerConfig(epochs=10, amp=best.amp, channels_last=best.channels_last)

    `data` is a batch, or a loader whose first batch is taken. The settings take turns, so that a slow moment of the machine
    meets all; one round before is not counted. A setting that this machine cannot run is left out. Model and random
    generators are afterwards as they were. Raises ValueError for fewer than 1 round, and when no setting runs.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds} must be at least 1")
    with without_a_trace(data):
        batch = take_batch(data)
        steps = {setting: step for setting in settings if (step := _Step.of(setting, model, batch, loss_fn)) is not None}
        if not steps:
            raise ValueError(f"none of the settings runs on this machine: {', '.join(map(str, settings))}")
        times: dict[Setting, list[float]] = {setting: [] for setting in steps}
        for _ in range(rounds):
            for setting, step in steps.items():
                times[setting].append(step.seconds())
    first = next(iter(times.values()))
    speeds = [
        SettingSpeed(setting, median(seconds), median(a / b for a, b in zip(first, seconds, strict=True)))
        for setting, seconds in times.items()
    ]
    return sorted(speeds, key=lambda speed: speed.seconds)


class _Step:
    """A training step under one setting."""

    def __init__(self, setting: Setting, model: nn.Module, batch: Any, loss_fn: LossFunction) -> None:
        self.model, _ = working_copy(model, None)
        self.amp, self.batch, self.loss_fn = setting.amp, batch, loss_fn
        if setting.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if setting.compiled:
            self.model.compile()
        set_training_mode(self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-9)  # the time counts, not where it leads
        device = device_of(self.model)
        self.scaler = torch.amp.GradScaler(device.type, enabled=setting.amp == "fp16")

    @classmethod
    def of(cls, setting: Setting, model: nn.Module, batch: Any, loss_fn: LossFunction) -> _Step | None:
        """The step, taken once; None when this machine cannot: no such precision, no compiler."""
        try:
            check_precision(setting.amp, device_of(model))
            step = cls(setting, model, batch, loss_fn)
            step.seconds()
        except (ValueError, RuntimeError):
            if setting == Setting():
                raise  # what fails in plain float32 as well is not the setting's fault
            return None
        return step

    def seconds(self) -> float:
        """Take the step; how long it took."""
        started = time.perf_counter()
        train_step(self.model, [self.batch], self.loss_fn, self.optimizer, Means(), amp=self.amp, scaler=self.scaler)
        wait_for(device_of(self.model))
        return time.perf_counter() - started
