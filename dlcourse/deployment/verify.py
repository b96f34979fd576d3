"""Whether an exported file answers as its model does, for images and batch sizes that were not in the example."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dlcourse.deployment.backends import OnnxBackend, TorchBackend
from dlcourse.deployment.card import KEY, ModelCard
from dlcourse.deployment.weights import ExportError


@dataclass(frozen=True)
class Equality:
    """How far a file's logits were from its model's: the largest difference of one logit, over all batches tried."""

    largest: float
    relative: float
    """The largest difference divided by max(1, the largest |logit| of its batch): this is what `tolerance` bounds."""
    batch_sizes: tuple[int, ...]
    kinds: tuple[str, ...]
    """"random", and "real" when images were given."""


def verify_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    images: Any = None,
    *,
    batch_sizes: Sequence[int] = (1, 2, 7, 64),
    tolerance: float = 1e-3,
) -> Equality:
    """Hold the file against the model: random images and, if given, real ones, in batches of several sizes.

    images: prepared ones, float32 (N, 3, H, W), tensor or array; repeated where a batch needs more.

    Equal means: no logit differs by more than tolerance · max(1, the largest |logit| of the batch). Both compute in
    float32 (24 bits, 6e-8 relative), but sum thousands of products in different orders, so that bits differ and a logit
    near 0, where large sums cancel, may be off by any factor; its error is a fraction of the sums, not of itself.

    Raises ExportError naming the first batch size at which they differ, and by how much. The model's mode is restored.
    """
    backend, reference = OnnxBackend(Path(path)), TorchBackend(model)
    card = backend.metadata().get(KEY)
    if images is None and card is None:
        raise ValueError(f"{path} holds no model card that says how large its images are: give images")
    real = None if images is None else np.asarray(images, dtype=np.float32)
    if real is not None and (real.ndim != 4 or not len(real)):
        raise ValueError(f"images has shape {real.shape}; needs (N, 3, H, W) with at least one image")
    shape = ModelCard.from_json(card).input_shape if card else real.shape[1:]  # type: ignore[union-attr]
    generator = np.random.default_rng(0)
    largest = relative = 0.0
    for size in batch_sizes:
        batches = {"random": generator.standard_normal((size, *shape), dtype=np.float32)}
        if real is not None:
            batches["real"] = np.take(real, range(size), axis=0, mode="wrap")
        for kind, batch in batches.items():
            difference, scale = compare_batch(reference, backend, batch, f"a batch of {size} {kind} images")
            largest, relative = max(largest, difference), max(relative, difference / scale)
            if not difference <= tolerance * scale:  # also true for nan
                raise ExportError(
                    f"{path} differs from the model for a batch of {size} {kind} images: by {difference:.3g}, where "
                    f"{tolerance * scale:.3g} is allowed (tolerance {tolerance:g}, largest logit {scale:.3g})"
                )
    return Equality(largest, relative, tuple(batch_sizes), tuple(batches))


def compare_batch(reference: TorchBackend, backend: OnnxBackend, batch: np.ndarray, what: str) -> tuple[float, float]:
    """The largest difference of one logit, and max(1, the largest |logit|)."""
    with torch.random.fork_rng(devices=[]):
        wanted = reference(batch)
    try:
        found = backend(batch)
    except Exception as error:  # ONNX Runtime has an exception of its own for each of its states
        raise ExportError(f"ONNX Runtime refuses {what}: {str(error).splitlines()[0]}") from error
    if found.shape != wanted.shape:
        raise ExportError(f"for {what} the file gives shape {found.shape}, the model {wanted.shape}")
    return float(np.abs(found - wanted).max()), max(1.0, float(np.abs(wanted).max()))
