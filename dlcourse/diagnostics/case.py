"""What the doctor examines: samples of the data, and copies of model and optimizer to try things on.

Everything is done on copies and on drawn samples, so that an examination leaves no trace on the training itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dlcourse.diagnostics.layers import LayerLook
from dlcourse.diagnostics.traces import working_copy
from dlcourse.training.batches import unpack
from dlcourse.training.engine import LossFunction, device_of

MAX_SAMPLES = 512
"""Samples kept for the experiments, drawn evenly from all that the loader gave."""
MAX_BYTES = 64 * 2**20
"""Their size at most."""
MAX_SECONDS_LOADING = 10.0
"""How long the loader may be read before the doctor goes on with what it has."""


@dataclass
class Sample:
    """What one pass over the loader showed."""

    first: tuple[Tensor, Tensor]
    """The first batch as it came."""
    inputs: Tensor
    """Samples drawn evenly from the pass, in random order: (n, …)."""
    targets: Tensor
    stream: Tensor
    """The targets in the order in which they came (of many numbers each, the first 64)."""
    batch_sizes: list[int]
    complete: bool
    """Whether the pass came to its end."""
    bad_inputs: list[str]
    """Where inputs are not finite, as "batch 3, sample 5"."""
    bad_targets: list[str]
    fingerprints: list[bytes]
    """One a sample, the same for an image and its mirror image."""
    neighbours: tuple[Tensor, Tensor]
    """The targets of the sample before and of the one after each of `inputs` in its batch."""


@dataclass
class Case:
    """One training under examination."""

    model: nn.Module
    """A copy, in the modes in which it was given; `try_out` gives a fresh copy of it."""
    optimizer: torch.optim.Optimizer | None
    loss_fn: LossFunction
    loader: Any
    val_loader: Any
    data: Sample
    seed: int
    steps: int
    deadline: float
    stepped: bool = False
    """Whether the optimizer has made steps already."""
    notes: list[str] = field(default_factory=list)

    inputs: Tensor = field(init=False)
    """The samples as the experiments take them: treated where they were found to be ill."""
    targets: Tensor = field(init=False)
    looks: list[LayerLook] = field(default_factory=list)
    """What a forward pass did in each layer."""
    own_trial: Any = None
    """The `Trial` with the user's optimizer as it is."""
    metric: bool = False
    """Whether the loss compares samples with each other, so that labels are groups and outputs no classes."""
    outputs: Tensor | None = None
    """What the model answers to `inputs[:batch]`, once it could be asked."""

    def __post_init__(self) -> None:
        self.inputs, self.targets = self.data.inputs, self.data.targets

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    @property
    def classes(self) -> int | None:
        """How many classes the model tells apart, None when this is no classification (or could not be run)."""
        if self.outputs is None or self.metric or not are_class_labels(self.outputs, self.targets):
            return None
        return self.outputs.shape[1]

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """The first samples, as a batch on the model's device. Copies: a model may write into what it gets."""
        return self.inputs[:size].to(self.device, copy=True), self.targets[:size].to(self.device, copy=True)

    def try_out(self) -> tuple[nn.Module, torch.optim.Optimizer | None]:
        """A copy of model and optimizer to train."""
        return working_copy(self.model, self.optimizer)

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline


def are_class_labels(outputs: Tensor, targets: Tensor) -> bool:
    """Whether integers (B, …) name classes of outputs (B, K, …): an image's class, or that of each of its pixels."""
    whole = not targets.is_floating_point() and targets.dtype != torch.bool
    return whole and outputs.ndim == targets.ndim + 1 and outputs.shape[2:] == targets.shape[1:]


def rates_of(optimizer: torch.optim.Optimizer, stepped: bool) -> list[float]:
    """The rate of each group; before the first step, with a scheduler that warms up, the one it climbs to."""
    if stepped:
        return [float(group["lr"]) for group in optimizer.param_groups]
    return [
        max(float(group.get(name, 0.0)) for name in ("lr", "initial_lr", "max_lr")) for group in optimizer.param_groups
    ]


def draw(loader: Iterable[Any], seed: int) -> Sample:
    """Read the loader once. Raises ValueError for an empty loader and a batch that is not a pair of tensors."""
    generator = torch.Generator().manual_seed(seed)
    first: tuple[Tensor, Tensor] | None = None
    kept: list[tuple[float, Tensor, Tensor, Tensor, Tensor]] = []
    limit = MAX_SAMPLES
    stream: list[Tensor] = []
    sizes: list[int] = []
    bad_inputs: list[str] = []
    bad_targets: list[str] = []
    prints: list[bytes] = []
    seen: set[tuple[bytes, ...]] = set()
    start, complete = time.monotonic(), True
    for number, batch in enumerate(loader, start=1):
        inputs, targets = (part.detach().cpu() for part in unpack(batch, number))
        if first is None:
            first = inputs.clone(), targets.clone()
            limit = max(16, min(MAX_SAMPLES, MAX_BYTES // max(1, inputs[0].nbytes)))
        sizes.append(len(inputs))
        bad_inputs += [f"batch {number}, sample {i}" for i in not_finite(inputs)]
        bad_targets += [f"batch {number}, sample {i}" for i in not_finite(targets)]
        stream.append(targets.reshape(len(targets), -1)[:, :64].clone())
        of_batch = tuple(fingerprints(inputs))
        if of_batch not in seen or len(inputs) == 1:  # else a list that holds the same batch again and again
            seen.add(of_batch)
            prints += of_batch
            keys = torch.rand(len(inputs), generator=generator).tolist()
            threshold = kept[-1][0] if len(kept) == limit else 1.0
            before, after = targets.roll(1, dims=0), targets.roll(-1, dims=0)
            kept += [
                (key, inputs[i].clone(), targets[i].clone(), before[i].clone(), after[i].clone())
                for i, key in enumerate(keys)
                if key < threshold
            ]
            kept = sorted(kept, key=lambda item: item[0])[:limit]  # the smallest keys: an even draw of any length
        if time.monotonic() - start > MAX_SECONDS_LOADING:
            complete = False
            break
    if first is None:
        raise ValueError("the loader is empty: it gave no batch (drop_last with too few samples?)")
    same = [item for item in kept if item[1].shape == first[0][0].shape and item[2].shape == first[1][0].shape]
    return Sample(
        first,
        torch.stack([item[1] for item in same]),
        torch.stack([item[2] for item in same]),
        torch.cat([part for part in stream if part.shape[1] == stream[0].shape[1]]),
        sizes,
        complete,
        bad_inputs,
        bad_targets,
        prints,
        (torch.stack([item[3] for item in same]), torch.stack([item[4] for item in same])),
    )


def not_finite(batch: Tensor) -> list[int]:
    """The samples of a batch that hold NaN or infinity."""
    if not batch.is_floating_point():
        return []
    return (~torch.isfinite(batch)).reshape(len(batch), -1).any(dim=1).nonzero().flatten().tolist()


def fingerprints(inputs: Tensor) -> list[bytes]:
    """A hash of each sample, the same for an image and its mirror image."""
    found = []
    for sample in inputs:
        array = sample.numpy() if sample.dtype != torch.bfloat16 else sample.float().numpy()
        views = [array] if array.ndim < 2 else [array, array[..., ::-1]]
        found.append(min(hashlib.blake2b(view.tobytes(), digest_size=12).digest() for view in views))
    return found
