"""Exercises on watching a service (chapter 18): the Kolmogorov-Smirnov statistic and the population stability index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlcourse.exercises.checking import Answer, compare, describe
from dlcourse.exercises.registry import register

Mistakes = dict[str, Callable[[], float]]


def ks_statistic(reference: np.ndarray, live: np.ndarray) -> float:
    places = np.concatenate([reference, live])
    below_reference = np.searchsorted(np.sort(reference), places, side="right") / len(reference)
    below_live = np.searchsorted(np.sort(live), places, side="right") / len(live)
    return float(np.abs(below_reference - below_live).max())


def check_ks_statistic(answer: Answer) -> str:
    rng = np.random.default_rng(0)
    cases = [
        (np.array([5.0, 0.0, 10.0, 7.0, 5.0]), np.array([1.0, 10.0, 5.0, 9.0, 5.0, 6.0])),
        (np.array([1.0, 2.0]), np.array([3.0, 4.0])),
        (np.array([3.0, 1.0, 2.0]), np.array([0.5, 1.5])),
        (np.array([1.0, 1.0, 1.0, 2.0]), np.array([1.0, 2.0, 2.0, 2.0])),  # ties
        (np.array([5.0, 5.0]), np.array([5.0, 5.0, 5.0])),
        (np.array([0.0, 4.0]), np.array([1.0, 2.0, 3.0])),  # the same middle, another spread
        (np.array([1.0]), np.array([1.0, 1.0, 1.0, 7.0])),
        (rng.normal(size=40), rng.normal(0.4, size=25)),
        (rng.integers(0, 4, 60).astype(float), rng.integers(0, 4, 35).astype(float)),
        (rng.normal(1, 1, 30), rng.normal(0, 1, 50)),
    ]
    for reference, live in cases:
        for first, second in ((reference, live), (live, reference)):
            compare(
                answer(first, second), ks_statistic(first, second), given=describe(first, second),
                rtol=0, atol=1e-9, mistakes=_ks_mistakes(first, second),
            )  # fmt: skip
    return "samples apart, one inside the other, of unequal sizes, in any order, with ties within and between them"


def _ks_mistakes(x: np.ndarray, y: np.ndarray) -> Mistakes:
    places, n, m = np.concatenate([x, y]), len(x), len(y)

    def below(sample: np.ndarray, at: np.ndarray = places, side: str = "right") -> np.ndarray:
        return np.searchsorted(np.sort(sample), at, side=side) / len(sample)  # type: ignore[call-overload]

    tie = "takes a tie for a difference: values that are equal are passed together, by counting ≤ for both samples"
    gap = below(x) - below(y)
    bins = np.linspace(places.min(), places.max() + 1e-12, 11)
    return {
        f"{tie} (the reference's come first)": lambda: np.abs(below(x) - below(y, side="left")).max(),
        f"{tie} (the live ones come first)": lambda: np.abs(below(x, side="left") - below(y)).max(),
        "takes one direction only: the live sample may lie on either side, so take the absolute value": lambda: gap.max(),
        "takes one direction only: either sample may lie above, so take the absolute value": lambda: (-gap).max(),
        "looks only at the values of the reference: the largest distance may lie at a live one":
            lambda: np.abs(below(x, x) - below(y, x)).max(),
        "looks only at the live values: the largest distance may lie at one of the reference":
            lambda: np.abs(below(x, y) - below(y, y)).max(),
        "averages the distances: the largest is asked for": lambda: np.abs(gap).mean(),
        "adds the distances up: the largest is asked for": lambda: np.abs(gap).sum(),
        "compares the means: two samples may share a mean and still differ": lambda: abs(x.mean() - y.mean()),
        "compares the medians: two samples may share a median and still differ": lambda: abs(np.median(x) - np.median(y)),
        "compares counts: divide each by the size of its own sample": lambda: np.abs(n * below(x) - m * below(y)).max(),
        "divides by the size of both samples together: each has its own":
            lambda: np.abs((n * below(x) - m * below(y)) / (n + m)).max(),
        "forgets to sort: searchsorted needs sorted samples":
            lambda: np.abs(np.searchsorted(x, places, "right") / n - np.searchsorted(y, places, "right") / m).max(),
        "drops repeated values: each of them counts":
            lambda: np.abs(below(np.unique(x)) - below(np.unique(y))).max(),
        "sorts values into bins first: that loses what happens inside a bin":
            lambda: np.abs(np.cumsum(np.histogram(x, bins)[0] / n - np.histogram(y, bins)[0] / m)).max(),
        "gives one minus the distance": lambda: 1 - np.abs(gap).max(),
    }  # fmt: skip


register(
    "monitoring.ks_statistic", ks_statistic, check_ks_statistic, difficulty=3, importance=4, minutes=15,
    hints=(
        "The two cumulative distributions change only at values of the samples: it is enough to look there.",
        "The share of values ≤ t in a sorted sample is np.searchsorted(sample, t, side='right') / len(sample).",
        "Do that for both samples at every value of both, and take the largest absolute difference. Ties then take care of themselves.",
    ),
)  # fmt: skip


def psi(reference: np.ndarray, live: np.ndarray) -> float:
    p = (reference + 0.5) / (reference + 0.5).sum()
    q = (live + 0.5) / (live + 0.5).sum()
    return float(((q - p) * np.log(q / p)).sum())


def check_psi(answer: Answer) -> str:
    rng = np.random.default_rng(0)
    cases = [
        (np.array([19, 15, 17, 0]), np.array([12, 14, 0, 5])),
        (np.array([30, 10]), np.array([10, 30])),
        (np.array([60, 20, 20]), np.array([2, 5, 3])),
        (np.array([50, 50, 0]), np.array([20, 20, 10])),  # empty in the reference
        (np.array([40, 40, 20]), np.array([30, 0, 10])),  # empty in the window
        (np.array([40, 60, 0]), np.array([4, 6, 0])),  # empty in both
        (np.array([25, 25, 25, 25]), np.array([50, 50, 50, 50])),
        (rng.integers(0, 40, 10), rng.integers(0, 90, 10)),
    ]
    for reference, live in cases:
        compare(
            answer(reference, live), psi(reference, live), given=describe(reference, live), rtol=1e-6, atol=1e-9,
            mistakes=_psi_mistakes(reference, live),
        )  # fmt: skip
    return "two and more bins, samples of unequal size, bins empty in the reference, in the window and in both"


def _psi_mistakes(a: np.ndarray, b: np.ndarray) -> Mistakes:
    def shares(counts: np.ndarray, extra: float = 0.5) -> np.ndarray:
        return (counts + extra) / (counts + extra).sum()

    def index(p: np.ndarray, q: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            return float(((q - p) * np.log(q / p)).sum())

    def filled(counts: np.ndarray) -> np.ndarray:
        return np.maximum(counts / counts.sum(), 1e-4)

    p, q, both = shares(a), shares(b), (a > 0) & (b > 0)
    return {
        "works with counts: divide by their sum, so that samples of unequal size compare": lambda: index(a + 0.5, b + 0.5),
        "adds nothing to empty bins: the logarithm of 0 is not finite, whichever sample it comes from": lambda: index(shares(a, 0), shares(b, 0)),
        "leaves empty bins out: what appears or disappears is the largest change of all":
            lambda: index((a / a.sum())[both], (b / b.sum())[both]),
        "adds 1 to each count: 0.5 is asked for": lambda: index(shares(a, 1), shares(b, 1)),
        "adds to the shares, after dividing: add 0.5 to the counts": lambda: index(a / a.sum() + 0.5, b / b.sum() + 0.5),
        "divides by the sum of the counts as they were: add the 0.5 of every bin to it too":
            lambda: index((a + 0.5) / a.sum(), (b + 0.5) / b.sum()),
        "puts a floor under the shares: add 0.5 to the counts": lambda: index(filled(a), filled(b)),
        "is the divergence in one direction: its factor is q − p, not q": lambda: float((q * np.log(q / p)).sum()),
        "is the divergence in the other direction: its factor is q − p, not p": lambda: float((p * np.log(p / q)).sum()),
        "has the ratio upside down: both factors change sign together, so no term is negative": lambda: -index(p, q),
        "averages over the bins: the sum is asked for": lambda: index(p, q) / len(p),
        "uses the logarithm to base 2: the natural one is meant": lambda: index(p, q) / np.log(2),
        "uses the logarithm to base 10: the natural one is meant": lambda: index(p, q) / np.log(10),
        "forgets the logarithm: those are the absolute differences": lambda: float(np.abs(q - p).sum()),
        "is the chi-squared distance: the logarithm of the ratio is asked for": lambda: float(((q - p) ** 2 / p).sum()),
    }  # fmt: skip


register(
    "monitoring.psi", psi, check_psi, difficulty=2, importance=3, minutes=10,
    hints=(
        "First make shares of the counts, so that a window of 200 compares with a reference of 600.",
        "An empty bin would give ln(0): add 0.5 to every count of both samples, then divide by the new sum.",
        "((q - p) * np.log(q / p)).sum(), with p the shares of the reference and q those of the window.",
    ),
)  # fmt: skip
