"""Reading loss curves: which kind of training a history shows, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

POINTS = 24
"""A longer curve is cut into this many blocks, each its mean, so that the noise of single steps does not count."""


@dataclass(frozen=True)
class CurveReading:
    """One thing that the curves show."""

    kind: str
    """nan, divergence, instability, overfitting, underfitting, plateau, still-improving or healthy."""
    evidence: str
    remedy: str


REMEDIES = {
    "nan": "look at the inputs, then lower the rate or clip the gradient; start again from weights that are finite",
    "divergence": "lower the learning rate, tenfold at first; a warmup or clipping helps where only the start is wild",
    "instability": "lower the learning rate or take a larger batch; clip the gradient",
    "overfitting": "stop at the best validation loss; then more data, augmentation, regularisation, a smaller network",
    "underfitting": "overfit one batch first: if that fails there is a fault; else raise the rate, train longer, or widen",
    "plateau": "lower the learning rate now (a schedule), or look whether the network has become too small for the data",
    "still-improving": "train on: the best is still to come",
    "healthy": "keep the weights of the best validation loss",
}


def read_curves(history: Mapping[str, Sequence[float]]) -> list[CurveReading]:
    """Read a `History`, or a mapping with "train_loss" (or "loss") and, where there are, "val_loss", "train_accuracy" and
    "val_accuracy", one number an epoch (or a step).

    Problems come first in the order of `REMEDIES`; "still-improving" or "healthy" stands alone, where there is none. Only
    what the curves show is said: a loss alone does not tell a converged training from one that never learned, so that
    a curve that is flat from its first point counts as underfitting only if the loss is above 0.6, or the accuracy below 0.6.

    Raises ValueError without a training loss, and for fewer than 3 points that are finite.
    """
    curves = {name: [float(v) for v in values] for name, values in history.items() if name in _KNOWN and len(values)}
    train = curves.get("train_loss") or curves.get("loss")
    if train is None:
        raise ValueError(f'there is no "train_loss" (or "loss"), only {", ".join(map(repr, history)) or "nothing"}')
    for name, values in curves.items():
        for number, value in enumerate(values, start=1):
            if not math.isfinite(value):
                return [_reading("nan", f"{name} is {value} at point {number} of {len(values)}")]
    if len(train) < 3:
        raise ValueError(f"{len(train)} point(s) of the training loss say nothing; 3 are the least")
    val = curves.get("val_loss", [])
    found = _divergence(train) or _instability(train, val)
    overfit = _overfitting(train, val, curves)
    problems = [*found, *overfit] or _standing_still(train, val, curves)
    if problems:
        return problems
    name, judged = ("val_loss", val) if len(val) >= 3 else ("train_loss", train)
    if _falling(judged):
        return [_reading("still-improving", f"{name} still falls: {_text(judged)}")]
    return [_reading("healthy", f"{name} has fallen and come to rest: {_text(judged)}")]


_KNOWN = ("train_loss", "loss", "val_loss", "train_accuracy", "val_accuracy")


def _divergence(train: list[float]) -> list[CurveReading]:
    """The end lies above the start, or far above the lowest point, and does not come back."""
    curve = thinned(train)
    end, low = _end(curve), min(curve)
    if end > curve[0] + 0.1 * abs(curve[0]) or (end - low > 0.5 * (curve[0] - low) and end > 2 * low > 0):
        return [_reading("divergence", f"train_loss rises from its lowest, {low:.3g}, and ends at {end:.3g}")]
    return []


def _instability(train: list[float], val: list[float]) -> list[CurveReading]:
    """At least two rises, each over a fifth of all that the loss fell, each followed by a fall."""
    for name, values in (("train_loss", train), ("val_loss", val)):
        jumps = _jumps(thinned(values))
        if jumps >= 2:
            return [_reading("instability", f"{name} jumps up {jumps} times and falls again")]
    return []


def _jumps(curve: list[float]) -> int:
    if len(curve) < 4:
        return 0
    needed = max(0.2 * (max(curve) - min(curve)), 0.15 * min(curve), 6 * _noise(curve), 1e-3)
    jumps, low, high, rising = 0, curve[0], curve[0], False
    for value in curve[1:]:
        if rising:
            high = max(high, value)
            if value < high - needed / 2:  # it came down again: one jump
                jumps, low, rising = jumps + 1, value, False
        elif value > low + needed:
            high, rising = value, True
        else:
            low = min(low, value)
    return jumps


def _overfitting(train: list[float], val: list[float], curves: Mapping[str, list[float]]) -> list[CurveReading]:
    """The validation loss rises from its best while the training loss falls; or the accuracies part by 0.1 and more."""
    signs = []
    if len(val) >= 3:
        curve, whole = thinned(val), thinned(train)
        end, low = _end(curve), min(curve)
        best = curve.index(low)
        still = whole[min(best, len(whole) - 1)] - _end(whole)  # what the training loss fell since
        if end - low > max(0.05 * low, 5 * _noise(curve)) and still > _noise(whole):
            signs.append(f"val_loss rises from {low:.3g} to {end:.3g} while train_loss falls on")
    if curves.get("train_accuracy") and curves.get("val_accuracy"):
        gap = _end(curves["train_accuracy"]) - _end(curves["val_accuracy"])
        if gap > 0.1:
            signs.append(f"train_accuracy ends {gap:.2f} above val_accuracy")
    return [_reading("overfitting", "; ".join(signs))] if signs else []


def _standing_still(train: list[float], val: list[float], curves: Mapping[str, list[float]]) -> list[CurveReading]:
    """Flat at the end, and not low: underfitting where little was learned, a plateau where much is left."""
    curve = thinned(train)
    if _falling(curve) or (len(val) >= 3 and _falling(val)):
        return []
    end, fell = _end(curve), (curve[0] - _end(curve)) / abs(curve[0] or 1.0)
    accuracy = _end(curves["train_accuracy"]) if curves.get("train_accuracy") else None
    if accuracy is not None and accuracy >= 0.85:
        return []
    known = "" if accuracy is None else f", with train_accuracy at {accuracy:.2f}"
    if (fell < 0.3 and end > 0.6) if accuracy is None else accuracy < 0.6:
        return [_reading("underfitting", f"train_loss stands still at {end:.3g}, {fell:.0%} below its start{known}")]
    if fell < 0.6 and end > 0.6:
        return [_reading("plateau", f"train_loss stands still at {end:.3g}, {fell:.0%} below its start{known}")]
    return []


def _falling(values: Sequence[float]) -> bool:
    """Whether the last third goes on falling: a line through it falls by more than its noise and half a percent of the
    start."""
    curve = thinned(values)
    tail = curve[-max(3, len(curve) // 3) :]
    middle = (len(tail) - 1) / 2
    spread = sum((i - middle) ** 2 for i in range(len(tail)))
    slope = sum((i - middle) * v for i, v in enumerate(tail)) / spread
    error = math.sqrt(
        sum((v - fmean(tail) - slope * (i - middle)) ** 2 for i, v in enumerate(tail)) / max(1, len(tail) - 2)
    )
    fall = -slope * (len(tail) - 1)
    return fall > 0.005 * abs(curve[0]) and -slope > 4 * error / math.sqrt(spread)


def thinned(values: Sequence[float], points: int = POINTS) -> list[float]:
    """At most `points` values: the means of equal blocks."""
    if len(values) <= points:
        return list(values)
    edges = [round(i * len(values) / points) for i in range(points + 1)]
    return [fmean(values[a:b]) for a, b in pairwise(edges)]


def _noise(curve: list[float]) -> float:
    """How far neighbours differ by chance: the median second difference of the later half, as a standard deviation.

    The first half is left out, since a steep fall bends.
    """
    seconds = [abs(a - 2 * b + c) for a, b, c in zip(curve, curve[1:], curve[2:], strict=False)]
    return 0.6 * median(seconds[len(seconds) // 2 :]) if seconds else 0.0  # 1 / (0.6745 √6)


def _end(values: Sequence[float]) -> float:
    """The mean of the last tenth, of two points at least."""
    return fmean(values[-max(2, len(values) // 10) :])


def _text(values: Sequence[float]) -> str:
    return f"{values[0]:.3g} at first, {min(values):.3g} at best, {values[-1]:.3g} at last"


def _reading(kind: str, evidence: str) -> CurveReading:
    return CurveReading(kind, evidence, REMEDIES[kind])
