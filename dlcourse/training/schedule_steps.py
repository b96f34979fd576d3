"""When a run steps its scheduler, and whether the two fit together."""

from __future__ import annotations

import warnings

from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from dlcourse.training.config import MONITORS, TrainerConfig


def interval_of(scheduler: LRScheduler | None, config: TrainerConfig) -> str:
    """"step" (an update of the weights) or "epoch": what the config says, or else what the scheduler was made for.

    Raises ValueError for a OneCycleLR or CyclicLR that would step once an epoch (it would stay at the start of its ramp),
    and for a ReduceLROnPlateau that steps each update or waits for the monitored metric to go the wrong way.
    """
    name, wanted = type(scheduler).__name__, config.scheduler_interval
    if isinstance(scheduler, ReduceLROnPlateau):
        if wanted == "step":
            raise ValueError(f"{name} waits for an epoch's metric: leave scheduler_interval='step' out of the config")
        if scheduler.mode != (right := MONITORS[config.monitor]):
            raise ValueError(
                f"{name} has mode={scheduler.mode!r}, but monitor={config.monitor!r} is better the "
                f"{'lower' if right == 'min' else 'higher'} it is: give it mode={right!r}"
            )
        return "epoch"
    own = "step" if isinstance(scheduler, OneCycleLR | CyclicLR) else getattr(scheduler, "interval", None)
    if own == "step" and wanted == "epoch":
        raise ValueError(f"{name} is made to step after each update of the weights: leave scheduler_interval='epoch' out")
    return wanted or own or "epoch"


def check_length(scheduler: LRScheduler | None, steps: int) -> None:
    """Warn when the schedule is made for another number of updates than the run will make.

    Raises ValueError for a OneCycleLR that is too short: it would break off the run at its end.
    """
    planned = getattr(scheduler, "total_steps", None)
    if planned is None or planned == steps:
        return
    message = f"the schedule is made for {planned} steps, but this run makes {steps}: "
    if planned < steps and isinstance(scheduler, OneCycleLR):
        raise ValueError(message + f"OneCycleLR would raise an error after step {planned}")
    late = "it ends before the rate is down" if planned > steps else "its last part runs at the final rate"
    warnings.warn(message + late, stacklevel=4)
