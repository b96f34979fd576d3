"""Wrong answers to the exercise on the interval of a difference."""

import math
from statistics import NormalDist

from planting import mistake

NAME = "ab.difference_interval"


def two_sided(confidence):
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(x, n, z):
    p = x / n
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def build(z_of=two_sided, gap=math.hypot, crossed=True, finish=lambda low, high: (low, high)):
    """The interval with one part of it replaced."""

    def difference_interval(x, n, y, m, confidence=0.95):
        z, a, b = z_of(confidence), x / n, y / m
        (low_a, high_a), (low_b, high_b) = wilson(x, n, z), wilson(y, m, z)
        if not crossed:
            low_a, high_a = 2 * a - high_a, 2 * a - low_a
        return finish(b - a - gap(b - low_b, high_a - a), b - a + gap(high_b - b, a - low_a))

    return difference_interval


def plant(says, name, wrong):
    wrong.__name__ = name
    mistake(NAME, says=says)(wrong)


plant("gives A minus B", "a_minus_b", build(finish=lambda low, high: (-high, -low)))
plant("the bounds the wrong way round", "swapped", build(finish=lambda low, high: (high, low)))
plant("gives percentage points", "percent", build(finish=lambda low, high: (100 * low, 100 * high)))
plant("adds the two distances", "added", build(gap=lambda u, v: u + v))
plant("takes the larger of the two distances", "larger", build(gap=max))
plant("pairs the wrong sides", "not_crossed", build(crossed=False))
plant("does not use the confidence it is given", "always_95", build(z_of=lambda c: two_sided(0.95)))
plant("leaves the whole error on one side", "one_sided", build(z_of=lambda c: NormalDist().inv_cdf(c)))
plant("uses one standard error", "without_z", build(z_of=lambda c: 1.0))
plant("two numbers are asked for", "with_the_middle", build(finish=lambda low, high: (low, (low + high) / 2, high)))


@mistake(NAME, says="uses the textbook's standard error")
def textbook(x, n, y, m, confidence=0.95):
    a, b = x / n, y / m
    half = two_sided(confidence) * math.sqrt(a * (1 - a) / n + b * (1 - b) / m)
    return b - a - half, b - a + half


@mistake(NAME, says="uses the pooled standard error")
def pooled(x, n, y, m, confidence=0.95):
    p = (x + y) / (n + m)
    half = two_sided(confidence) * math.sqrt(p * (1 - p) * (1 / n + 1 / m))
    return y / m - x / n - half, y / m - x / n + half


@mistake(NAME, says="is the interval of Agresti and Caffo")
def agresti_caffo(x, n, y, m, confidence=0.95):
    p, q = (x + 1) / (n + 2), (y + 1) / (m + 2)
    half = two_sided(confidence) * math.sqrt(p * (1 - p) / (n + 2) + q * (1 - q) / (m + 2))
    return q - p - half, q - p + half
