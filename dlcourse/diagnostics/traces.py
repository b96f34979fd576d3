"""What the instruments share: a batch to look at, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dlcourse.training.batches import unpack
from dlcourse.training.rng import generator_states, restore_generators, restore_rng, rng_state


@contextmanager
def without_a_trace(*loaders: Any) -> Iterator[None]:
    """Gradients are on in the block; after it every generator of random numbers, the loaders' own included, is as it was."""
    before, generators = rng_state(), generator_states(loaders)
    try:
        with torch.enable_grad():
            yield
    finally:
        restore_rng(before)
        restore_generators(loaders, generators)


def is_batch(data: Any) -> bool:
    """Whether `data` is one batch, a pair of tensors, and not a loader (or list) of such pairs."""
    return isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def take_batch(data: Any) -> tuple[Tensor, Tensor]:
    """A copy of the batch (inputs (B, …), targets (B, …)), or of the first one that a loader gives.

    A copy, because a model may change its input in place. Raises ValueError for a loader that is empty and for a batch
    that is not a pair of tensors of the same length.
    """
    if not is_batch(data):
        if not isinstance(data, Iterable):
            raise ValueError(
                f"a batch (inputs, targets) or a loader of such batches is needed, not {type(data).__name__}"
            )
        data = next(iter(data), None)
        if data is None:
            raise ValueError("the loader is empty: it gave no batch")
    inputs, targets = unpack(data, 1)
    return inputs.clone(), targets.clone()
