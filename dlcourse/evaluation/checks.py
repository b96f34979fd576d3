"""What the metrics take: class indices, scores, probabilities, counts. Anything else is refused with a sentence, never averaged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

Labels = Tensor | np.ndarray | Sequence[int]
Scores = Tensor | np.ndarray | Sequence[float] | Sequence[Sequence[float]]


def class_indices(name: str, values: Labels, num_classes: int | None = None) -> np.ndarray:
    """(N,) int64. Raises ValueError for another shape, for floats, for none, and for a class outside 0 … num_classes−1."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be class indices of shape (N,), not {array.dtype} of shape {array.shape}")
    if not len(array):
        raise ValueError(f"{name} is empty")
    if num_classes is not None and not 0 <= array.min() <= array.max() < num_classes:
        raise ValueError(f"{name} run from {array.min()} to {array.max()}, outside 0 … {num_classes - 1}")
    return array.astype(np.int64)


def yes_or_no(labels: Labels) -> np.ndarray:
    """(N,) of 0 and 1 from whole numbers or booleans. Raises ValueError for anything else."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    return class_indices("labels", array.astype(np.int64) if array.dtype == bool else array, num_classes=2)


def real_numbers(name: str, values: Scores) -> np.ndarray:
    """float64 of any shape. Raises ValueError for a NaN and for none: a NaN sorts anywhere, so every rank would be chance."""
    array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values, dtype=np.float64)
    if not array.size:
        raise ValueError(f"{name} is empty")
    if np.isnan(array).any():
        raise ValueError(f"{name} holds {int(np.isnan(array).sum())} NaN of {array.size} numbers")
    return array


def class_probabilities(probabilities: Scores) -> np.ndarray:
    """(N, K) float64. Raises ValueError for another shape, for numbers outside [0, 1], for rows that do not sum to 1."""
    array = real_numbers("probabilities", probabilities)
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(f"probabilities must have shape (N, K) with K ≥ 2, not {array.shape}")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"probabilities run from {array.min():.3g} to {array.max():.3g}, outside [0, 1]: logits need a softmax first"
        )
    sums = array.sum(axis=1)
    if np.abs(sums - 1).max() > 1e-3:
        row = int(np.abs(sums - 1).argmax())
        raise ValueError(f"probabilities must sum to 1 in each row; row {row} sums to {sums[row]:.3g}")
    return array


def square_counts(matrix: np.ndarray) -> np.ndarray:
    """(K, K) whole numbers. Raises ValueError for anything else, for a count below 0 and for no sample at all."""
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.issubdtype(matrix.dtype, np.integer):
        raise ValueError(f"matrix must be counts of shape (K, K), not {matrix.dtype} of shape {matrix.shape}")
    if matrix.size == 0 or matrix.min() < 0 or not matrix.any():
        raise ValueError("matrix must hold counts from 0 up, and at least one sample")
    return matrix


def check_same_length(predicted: Sequence[float] | np.ndarray, labels: Sequence[int] | np.ndarray, what: str = "predictions") -> None:
    if len(predicted) != len(labels):
        raise ValueError(f"{len(predicted)} {what} for {len(labels)} labels")
