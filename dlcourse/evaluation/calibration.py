"""Calibration: whether a model that says 80 % is right in 80 of 100 cases, and one number that mends most of it.

Guo, Pleiss, Sun, Weinberger 2017, On calibration of modern neural networks (arXiv:1706.04599).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dlcourse.evaluation.checks import Labels, Scores, check_same_length, class_indices, class_probabilities

TEMPERATURES = (0.01, 100.0)


@dataclass(frozen=True)
class ReliabilityTable:
    """Predictions sorted by confidence into bins of equal width; one entry for each bin that holds any, (M,) each."""

    lower: np.ndarray
    """A bin's lower edge, which is not part of it; the upper one is."""
    upper: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    """The mean of the highest probability."""
    accuracy: np.ndarray


def reliability_table(probabilities: Scores, labels: Labels, bins: int = 15) -> ReliabilityTable:
    """Confidence and accuracy, bin by bin: probabilities (N, K), labels (N,).

    Raises ValueError for numbers that are no probabilities and for bins below 1.
    """
    probabilities = class_probabilities(probabilities)
    labels = class_indices("labels", labels, probabilities.shape[1])
    check_same_length(probabilities, labels, "rows of probabilities")
    if bins < 1:
        raise ValueError(f"bins={bins} must be at least 1")
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges, confidence) - 1  # edges[place] < confidence <= edges[place + 1]
    count = np.bincount(place, minlength=bins)
    filled = np.flatnonzero(count)
    sums = [np.bincount(place, weights=values, minlength=bins)[filled] for values in (confidence, right)]
    return ReliabilityTable(edges[filled], edges[filled + 1], count[filled], *(s / count[filled] for s in sums))


def expected_calibration_error(probabilities: Scores, labels: Labels, bins: int = 15) -> float:
    """ECE: the mean gap between confidence and accuracy, each bin weighted by its share of the samples; in [0, 1].

    probabilities (N, K), labels (N,). Raises ValueError as `reliability_table` does.
    """
    table = reliability_table(probabilities, labels, bins)
    return float(np.average(np.abs(table.confidence - table.accuracy), weights=table.count))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T that makes the cross-entropy of softmax(logits / T) smallest: logits (N, K), labels (N,).

    In 1/T the loss is convex, so its slope is zero once: bisection finds it. T stays within 0.01 … 100, where it ends
    when every answer is right (surer is always better) or when nothing but doubt helps. Logits that are equal within
    each row say nothing about T: it is 1. Raises ValueError for other shapes and for logits that are not finite.
    """
    indices = torch.from_numpy(class_indices("labels", labels, logits.shape[-1]))
    if logits.ndim != 2 or len(logits) != len(indices):
        raise ValueError(f"logits must have shape (N, K) with one row for each of {len(indices)} labels, not {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise ValueError("logits must be finite")
    z = logits.detach().cpu().double()
    z = z - z.gather(1, indices[:, None])  # so that the label's own logit is 0

    def slope(inverse: float) -> float:
        """Of the mean cross-entropy, by 1/T; it grows with 1/T."""
        return float(((inverse * z).softmax(dim=1) * z).sum(dim=1).mean())

    if not z.any():
        return 1.0
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) <= 0 else (low, middle)  # 0: already too flat for a float
    return 1 / math.sqrt(low * high)


class TemperatureScaling(nn.Module):
    """A model whose logits are divided by T: (B, C, H, W) -> (B, K). The predicted class stays the same.

        calibrated = TemperatureScaling(model, fit_temperature(val.logits, val.labels))

    Raises ValueError for a temperature that is not a positive number.
    """

    temperature: Tensor

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        if not (0 < temperature < math.inf):
            raise ValueError(f"temperature={temperature} must be a positive number")
        self.model = model
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images) / self.temperature
