"""The metrics of classification: accuracy, and what the confusion matrix holds.

Precision, recall and F1 follow scikit-learn's definitions; a class that never occurs or is never predicted scores 0
there and is kept in the table, so that rows and columns always stand for the same classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlcourse.evaluation.checks import Labels, Scores, check_same_length, class_indices, real_numbers, square_counts

if TYPE_CHECKING:
    import pandas as pd

AVERAGES = ("macro", "micro", "weighted")


def accuracy(predicted: Labels, labels: Labels) -> float:
    """The share of predictions that equal their label, in [0, 1]. `predicted` holds class indices, (N,), not logits."""
    predicted, labels = class_indices("predicted", predicted), class_indices("labels", labels)
    check_same_length(predicted, labels)
    return float(np.mean(predicted == labels))


def top_k_accuracy(scores: Scores, labels: Labels, k: int) -> float:
    """The share of labels among the k highest of their row's scores (N, K): logits or probabilities.

    Where scores are tied, a label counts for the share of the orders of the tied classes that put it among the first k:
    a model that says the same of all K classes scores k / K, whatever the order of the classes. Raises ValueError for
    k below 1.
    """
    scores = real_numbers("scores", scores)
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape (N, K), not {scores.shape}")
    labels = class_indices("labels", labels, scores.shape[1])
    check_same_length(scores, labels, "rows of scores")
    if k < 1:
        raise ValueError(f"k={k} must be at least 1")
    own = scores[np.arange(len(labels)), labels][:, None]  # (N,) -> (N, 1)
    higher, tied = (scores > own).sum(axis=1), (scores == own).sum(axis=1)  # tied: the label itself is one
    return float(np.mean(np.clip((k - higher) / tied, 0, 1)))


def confusion_matrix(labels: Labels, predicted: Labels, num_classes: int) -> np.ndarray:
    """How often each class was taken for each: (K, K) counts, rows the true class, columns the predicted one."""
    labels = class_indices("labels", labels, num_classes)
    predicted = class_indices("predicted", predicted, num_classes)
    check_same_length(predicted, labels)
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def precision_recall_f1(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each class, (K,) each, from a confusion matrix (K, K) with the true class in rows.

    0 where nothing was predicted as the class, or nothing belongs to it.
    """
    matrix = square_counts(matrix)
    hits = np.diag(matrix)
    predicted, support = matrix.sum(axis=0), matrix.sum(axis=1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(predicted + support, 1)
    return precision, recall, f1


def average_scores(matrix: np.ndarray, average: str = "macro") -> tuple[float, float, float]:
    """Precision, recall and F1 of all classes together, from a confusion matrix (K, K).

    macro     the mean over the classes, each the same; a class that is absent counts as 0
    weighted  the mean over the classes, each by its number of samples
    micro     of all decisions together: with one label an image all three are the accuracy
    """
    if average not in AVERAGES:
        raise ValueError(f"average={average!r} is not one of {', '.join(AVERAGES)}")
    matrix = square_counts(matrix)
    if average == "micro":
        share = float(np.trace(matrix) / matrix.sum())
        return share, share, share
    weights = matrix.sum(axis=1) if average == "weighted" else None
    precision, recall, f1 = (float(np.average(scores, weights=weights)) for scores in precision_recall_f1(matrix))
    return precision, recall, f1


def classification_summary(
    labels: Labels, predicted: Labels, classes: Sequence[str], *, averages: Sequence[str] = ("macro",)
) -> pd.DataFrame:
    """Precision, recall, F1 and support: a row a class, then "macro average" and "accuracy" (over all images).

    A class that is absent from `labels` or never predicted scores 0 and stays in the table. `averages` chooses among
    macro, micro and weighted.
    """
    import pandas as pd

    matrix = confusion_matrix(labels, predicted, len(classes))
    scores = [*precision_recall_f1(matrix), matrix.sum(axis=1)]
    columns = ["precision", "recall", "f1", "support"]
    table = pd.DataFrame(dict(zip(columns, scores, strict=True)), index=list(classes)).astype({"support": float})
    for average in averages:
        table.loc[f"{average} average"] = [*average_scores(matrix, average), matrix.sum()]
    table.loc["accuracy"] = [np.nan, np.nan, accuracy(predicted, labels), matrix.sum()]
    return table.astype({"support": int})
