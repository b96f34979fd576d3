"""What a run does beside training: print, stop early, keep the best weights, write for TensorBoard."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlcourse.training.checkpoint import save_checkpoint

if TYPE_CHECKING:
    from dlcourse.training.trainer import Trainer


class Callback:
    """Called by the Trainer at fixed moments; override what you need. `trainer.state.stop = True` ends the run.

    A callback that remembers something from epoch to epoch saves it: `state_dict` goes into each checkpoint.
    """

    main_only = False
    """Of a training on several processes: whether only the main one calls it, because it prints or writes files."""

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first step, of a resumed run too."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After each update of the weights; `trainer.state.step` counts them."""

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """After each epoch and its evaluation, with the epoch's metrics (see `History`)."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """When `fit` ends, however it ends."""

    def state_dict(self) -> dict[str, Any]:
        """What to save, in plain types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


class EarlyStopping(Callback):
    """Stop when the monitored metric has not improved by more than `min_delta` for `patience` epochs in a row.

    As a callback it watches the Trainer's `monitor`, or the metric named here. In a loop of your own:
    `if stopping.update(val_loss): break`.

    Raises ValueError for a mode that does not fit the metric (a loss is better when it is lower), and for NaN, which is
    neither better nor worse than anything: a run that only produces NaN is broken, not finished.
    """

    def __init__(self, patience: int, min_delta: float = 0.0, mode: str = "min", *, monitor: str | None = None) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience={patience!r} must be a whole number of at least 1")
        if not min_delta >= 0:
            raise ValueError(f"min_delta={min_delta} must be at least 0")
        if mode not in ("min", "max"):
            raise ValueError(f"mode={mode!r} is unknown; choose one of min, max")
        self.patience, self.min_delta, self.mode, self.monitor = patience, min_delta, mode, monitor
        self.best: float | None = None
        self.waited = 0
        _check_mode(mode, monitor)

    def update(self, value: float) -> bool:
        """Take in the metric after an epoch; returns True when it is time to stop."""
        if math.isnan(value):
            raise ValueError(f"{self.monitor or 'the monitored metric'} is NaN: the run is broken (not: finished)")
        gain = math.inf if self.best is None else (self.best - value if self.mode == "min" else value - self.best)
        if gain > self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def on_fit_start(self, trainer: Trainer) -> None:
        self.monitor = self.monitor or trainer.config.monitor
        _check_mode(self.mode, self.monitor)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        if self.monitor not in record:
            raise ValueError(f"monitor={self.monitor!r} is not measured; choose one of {', '.join(record)}")
        trainer.state.stop = self.update(record[self.monitor]) or trainer.state.stop

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


class BestCheckpoint(Callback):
    """Write the evaluated weights to `path` after each epoch that is the best so far (a checkpoint_dir adds one)."""

    main_only = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        if trainer.history.best_epoch == record["epoch"]:
            save_checkpoint(self.path, trainer.evaluated_model, metrics=record)


class PrintEpochs(Callback):
    """Print a line an epoch. `TrainerConfig(verbose=True)` adds one."""

    main_only = True

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in record.items() if name != "epoch")
        best = " (best so far)" if trainer.history.best_epoch == record["epoch"] else ""
        print(f"epoch {record['epoch']}/{trainer.config.epochs}: {metrics}{best}")


class TensorBoard(Callback):
    """Write each epoch's metrics to `log_dir`, training and validation in one chart: `tensorboard --logdir log_dir`."""

    main_only = True

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self.log_dir = Path(log_dir)
        self._writer: Any = None

    def on_fit_start(self, trainer: Trainer) -> None:
        from torch.utils.tensorboard import SummaryWriter

        first = trainer.state.epoch + 1  # what an interrupted run wrote beyond its checkpoint is shown no more
        self._writer = SummaryWriter(str(self.log_dir), purge_step=first if trainer.state.step else None)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        for name, value in record.items():
            part, _, metric = name.partition("_")
            tag = f"{metric}/{part}" if part in ("train", "val") else name
            if name != "epoch":
                self._writer.add_scalar(tag, value, record["epoch"])
        self._writer.flush()

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._writer is not None:
            self._writer.close()


def _check_mode(mode: str, monitor: str | None) -> None:
    for word, right in (("loss", "min"), ("error", "min"), ("accuracy", "max")):
        if monitor is not None and word in monitor and mode != right:
            raise ValueError(f"mode={mode!r} does not fit monitor={monitor!r}; use mode={right!r}")
