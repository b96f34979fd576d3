"""How a training run goes, apart from the model, the loss and the data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from dlcourse.training.engine import AMP_DTYPES

MONITORS = {"val_loss": "min", "val_accuracy": "max"}
INTERVALS = ("epoch", "step")


@dataclass(frozen=True)
class TrainerConfig:
    """The settings of a `Trainer`. Raises ValueError naming a wrong one, its value and what is allowed."""

    epochs: int
    """Passes over the training data."""

    _: KW_ONLY

    amp: Literal["off", "bf16", "fp16"] = "off"
    """Mixed precision: "bf16" on a CPU or a GPU, "fp16" (with loss scaling) on a GPU that lacks bf16. On a CPU fp16 runs
    too, but slowly."""

    accumulate: int = 1
    """Batches a step: their gradients are added to the mean over all their samples before the weights change."""

    clip_norm: float | None = None
    """The largest norm of the whole gradient, all parameters together; None does not clip."""

    channels_last: bool = False
    """Keep images as (B, H, W, C) in memory: faster convolutions on many machines, the same result."""

    sync_batch_norm: bool = False
    """On several processes, let batch norm take its statistics over all of them, not each over its part of the batch."""

    ema: float | None = None
    """Decay of an exponential moving average of the weights, e.g. 0.999; the average is what is evaluated and kept."""

    seed: int = 0
    """Seeds Python, NumPy and torch when `fit` starts (not when it resumes)."""

    checkpoint_dir: str | Path | None = None
    """Folder of last.pt (everything needed to resume) and best.pt (the best weights so far); None writes nothing."""

    checkpoint_every: int | None = None
    """Write last.pt every so many steps too, not only at the end of an epoch. Needs checkpoint_dir."""

    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"
    """What says which epoch was the best: the lowest val_loss or the highest val_accuracy; the first one wins a tie."""

    restore_best: bool = True
    """End `fit` with the weights of the best epoch in the model; False leaves the last ones."""

    scheduler_interval: Literal["epoch", "step"] | None = None
    """When the scheduler steps: after each "epoch", or each "step" (update of the weights). None: as it was made for,
    which is a step for those of `make_scheduler`, OneCycleLR and CyclicLR, and an epoch for every other."""

    verbose: bool = False
    """Print a line an epoch."""

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 1)
        _one_of("amp", self.amp, AMP_DTYPES)
        _at_least("accumulate", self.accumulate, 1)
        if self.clip_norm is not None and not (math.isfinite(self.clip_norm) and self.clip_norm > 0):
            raise ValueError(f"clip_norm={self.clip_norm} must be a positive number, or None for no clipping")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema={self.ema} must lie between 0 and 1 (0.999 is common), or be None for no average")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} is outside 0 … {2**32 - 1}")
        if self.checkpoint_every is not None:
            _at_least("checkpoint_every", self.checkpoint_every, 1)
            if self.checkpoint_dir is None:
                raise ValueError(f"checkpoint_every={self.checkpoint_every} needs checkpoint_dir, which is None")
        _one_of("monitor", self.monitor, MONITORS)
        if self.scheduler_interval is not None:
            _one_of("scheduler_interval", self.scheduler_interval, INTERVALS)


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")


def _one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in (names := tuple(allowed)):
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(names)}")
