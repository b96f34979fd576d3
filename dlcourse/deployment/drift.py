"""Has the world changed since the model was tested? Two-sample tests between a reference and a window of live answers.

For each number that is observed (confidence, brightness …) the test of Kolmogorov and Smirnov with its exact p-value
(Hodges 1957, The significance probability of the Smirnov two-sample test; ties make it cautious, never the reverse);
for the predicted classes a permutation test of Pearson's chi-squared and of the largest change; over all of them Holm's correction
(1979), so that a window without drift rings with at most the stated probability, whatever the numbers have to do with
each other. The population stability index says how large a shift is; it has no false-alarm rate, so it decides nothing.

Rabanser, Günnemann and Lipton 2019, Failing loudly: an empirical study of methods for detecting dataset shift
(arXiv:1810.11953), compares such tests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dlcourse.deployment.observing import Observation, observe
from dlcourse.deployment.predictor import Predictor, Source

LEAST = 20
"""Fewer answers than this are no sample."""
LEAST_RATE = 1e-4
FORMAT = 1


def ks_statistic(first: np.ndarray, second: np.ndarray) -> float:
    """The largest vertical distance between the cumulative distributions of two samples, (N,) and (M,)."""
    first, second = np.sort(first), np.sort(second)
    places = np.concatenate([first, second])
    below_first = np.searchsorted(first, places, side="right") / len(first)  # the share of values ≤ each place
    below_second = np.searchsorted(second, places, side="right") / len(second)
    return float(np.abs(below_first - below_second).max())


@lru_cache(maxsize=4096)
def ks_p_value(distance: float, n: int, m: int) -> float:
    """The chance that two samples of one continuous distribution, of n and m values, lie at least `distance` apart.

    Put in order, the two samples are a path on a grid: a step right for a value of the one, up for one of the other, and
    every path is equally likely. This counts the paths that never stray `distance` from the diagonal.
    """
    n, m = sorted((n, m))
    ups, limit = np.arange(m + 1), round(distance * n * m)
    ways, log_scale = np.zeros(m + 1), 0.0
    ways[0] = 1.0
    for rights in range(n + 1):
        near = np.abs(rights * m - ups * n) < limit
        ways = np.cumsum(ways * near) * near  # to a point from the left, or from below
        if not ways.any():
            return 1.0
        log_scale += math.log(ways.max())
        ways /= ways.max()
    log_all = math.lgamma(n + m + 1) - math.lgamma(n + 1) - math.lgamma(m + 1)
    return min(1.0, max(0.0, 1 - float(ways[-1]) * math.exp(log_scale - log_all)))


def counts_p_value(reference: np.ndarray, live: np.ndarray, *, resamples: int = 4999, seed: int = 0) -> float:
    """The chance that counts (K,) of two samples from one distribution differ at least as much.

    Two measures are taken: chi-squared, which sees that many classes have changed a little, and the largest standardised
    change of one class. The observations are put together and dealt out again `resamples` times, and what counts is how
    rarely a deal surprises as much by either. So rare classes do no harm. The answer is exact to about 1 / resamples.
    """
    pooled, size = reference + live, int(live.sum())
    live, pooled = live[pooled > 0], pooled[pooled > 0]
    share = pooled / pooled.sum()
    if len(pooled) == 1:
        return 1.0
    # The first takes time with every class, the second with every observation.
    method: Any = "marginals" if len(pooled) <= 30 else "count"
    dealt = np.random.default_rng(seed).multivariate_hypergeometric(pooled, size, size=resamples, method=method)
    changes = (np.vstack([live, dealt]) - size * share) ** 2 / share  # the first row is what was found
    measures = np.column_stack([changes.sum(axis=1), (changes / (1 - share)).max(axis=1)]).round(9)
    rows = 1 + resamples
    rarity = np.column_stack([1 - np.searchsorted(np.sort(column), column) / rows for column in measures.T]).min(axis=1)
    return float((rarity <= rarity[0]).sum() / rows)


def psi(reference: np.ndarray, live: np.ndarray) -> float:
    """The population stability index of two histograms (B,): the sum of (q − p) · ln(q / p) over the shares p and q.

    Half a count is added to every bin, so that an empty one gives a large number and not infinity.
    """
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (reference, live))
    return float(((q - p) * np.log(q / p)).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: calling those at or below α finds, with probability 1 − α, no difference where none is."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * float(p_values[index])))
        adjusted[index] = largest
    return adjusted


@dataclass(frozen=True)
class Reference:
    """What the model's answers looked like when it was tested: counts (K,) of the predicted classes, values of each statistic.

        reference = Reference.of(predictor, pictures)    # pictures that were not trained on
        path.write_text(reference.to_json())

    A live window has the same form. Values are kept in order of size.
    """

    classes: tuple[str, ...]
    counts: np.ndarray
    values: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, predictor: Predictor, pictures: Sequence[Source], *, limit: int = 1000, seed: int = 0) -> Reference:
        """From a Predictor's answers to pictures, at most `limit` of them, drawn at random if there are more."""
        if len(pictures) > limit:
            chosen = np.random.default_rng(seed).choice(len(pictures), limit, replace=False)
            pictures = [pictures[index] for index in sorted(chosen.tolist())]
        seen: list[Observation] = []
        for start in range(0, len(pictures), 32):
            images = np.stack([predictor.prepare(picture) for picture in pictures[start : start + 32]])
            seen += map(observe, predictor.answer(images), images)
        return cls.from_observations(predictor.card.classes, seen)

    @classmethod
    def from_observations(cls, classes: Sequence[str], observations: Iterable[Observation]) -> Reference:
        """From what `observe` gave. Raises ValueError for fewer than 20; a statistic that few of them have is left out."""
        seen = list(observations)
        if len(seen) < LEAST:
            raise ValueError(
                f"{len(seen)} observation(s) are no sample of what the model answers; give at least {LEAST}"
            )
        names = dict.fromkeys(name for observation in seen for name in observation.values)
        found = {name: np.array([each.values.get(name, math.nan) for each in seen]) for name in names}
        finite = {name: np.sort(column[np.isfinite(column)]) for name, column in found.items()}
        counts = np.bincount([each.index for each in seen], minlength=len(classes))
        return cls(tuple(classes), counts, {name: column for name, column in finite.items() if len(column) >= LEAST})

    def __len__(self) -> int:
        return int(self.counts.sum())

    def to_json(self) -> str:
        """As JSON of a few ten kilobytes; `from_json` reads it again."""
        values = {name: column.tolist() for name, column in self.values.items()}
        return json.dumps(
            {"format": FORMAT, "classes": self.classes, "counts": self.counts.tolist(), "values": values},
            separators=(",", ":"), ensure_ascii=False, allow_nan=False,
        )  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> Reference:
        """Read a reference. Raises ValueError, with what is wrong, for anything that `to_json` would not write."""
        try:
            found = json.loads(text)
            if found["format"] > FORMAT:
                raise ValueError(f"its format is {found['format']}, this dlcourse reads up to {FORMAT}")
            classes, counts = tuple(map(str, list(found["classes"]))), np.array(found["counts"])
            values = {
                str(name): np.sort(np.array(column, dtype=np.float64)) for name, column in found["values"].items()
            }
            if counts.shape != (len(classes),) or counts.dtype.kind != "i" or counts.min() < 0 or counts.sum() < LEAST:
                raise ValueError(f"counts must be {len(classes)} whole numbers, at least {LEAST} in all")
            for name, column in values.items():
                if column.ndim != 1 or not LEAST <= len(column) <= counts.sum() or not np.isfinite(column).all():
                    raise ValueError(f"the values of {name} must be finite numbers, {LEAST} to {counts.sum()} of them")
            return cls(classes, counts, values)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"the reference cannot be read: {reason}") from error


@dataclass(frozen=True)
class Finding:
    """One statistic, or the predicted classes: how far the window lies from the reference, and whether that is drift."""

    name: str
    p_value: float
    """Holm's: already corrected for how many were tested."""
    drifted: bool
    psi: float
    """How large the shift is: below 0.1 it is small, above 0.25 large, by the rule of thumb of those who use it."""
    change: str
    """In words."""


@dataclass(frozen=True)
class DriftReport:
    """A window of live answers against the reference, the most surprising finding first."""

    findings: tuple[Finding, ...]
    size: int
    """How many live answers the window held."""
    false_alarm_rate: float
    """The chance of an alarm for a window in which nothing has changed: at most this."""

    @property
    def alarm(self) -> bool:
        """Whether anything drifted."""
        return any(finding.drifted for finding in self.findings)

    @property
    def drifted(self) -> tuple[str, ...]:
        """The names of what drifted."""
        return tuple(finding.name for finding in self.findings if finding.drifted)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {"alarm": self.alarm, **asdict(self), "findings": [asdict(finding) for finding in self.findings]}

    def __str__(self) -> str:
        if not self.alarm:
            return f"no drift in {self.size} answers"
        changes = [f"{each.name} {each.change} (PSI {each.psi:.2g})" for each in self.findings if each.drifted]
        return f"drift in {self.size} answers: " + "; ".join(changes)


def detect_drift(
    reference: Reference, live: Reference, *, false_alarm_rate: float = 0.01, seed: int = 0
) -> DriftReport:
    """Test everything that both samples hold. Raises ValueError for other classes, and for a rate outside 0.0001 … 0.5."""
    if live.classes != reference.classes:
        raise ValueError(f"the live answers have the classes {live.classes}, the reference {reference.classes}")
    check_rate(false_alarm_rate)
    names = [name for name in reference.values if name in live.values]
    resamples = math.ceil(10 * (1 + len(names)) / false_alarm_rate)  # for p-values down to a tenth of what is needed
    p_values = [counts_p_value(reference.counts, live.counts, resamples=resamples, seed=seed)]
    for name in names:
        old, new = reference.values[name], live.values[name]
        p_values.append(ks_p_value(ks_statistic(old, new), len(old), len(new)))
    findings = [
        Finding(name, p_value, p_value <= false_alarm_rate, *_shift(reference, live, name))
        for name, p_value in zip(["classes", *names], holm(p_values), strict=True)
    ]
    return DriftReport(tuple(sorted(findings, key=lambda each: each.p_value)), len(live), false_alarm_rate)


def check_rate(false_alarm_rate: float) -> None:
    """Raise ValueError for a rate that no window can be tested with."""
    if not LEAST_RATE <= false_alarm_rate <= 0.5:
        raise ValueError(f"false_alarm_rate={false_alarm_rate} must lie in {LEAST_RATE:g} … 0.5")


def _shift(reference: Reference, live: Reference, name: str) -> tuple[float, str]:
    """The population stability index, and the change in words."""
    if name == "classes":
        shares = [sample.counts / sample.counts.sum() for sample in (reference, live)]
        most = int(np.abs(shares[1] - shares[0]).argmax())
        return psi(reference.counts, live.counts), (
            f"{reference.classes[most]} {100 * shares[0][most]:.0f} % → {100 * shares[1][most]:.0f} %"
        )
    old, new = reference.values[name], live.values[name]
    edges = np.unique(np.quantile(old, np.arange(1, 10) / 10))
    bins = [np.bincount(np.searchsorted(edges, sample), minlength=len(edges) + 1) for sample in (old, new)]
    return psi(*bins), f"mean {old.mean():.3g} → {new.mean():.3g}"
