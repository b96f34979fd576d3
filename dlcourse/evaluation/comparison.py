"""Is A better than B: intervals by the bootstrap, and a test of two models on the same images.

Both ask what another test set of this size would have said. What another training would have said they cannot know.

Efron 1979, Bootstrap methods: another look at the jackknife. McNemar 1947, Note on the sampling error of the difference
between correlated proportions or percentages. Wilson 1927, Probable inference, the law of succession, and statistical
inference. Dietterich 1998, Approximate statistical tests for comparing supervised
classification learning algorithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from torch import Tensor

from dlcourse.evaluation.checks import Labels, check_same_length, class_indices


@dataclass(frozen=True)
class Interval:
    """A value and the bounds between which it lies at the given confidence."""

    value: float
    low: float
    high: float
    confidence: float = 0.95

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same images: how many only the first got right, how many only the second, and the p-value."""

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images."""

    first: float
    """The first model's accuracy."""
    second: float
    difference: Interval
    """First minus second, resampled in pairs."""
    test: PairedTest


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """The share of successes among n trials, and where the true share lies: never outside 0 … 1, never of width 0.

    Raises ValueError for counts that are not 0 ≤ successes ≤ n with n ≥ 1, and a confidence outside (0, 1).
    """
    if not (0 <= successes <= n and n >= 1):
        raise ValueError(f"successes={successes} of n={n} must be counts, 0 ≤ successes ≤ n, n at least 1")
    z = normal_quantile(confidence)
    share = successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # With none or all of them a bound is 0 or 1 but for rounding.
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)), confidence)


def normal_quantile(confidence: float) -> float:
    """How many standard deviations to either side hold this share of a normal distribution: 1.96 for 0.95."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples: Tensor | np.ndarray,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    vectorized: bool = False,
) -> Interval:
    """The percentile interval of a statistic: computed anew on `resamples` draws of N of the N rows, with replacement.

        bootstrap_interval(np.mean, predicted == labels)
        bootstrap_interval(lambda y, p: roc_auc(y, p), labels, scores)

    Rows of all `samples` are drawn together, so that what belongs to one image stays together. `statistic` gives a
    number; with vectorized=True it is called once, on arrays (resamples, N, …), with axis=1, and gives them all.

    Raises ValueError for samples of different lengths, fewer than two rows, a confidence outside (0, 1), fewer than one
    resample, and a statistic that is not finite (on the data or on a draw, such as one without a class).
    """
    arrays = [sample.detach().cpu().numpy() if isinstance(sample, Tensor) else np.asarray(sample) for sample in samples]
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) != 1 or lengths[0] < 2:
        raise ValueError(f"samples must be of one length, at least 2, not {lengths}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie between 0 and 1, such as 0.95")
    if resamples < 1:
        raise ValueError(f"resamples={resamples} must be at least 1")
    generator = np.random.default_rng(seed)
    if vectorized:
        value = float(np.squeeze(statistic(*(array[None] for array in arrays), axis=1)))
        draws = generator.integers(lengths[0], size=(resamples, lengths[0]))
        found = np.asarray(statistic(*(array[draws] for array in arrays), axis=1), dtype=np.float64)
    else:
        value = float(statistic(*arrays))
        rows = (generator.integers(lengths[0], size=lengths[0]) for _ in range(resamples))
        found = np.array([float(statistic(*(array[row] for array in arrays))) for row in rows])
    if not math.isfinite(value) or not np.isfinite(found).all():
        raise ValueError("the statistic is not finite on the data or on one of its resamples")
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), confidence)


def mcnemar(labels: Labels, first: Labels, second: Labels) -> PairedTest:
    """The exact McNemar test of two models' predictions, (N,) each, for the same labels.

    Images that both get right or both get wrong say nothing about which is better. If the models were equally good, each
    of the others would go to either like a toss of a coin; the p-value is the chance of a split at least this uneven.
    """
    labels = class_indices("labels", labels)
    right = []
    for name, predicted in (("first", first), ("second", second)):
        predicted = class_indices(name, predicted)
        check_same_length(predicted, labels)
        right.append(predicted == labels)
    only_first, only_second = int(np.sum(right[0] & ~right[1])), int(np.sum(right[1] & ~right[0]))
    return PairedTest(only_first, only_second, coin_p_value(only_first, only_second))


def coin_p_value(heads: int, tails: int) -> float:
    """The chance that a fair coin, tossed heads + tails times, falls at least as unevenly, either way: in (0, 1]."""
    n = heads + tails
    tail = math.fsum(
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2))  # C(n, i) / 2ⁿ
        for i in range(min(heads, tails) + 1)
    )
    return min(1.0, 2 * tail)


def compare_models(
    labels: Labels, first: Labels, second: Labels, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Accuracies of two models' predictions (N,) on the same labels, the interval of their difference, and the test."""
    test = mcnemar(labels, first, second)
    labels, first, second = (class_indices("values", values) for values in (labels, first, second))
    gains = (first == labels).astype(np.float64) - (second == labels)
    difference = bootstrap_interval(np.mean, gains, confidence=confidence, resamples=resamples, seed=seed)
    return Comparison(float(np.mean(first == labels)), float(np.mean(second == labels)), difference, test)
