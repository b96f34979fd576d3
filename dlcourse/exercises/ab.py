"""Exercise on A/B tests (chapter 18): Newcombe's interval of a difference of two shares.

Source: Newcombe 1998, Interval estimation for the difference between independent proportions, method 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Bounds = tuple[float, float]
Counts = tuple[int, int, int, int]


def wilson(successes: int, n: int, z: float) -> Bounds:
    """The bounds of one share: those p for which the share found lies z standard errors of p away."""
    share = successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return middle - half, middle + half


def difference_interval(
    successes_a: int, n_a: int, successes_b: int, n_b: int, confidence: float = 0.95
) -> tuple[float, float]:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    a, b = successes_a / n_a, successes_b / n_b
    low_a, high_a = wilson(successes_a, n_a, z)
    low_b, high_b = wilson(successes_b, n_b, z)
    difference = b - a
    low = difference - math.sqrt((b - low_b) ** 2 + (high_a - a) ** 2)
    high = difference + math.sqrt((high_b - b) ** 2 + (a - low_a) ** 2)
    return low, high


def check_difference_interval(answer: Answer) -> str:
    for counts in ((40, 50, 27, 30), (2, 7, 6, 7), (0, 29, 5, 56), (10, 10, 20, 20), (820, 1000, 853, 1000), (60, 80, 30, 75)):
        for confidence in (0.95, 0.8):
            options: dict[str, Any] = {} if confidence == 0.95 else {"confidence": confidence}
            got, want = answer(*counts, **options), difference_interval(*counts, **options)
            given = describe(*counts, **options)
            if not isinstance(got, (tuple, list)) or len(got) != 2:
                raise Mistake(f"It returns {describe(got)}; two numbers are asked for: low, high.")
            compare(tuple(got), want, given=given, rtol=1e-6, atol=1e-9, what="(low, high)",
                    mistakes=_difference_mistakes(*counts, **options))  # fmt: skip
    return "small and large samples, unequal ones, shares of 0 and 1, and another confidence"


def _difference_mistakes(x: int, n: int, y: int, m: int, confidence: float = 0.95) -> dict[str, Callable[[], Bounds]]:
    a, b = x / n, y / m
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    low, high = difference_interval(x, n, y, m, confidence)

    def around(middle: float, half: float) -> Bounds:
        return middle - half, middle + half

    def newcombe(z: float, gap: Callable[[float, float], float] = math.hypot, crossed: bool = True) -> Bounds:
        (low_a, high_a), (low_b, high_b) = wilson(x, n, z), wilson(y, m, z)
        down_a, up_a = (high_a - a, a - low_a) if crossed else (a - low_a, high_a - a)
        return b - a - gap(b - low_b, down_a), b - a + gap(high_b - b, up_a)

    def plain() -> Bounds:
        return around(b - a, z * math.sqrt(a * (1 - a) / n + b * (1 - b) / m))

    def pooled() -> Bounds:
        share = (x + y) / (n + m)
        return around(b - a, z * math.sqrt(share * (1 - share) * (1 / n + 1 / m)))

    def agresti_caffo() -> Bounds:
        p, q = (x + 1) / (n + 2), (y + 1) / (m + 2)
        return around(q - p, z * math.sqrt(p * (1 - p) / (n + 2) + q * (1 - q) / (m + 2)))

    return {
        "gives A minus B: B minus A is asked for": lambda: (-high, -low),
        "has the bounds the wrong way round: low, then high": lambda: (high, low),
        "gives percentage points: shares are asked for": lambda: (100 * low, 100 * high),
        "uses the textbook's standard error, which is 0 for shares of 0 and 1: take Wilson's bounds": plain,
        "uses the pooled standard error, which belongs to a test and not to an interval: take Wilson's bounds": pooled,
        "is the interval of Agresti and Caffo, a good one, but Newcombe's is asked for": agresti_caffo,
        "adds the two distances: take the root of the sum of their squares": lambda: newcombe(z, lambda u, v: u + v),
        "takes the larger of the two distances: take the root of the sum of their squares": lambda: newcombe(z, max),
        "pairs the wrong sides: the difference is low when B is low and A is high": lambda: newcombe(z, crossed=False),
        "does not use the confidence it is given": lambda: newcombe(NormalDist().inv_cdf(0.975)),
        "leaves the whole error on one side: half of it belongs to each, z = inv_cdf((1 + confidence) / 2)":
            lambda: newcombe(NormalDist().inv_cdf(confidence)),
        "uses one standard error: z is missing": lambda: newcombe(1.0),
    }  # fmt: skip


register(
    "ab.difference_interval", difference_interval, check_difference_interval, difficulty=3, importance=4, minutes=20,
    hints=(
        "First the interval of each share by itself (Wilson), then put the two together.",
        "Wilson: middle (p + z²/2n) / (1 + z²/n), half width z·√(p(1 − p)/n + z²/4n²) / (1 + z²/n), z = NormalDist().inv_cdf((1 + confidence) / 2).",
        "The difference is at its lowest when B is low and A is high: low = d − √((b − low_b)² + (high_a − a)²), and high the other way.",
    ),
)  # fmt: skip
