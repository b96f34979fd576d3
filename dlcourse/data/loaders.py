"""Loaders and samplers: the order of an epoch is a function of the seed and the epoch, and of nothing else.

The convention is that of torch.utils.data.DistributedSampler: call `loader.sampler.set_epoch(epoch)` before each epoch.
A training run that stopped can then go on with the order (and, with workers, the augmentation) it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler, Subset

from dlcourse.data.files import ImageFiles
from dlcourse.runtime import usable_cores

MOST_WORKERS = 4


class EpochSampler(Sampler[int]):
    """All indices 0 … size−1 in an order that depends on seed and epoch alone; the epoch is 0 until `set_epoch`.

    With `weights` (size,) it draws `size` indices with replacement instead, each in proportion to its weight.
    """

    def __init__(self, size: int, seed: int = 0, *, weights: torch.Tensor | None = None) -> None:
        self.size = size
        self.seed = seed
        self.weights = weights
        self.generator = torch.Generator()  # DataLoader draws the seeds of its workers from it
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next pass has."""
        self.epoch = epoch
        self.generator.manual_seed(self.seed + epoch)

    def __iter__(self) -> Iterator[int]:
        order = torch.Generator().manual_seed(self.seed + self.epoch)
        if self.weights is None:
            yield from torch.randperm(self.size, generator=order).tolist()
        else:
            yield from torch.multinomial(self.weights, self.size, replacement=True, generator=order).tolist()

    def __len__(self) -> int:
        return self.size


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    train: bool = False,
    sampler: Sampler[int] | None = None,
    seed: int = 0,
    num_workers: int | None = None,
    *,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """A DataLoader of `dataset` for training (shuffled) or evaluation (in order).

    train        shuffles with an `EpochSampler`: call `loader.sampler.set_epoch(epoch)` before each epoch, or every
                 epoch has the order of epoch 0
    sampler      takes the place of that order, e.g. `balanced_sampler(labels)`
    num_workers  None takes 0 for data in memory, where a worker costs more than it saves, and as many as there are
                 cores, at most 4, for images in files
    collate_fn   makes a batch of a list of samples, e.g. `MixingCollate(10, mixup=0.2)`; None stacks them

    The last batch is kept, however small, in training too: a metric weighted by batch size then counts each sample
    once, and no sample is left out. Workers of a training loader start anew each epoch, so that their random numbers
    too depend on seed and epoch alone; those of an evaluation loader persist. torch seeds Python and NumPy in each.
    Memory is pinned where there is a CUDA device, the only place where that pays.

    Raises ValueError for an empty data set, a batch_size below 1 and a negative num_workers.
    """
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        raise ValueError("dataset is empty: there is nothing to load")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    if num_workers is not None and num_workers < 0:
        raise ValueError(f"num_workers={num_workers} must be 0 or more, or None to choose")
    workers = _workers_for(dataset) if num_workers is None else num_workers
    if sampler is None:
        sampler = EpochSampler(size, seed) if train else SequentialSampler(dataset)  # type: ignore[arg-type]
    generator = sampler.generator if isinstance(sampler, EpochSampler) else torch.Generator().manual_seed(seed)
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0 and not train,
        generator=generator,
        collate_fn=collate_fn,
    )


def _workers_for(dataset: Dataset[Any]) -> int:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if not isinstance(dataset, ImageFiles):
        return 0
    return min(usable_cores(), MOST_WORKERS)


def class_weights(labels: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
    """Weights (K,) for the classes 0 … K−1 that let every class weigh the same: N / (K · count of the class).

    Their mean over the samples is 1, so a weighted loss keeps its scale. Raises ValueError for a class between 0 and
    the greatest label that has no sample, for labels below 0 or not whole, and for no labels at all.
    """
    counts = _class_counts(labels)
    if missing := np.flatnonzero(counts == 0).tolist():
        raise ValueError(
            f"labels holds no sample of class {', '.join(map(str, missing))}: its weight would be infinite"
        )
    return torch.from_numpy(counts.sum() / (len(counts) * counts)).float()


def balanced_sampler(labels: Sequence[int] | np.ndarray | torch.Tensor, seed: int = 0) -> EpochSampler:
    """A sampler for `make_loader` that draws every class equally often on average, with replacement, N draws an epoch.

    Raises ValueError as `class_weights` does.
    """
    weights = class_weights(labels).double()
    return EpochSampler(len(labels), seed, weights=weights[torch.as_tensor(labels).long()])


def undersampler(labels: Sequence[int] | np.ndarray | torch.Tensor, seed: int = 0) -> EpochSampler:
    """A sampler for `make_loader` that takes as many samples of every class as the rarest has, others in each epoch.

    Raises ValueError as `class_weights` does.
    """
    return _Undersampler(labels, seed)


class _Undersampler(EpochSampler):
    def __init__(self, labels: Sequence[int] | np.ndarray | torch.Tensor, seed: int) -> None:
        classes = range(len(class_weights(labels)))  # it complains of a class without samples
        self.members = [torch.from_numpy(np.flatnonzero(np.asarray(labels) == label)) for label in classes]
        self.each = min(map(len, self.members))
        super().__init__(self.each * len(self.members), seed)

    def __iter__(self) -> Iterator[int]:
        order = torch.Generator().manual_seed(self.seed + self.epoch)
        taken = [members[torch.randperm(len(members), generator=order)[: self.each]] for members in self.members]
        together = torch.cat(taken)  # class after class, so shuffle
        yield from together[torch.randperm(self.size, generator=order)].tolist()


def _class_counts(labels: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
    values = np.asarray(labels)
    if values.ndim != 1 or len(values) == 0 or values.dtype.kind not in "iu" or values.min() < 0:
        raise ValueError(
            f"labels must be a non-empty (N,) of whole numbers from 0 up, not {values.dtype} {values.shape}"
        )
    return np.bincount(values)
