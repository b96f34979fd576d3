"""What a training run measured, epoch by epoch."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


class History(Mapping[str, list[float]]):
    """The records of a run's epochs, by metric: `history["val_loss"]` is one number an epoch.

    The metrics are "epoch" (1, 2, …), "train_loss", "val_loss", "learning_rate" (of the first parameter group, during
    the epoch) and, for class labels, "train_accuracy" and "val_accuracy". `train_…` is measured while the weights
    change, `val_…` after the epoch.
    """

    def __init__(self, epochs: Iterable[dict[str, float]] = ()) -> None:
        self.epochs: list[dict[str, float]] = [dict(record) for record in epochs]
        """One dict of metrics an epoch."""
        self.best_epoch: int | None = None
        """The epoch (from 1) with the best monitored metric."""
        self.interrupted = False
        """Whether Ctrl-C ended the run."""

    def __getitem__(self, metric: str) -> list[float]:
        if metric not in iter(self):
            raise KeyError(f"no metric {metric!r}; this history holds {', '.join(self) or 'no epoch yet'}")
        return [record[metric] for record in self.epochs]

    def __iter__(self) -> Iterator[str]:
        return iter(self.epochs[0] if self.epochs else ())

    def __len__(self) -> int:
        return len(self.epochs[0]) if self.epochs else 0

    def __repr__(self) -> str:
        return f"History({len(self.epochs)} epochs of {', '.join(self)})"

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line an epoch, under a line with the metrics' names."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self))
            writer.writeheader()
            writer.writerows(self.epochs)

    def to_dataframe(self) -> pd.DataFrame:
        """One row an epoch, one column a metric."""
        import pandas as pd

        return pd.DataFrame(self.epochs)
