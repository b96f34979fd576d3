"""ROC and precision-recall curves, and the area under each, for two classes and more.

Definitions are scikit-learn's. A question that has no answer (no positive, no negative, a class that never occurs) is a
ValueError: a NaN would travel on into means, plots and the choice of the best epoch.

Fawcett 2006, An introduction to ROC analysis. Hand, Till 2001, A simple generalisation of the area under the ROC curve.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlcourse.evaluation.checks import (
    Labels,
    Scores,
    check_same_length,
    class_indices,
    class_probabilities,
    real_numbers,
    yes_or_no,
)

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]


def counts_by_threshold(labels: Labels, scores: Scores) -> Curve:
    """True positives and false positives when all from a threshold up are called positive, for each distinct score.

    labels: (N,) of 0 and 1; scores: (N,), higher for class 1. Returns (true positives, false positives, thresholds),
    (T,) each, the highest threshold first. Samples with equal scores are let in together: no threshold divides them.
    """
    labels, scores = yes_or_no(labels), real_numbers("scores", scores)
    if scores.ndim != 1:
        raise ValueError(f"scores of two classes must have shape (N,), not {scores.shape}")
    check_same_length(scores, labels, "scores")
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order], scores[order]
    last_of_tie = np.append(scores[1:] != scores[:-1], True)
    true_positives = np.cumsum(labels)[last_of_tie]
    return true_positives, np.cumsum(1 - labels)[last_of_tie], scores[last_of_tie]


def roc_curve(labels: Labels, scores: Scores) -> Curve:
    """False positive rate, true positive rate and thresholds, (T + 1,) each, from (0, 0) to (1, 1).

    labels: (N,) of 0 and 1; scores: (N,), higher for class 1. Raises ValueError when only one class occurs.
    """
    true_positives, false_positives, thresholds = counts_by_threshold(labels, scores)
    positives, negatives = true_positives[-1], false_positives[-1]
    if positives == 0 or negatives == 0:
        raise ValueError(f"labels holds only class {int(positives > 0)}: a ROC curve needs both classes")
    return (
        np.append(0, false_positives / negatives),
        np.append(0, true_positives / positives),
        np.append(np.inf, thresholds),
    )


def precision_recall_curve(labels: Labels, scores: Scores) -> Curve:
    """Precision, recall and thresholds, (T + 1,) each, from recall 0 (by convention with precision 1) to recall 1.

    labels: (N,) of 0 and 1; scores: (N,), higher for class 1. Raises ValueError when class 1 does not occur.
    """
    true_positives, false_positives, thresholds = counts_by_threshold(labels, scores)
    positives = true_positives[-1]
    if positives == 0:
        raise ValueError("labels holds only class 0: without a positive there is no recall")
    return (
        np.append(1, true_positives / (true_positives + false_positives)),
        np.append(0, true_positives / positives),
        np.append(np.inf, thresholds),
    )


def roc_auc(labels: Labels, scores: Scores, *, average: str | None = "macro") -> float | np.ndarray:
    """The area under the ROC curve: the chance that a random positive scores higher than a random negative, ties half.

    Two classes: labels (N,) of 0 and 1, scores (N,). Several: labels (N,) in 0 … K−1 and probabilities (N, K), each
    class against the rest; `average` is "macro", "weighted" (by samples of the class), or None for all K areas.
    Of probabilities (N, 2) the second column is the score.

    Raises ValueError when only one class occurs or one of the K does not, for NaN, and for rows that are no probabilities.
    """
    return for_each_class(area_under_roc, labels, scores, average)


def average_precision(labels: Labels, scores: Scores, *, average: str | None = "macro") -> float | np.ndarray:
    """The mean precision over the recall that each threshold adds: Σ (Rₙ − Rₙ₋₁) Pₙ. Arguments as of `roc_auc`.

    A model that knows nothing has the share of the positives. Raises ValueError when a class does not occur.
    """
    return for_each_class(area_under_precision_recall, labels, scores, average)


def area_under_roc(labels: Labels, scores: Scores) -> float:
    """Of two classes: labels (N,) of 0 and 1, scores (N,)."""
    false_rate, true_rate, _ = roc_curve(labels, scores)
    return float(np.sum(np.diff(false_rate) * (true_rate[1:] + true_rate[:-1]) / 2))  # trapezoids: a tie is a slope


def area_under_precision_recall(labels: Labels, scores: Scores) -> float:
    """Of two classes: labels (N,) of 0 and 1, scores (N,)."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(np.sum(np.diff(recall) * precision[1:]))


def for_each_class(
    area: Callable[[Labels, Scores], float], labels: Labels, scores: Scores, average: str | None
) -> float | np.ndarray:
    """An area of two classes, or of each class against the rest, averaged."""
    if average not in ("macro", "weighted", None):
        raise ValueError(f"average={average!r} is not one of macro, weighted, None")
    scores = real_numbers("scores", scores)
    if scores.ndim == 1:
        return area(labels, scores)
    probabilities = class_probabilities(scores)
    classes = probabilities.shape[1]
    labels = class_indices("labels", labels, classes)
    check_same_length(probabilities, labels, "rows of probabilities")
    counts = np.bincount(labels, minlength=classes)
    if missing := np.flatnonzero(counts == 0).tolist():
        shown = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise ValueError(f"labels holds no sample of class {shown} of {classes}: its area is undefined")
    if classes == 2 and average is not None:
        return area(labels, probabilities[:, 1])
    areas = np.array([area(labels == k, probabilities[:, k]) for k in range(classes)])
    return areas if average is None else float(np.average(areas, weights=counts if average == "weighted" else None))
