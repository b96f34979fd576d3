"""What the loop does to the batches of a loader: group them into windows, check them, and average what they give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from dlcourse.training.distributed import gather, is_main


def windows(loader: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` batches, the last one as short as it comes. No batch is taken before its window is asked for.

    >>> list(windows("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    batches = iter(loader)
    while window := list(islice(batches, size)):
        yield window


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell the samplers that ask for it which epoch begins (0, 1, …), as `DistributedSampler` does."""
    for name in ("sampler", "batch_sampler"):
        sampler: Any = getattr(loader, name, None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)


def unpack(batch: Any, number: int) -> tuple[Tensor, Tensor]:
    """The inputs (B, …) and targets (B, …) of a batch. Raises ValueError naming the batch when it is anything else."""
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        parts = ", ".join(type(part).__name__ for part in batch) if isinstance(batch, tuple | list) else ""
        found = f"{type(batch).__name__} of ({parts})" if parts else type(batch).__name__
        raise ValueError(f"batch {number} must be a pair of tensors (images, targets), but the loader gave a {found}")
    inputs, targets = batch
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets) or len(targets) == 0:
        shapes = f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"batch {number}: inputs and targets must hold the same number of samples, but are {shapes}")
    return inputs, targets


def are_labels(outputs: Tensor, targets: Tensor) -> bool:
    """Whether this is classification: logits (B, K) against integer class labels (B,)."""
    return outputs.ndim == 2 and targets.ndim == 1 and not (targets.is_floating_point() or targets.dtype == torch.bool)


def check_labels(targets: Tensor, num_classes: int, number: int) -> None:
    """Raise ValueError for a label outside 0 … num_classes−1, before the loss meets it (a GPU would crash)."""
    low, high = torch.aminmax(targets)
    for label in (int(low), int(high)):
        if not 0 <= label < num_classes:
            raise ValueError(
                f"batch {number} holds the label {label}, outside the model's classes 0 … {num_classes - 1}; "
                f"check the class mapping, or create the model with more classes"
            )


class Means:
    """Means over samples, not over batches: a last batch of 2 counts 2, not as much as a batch of 64.

    `result` and `state_dict` take the samples of all processes together (see `distributed`). What is added stays on its device until `read` or `result` asks for it, so that adding never waits for a GPU.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.samples = 0
        self.sums: dict[str, float] = {}
        self._unread: list[tuple[str, Tensor, int]] = []

    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch: its mean loss (a scalar) and, for class labels, how many of its outputs are right."""
        self.batches += 1
        self.samples += len(targets)
        self._unread.append(("loss", loss.detach(), len(targets)))
        if are_labels(outputs, targets):
            self._unread.append(("accuracy", (outputs.detach().argmax(dim=1) == targets).sum(), 1))

    def read(self) -> dict[str, float]:
        """The sums so far, read from the device (this waits for it)."""
        for name, value, weight in self._unread:
            self.sums[name] = self.sums.get(name, 0.0) + weight * value.item()
        self._unread.clear()
        return self.sums

    def result(self) -> dict[str, float]:
        """The means: "loss", and "accuracy" for class labels. Raises ValueError when no batch was added."""
        samples, sums = self._of_all_processes()
        if samples == 0:
            raise ValueError("the loader is empty: it gave no batch (drop_last with too few samples?)")
        return {name: total / samples for name, total in sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """The sums as plain numbers, for a checkpoint in the middle of an epoch."""
        samples, sums = self._of_all_processes()
        return {"batches": self.batches, "samples": samples, "sums": sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved sums, which the main process takes over for all."""
        self.batches, self.samples, self.sums = state["batches"], 0, {}
        if is_main():
            self.samples, self.sums = state["samples"], dict(state["sums"])
        self._unread.clear()

    def _of_all_processes(self) -> tuple[int, dict[str, float]]:
        parts = gather((self.samples, self.read()))
        names = dict.fromkeys(name for _, sums in parts for name in sums)
        return sum(samples for samples, _ in parts), {n: sum(sums.get(n, 0.0) for _, sums in parts) for n in names}
