"""Right answers to the exercise on the interval of a difference, in other styles than the reference's."""

import math

import numpy as np
from planting import right_answer
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

NAME = "ab.difference_interval"


@right_answer(NAME)
def with_scipys_wilson(successes_a, n_a, successes_b, n_b, confidence=0.95):
    a, b = successes_a / n_a, successes_b / n_b
    of_a = binomtest(successes_a, n_a).proportion_ci(confidence, method="wilson")
    of_b = binomtest(successes_b, n_b).proportion_ci(confidence, method="wilson")
    return b - a - math.hypot(b - of_b.low, of_a.high - a), b - a + math.hypot(of_b.high - b, a - of_a.low)


@right_answer(NAME)
def with_the_roots_of_a_quadratic(successes_a, n_a, successes_b, n_b, confidence=0.95):
    z2 = norm.ppf(0.5 + confidence / 2) ** 2
    p, n = np.array([successes_a / n_a, successes_b / n_b]), np.array([n_a, n_b])
    root = np.sqrt(z2 / n * (4 * p * (1 - p) + z2 / n))
    low, high = ((2 * p + z2 / n + sign * root) / (2 + 2 * z2 / n) for sign in (-1, 1))
    low_gap, high_gap = p - low, high - p
    d = p[1] - p[0]
    return [d - np.hypot(low_gap[1], high_gap[0]), d + np.hypot(high_gap[1], low_gap[0])]


@right_answer(NAME)
def by_searching_the_bounds(successes_a, n_a, successes_b, n_b, confidence=0.95):
    z = norm.isf((1 - confidence) / 2)

    def bounds(share, n):
        low = 0.0 if share == 0 else bound_from(share, n, -1)
        high = 1.0 if share == 1 else bound_from(share, n, 1)
        return low, high

    def bound_from(share, n, sign):
        start = min(max(share, 1e-9), 1 - 1e-9)
        edge = 1.0 if sign > 0 else 0.0
        return brentq(lambda p: (p - share) * sign - z * math.sqrt(p * (1 - p) / n), *sorted((start, edge)), xtol=1e-15)

    a, b = successes_a / n_a, successes_b / n_b
    (low_a, high_a), (low_b, high_b) = bounds(a, n_a), bounds(b, n_b)
    return b - a - math.hypot(b - low_b, a - high_a), b - a + math.hypot(b - high_b, a - low_a)
