"""Two versions side by side: who gets which, how far apart they are, and how many requests it takes to tell.

Newcombe 1998, Interval estimation for the difference between independent proportions: comparison of eleven methods (his
method 10). Two models on the *same*
pictures are another question, with a sharper answer: `dlcourse.evaluation.compare_models`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from statistics import NormalDist

from dlcourse.evaluation.comparison import Interval, normal_quantile, wilson_interval


def assign(identifier: str, share: float = 0.5, *, experiment: str = "") -> str:
    """ "A" or "B" for a user: always the same one, B for this `share` of all users.

    Another experiment shuffles them anew. A larger share keeps everyone who was in B there.
    Raises ValueError for a share outside 0 … 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} must lie between 0 and 1")
    digest = hashlib.sha256(f"{experiment}\n{identifier}".encode()).digest()
    return "B" if int.from_bytes(digest[:8]) < share * 2**64 else "A"


def difference_interval(
    successes_a: int, n_a: int, successes_b: int, n_b: int, *, confidence: float = 0.95
) -> Interval:
    """The share of B minus that of A, and where the true difference lies (Newcombe). Raises as `wilson_interval` does."""
    a = wilson_interval(successes_a, n_a, confidence=confidence)
    b = wilson_interval(successes_b, n_b, confidence=confidence)
    difference = b.value - a.value
    low = difference - math.hypot(b.value - b.low, a.high - a.value)
    high = difference + math.hypot(b.high - b.value, a.value - a.low)
    return Interval(difference, low, high, confidence)


@dataclass(frozen=True)
class ABResult:
    """What a comparison of A and B says: the difference B − A with its interval."""

    difference: Interval

    @property
    def winner(self) -> str | None:
        """ "A", "B", or None while the interval holds 0."""
        if 0.0 in self.difference:
            return None
        return "B" if self.difference.value > 0 else "A"

    def __str__(self) -> str:
        low, high = 100 * self.difference.low, 100 * self.difference.high
        verdict = f"{self.winner} is better" if self.winner else "not told apart yet"
        return f"{verdict}: B − A = {100 * self.difference.value:+.1f} points ({low:+.1f} to {high:+.1f})"


def compare_versions(successes_a: int, n_a: int, successes_b: int, n_b: int, *, confidence: float = 0.95) -> ABResult:
    """Compare the shares of successes of A and B. Look once, after as many requests as `sample_size` says."""
    return ABResult(difference_interval(successes_a, n_a, successes_b, n_b, confidence=confidence))


def sample_size(base: float, difference: float, *, power: float = 0.8, confidence: float = 0.95) -> int:
    """How many requests *each* version needs, so that a true `difference` from the share `base` is found so often.

    The normal approximation for two equally large groups. Raises ValueError for a difference of 0, one that leads out
    of 0 … 1, and a power or confidence outside (0, 1).
    """
    other = base + difference
    if not (0 <= base <= 1 and 0 <= other <= 1 and difference != 0):
        raise ValueError(f"base={base} and base + difference={other} must be two different shares between 0 and 1")
    if not 0 < power < 1:
        raise ValueError(f"power={power} must lie between 0 and 1, such as 0.8")
    pooled = (base + other) / 2
    under_none = normal_quantile(confidence) * math.sqrt(2 * pooled * (1 - pooled))
    under_true = NormalDist().inv_cdf(power) * math.sqrt(base * (1 - base) + other * (1 - other))
    return math.ceil(((under_none + under_true) / difference) ** 2)
