"""Exercises on metrics (chapter 15): macro F1 from a confusion matrix, the area under the ROC curve with ties.

Sources: Fawcett 2006, An introduction to ROC analysis.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dlcourse.exercises.checking import Answer, Mistake, NotAttempted, compare, describe
from dlcourse.exercises.registry import register


def macro_f1(matrix: np.ndarray) -> float:
    """The mean F1 of all K classes, from counts (K, K) with the true class in rows; F1 is 0 where it would be 0 / 0."""
    hits = np.diag(matrix)
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * hits  # false positives and false negatives
    return float(np.mean(2 * hits / np.maximum(2 * hits + wrong, 1)))


def check_macro_f1(answer: Answer) -> str:
    generator = np.random.default_rng(0)
    cases = [
        np.array([[3, 1], [2, 5]]),
        np.array([[9, 1, 0], [2, 1, 1], [0, 2, 2]]),
        np.array([[4, 0], [3, 0]]),  # class 1 is never predicted
        np.array([[8, 2, 0], [1, 1, 0], [0, 0, 0]]),  # class 2 does not occur
        np.array([[0, 5], [2, 0]]),  # nothing is right
        generator.integers(0, 9, size=(6, 6)) + 30 * np.diag([1, 2, 3, 0, 0, 1]),
    ]
    for matrix in cases:
        got, given = answer(matrix), f"the matrix {matrix.tolist()}"
        if isinstance(got, (float, np.floating)) and math.isnan(got):
            raise Mistake(f"It gives nan for {given}: a class without predictions or without samples divides by zero; its F1 is 0.")
        compare(got, macro_f1(matrix), given=given, mistakes=_f1_mistakes(matrix), rtol=1e-9, atol=1e-12)
    return "two to six classes, a class that is never predicted, one that does not occur, and nothing right"


def _f1_mistakes(matrix: np.ndarray) -> dict[str, Callable[[], float]]:
    hits, predicted, support = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(predicted + support, 1)
    occurs, counted = support > 0, (support > 0) & (predicted > 0)

    def harmonic(a: float, b: float) -> float:
        return float(2 * a * b / (a + b))

    return {
        "leaves out a class that does not occur: it counts as 0, so that the average is over the same classes each time":
            lambda: float(f1[occurs].mean()),
        "leaves out a class without predictions: it counts as 0, or a model is rewarded for never naming it":
            lambda: float(f1[counted].mean()),
        "gives the accuracy, which is the micro average": lambda: float(hits.sum() / matrix.sum()),
        "weighs the classes by their samples: macro means that each counts the same": lambda: float(f1 @ support / support.sum()),
        "weighs the classes by their predictions: macro means that each counts the same": lambda: float(f1 @ predicted / predicted.sum()),
        "takes the F1 of the mean precision and the mean recall: average the classes' F1": lambda: harmonic(precision.mean(), recall.mean()),
        "takes the plain mean of precision and recall: F1 is their harmonic mean": lambda: float(((precision + recall) / 2).mean()),
        "gives the mean precision": lambda: float(precision.mean()),
        "gives the mean recall, the balanced accuracy": lambda: float(recall.mean()),
        "forgets the factor 2 of the harmonic mean": lambda: float(f1.mean() / 2),
        "counts a hit once and not twice: that is the Jaccard index": lambda: float((hits / np.maximum(predicted + support - hits, 1)).mean()),
        "takes the geometric mean of precision and recall": lambda: float(np.sqrt(precision * recall).mean()),
        "adds the classes up and does not divide by their number": lambda: float(f1.sum()),
        "leaves out the classes with an F1 of 0": lambda: float(f1[f1 > 0].mean()),
        "takes the median of the classes": lambda: float(np.median(f1)),
    }  # fmt: skip


register(
    "evaluation.macro_f1",
    macro_f1,
    check_macro_f1,
    difficulty=2,
    importance=5,
    minutes=10,
    hints=(
        "First an F1 for each class, then their plain mean. What is right stands on the diagonal.",
        "With tp on the diagonal, row sums (tp + fn) and column sums (tp + fp): F1 = 2 tp / (row sum + column sum).",
        "2 * np.diag(matrix) / np.maximum(rows + columns, 1) is 0 where the denominator would be 0; then .mean().",
    ),
)


def roc_auc(labels: Tensor, scores: Tensor) -> float:
    """The area under the ROC curve, from labels (N,) of 0 and 1 and scores (N,); equal scores count half."""
    positives, negatives = scores[labels == 1], scores[labels == 0]
    if len(positives) == 0 or len(negatives) == 0:
        raise ValueError("the area needs both classes")
    differences = positives[:, None] - negatives  # (P, 1) − (N,) -> (P, N): every positive against every negative
    return float(((differences > 0).double() + (differences == 0).double() / 2).mean())


def check_roc_auc(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    cases = [
        ([0, 1, 1, 0], [0.1, 0.9, 0.35, 0.4]),
        ([1, 0, 0, 1, 0], [0.8, 0.7, 0.2, 0.1, 0.05]),
        ([0, 1, 0, 0, 1], [0.5, 0.5, 0.5, 0.5, 0.9]),
        ([0, 1], [0.5, 0.5]),
        ([0, 1, 0, 1, 1], [3.0, 3.0, -2.0, 7.0, -2.0]),  # scores are not always probabilities
        ([0, 1, 1, 0], [0.50001, 0.50002, 0.50003, 0.50004]),
    ]
    for listed, scores in cases:
        _compare_area(answer, torch.tensor(listed), torch.tensor(scores))
    for ties in (False, True):
        labels = (torch.rand(60, generator=generator) < 0.3).long()
        drawn = torch.randn(60, generator=generator) + labels
        _compare_area(answer, labels, drawn.round() if ties else drawn)
    for labels in (torch.tensor([1, 1]), torch.tensor([0, 0, 0])):
        _check_refused(answer, labels, torch.linspace(0.2, 0.6, len(labels)))
    return "areas with and without ties, scores that are no probabilities, and one class alone refused"


def _compare_area(answer: Answer, labels: Tensor, scores: Tensor) -> None:
    want, got = roc_auc(labels, scores), answer(labels, scores)
    compare(got, want, given=describe(labels, scores), mistakes=_area_mistakes(labels, scores), rtol=1e-5, atol=1e-6)


def _area_mistakes(labels: Tensor, scores: Tensor) -> dict[str, Callable[[], float]]:
    difference = scores[labels == 1][:, None] - scores[labels == 0]
    right = roc_auc(labels, scores)
    positives, negatives = difference.shape

    def one_after_the_other(order: Tensor) -> float:
        hits = labels[order]
        x, y = (torch.cat([torch.zeros(1), rate]) for rate in ((1 - hits).cumsum(0) / negatives, hits.cumsum(0) / positives))
        return float(torch.trapezoid(y, x))

    def one_threshold(threshold: float) -> float:
        called = scores >= threshold
        return float((called[labels == 1].float().mean() + 1 - called[labels == 0].float().mean()) / 2)

    def on_a_grid(steps: int) -> float:
        called = scores >= torch.linspace(1, 0, steps)[:, None]
        x, y = called[:, labels == 0].float().mean(1), called[:, labels == 1].float().mean(1)
        return float(torch.trapezoid(y, x))

    def average_precision() -> float:
        hits = labels[scores.argsort(descending=True, stable=True)]
        return float((hits * hits.cumsum(0) / torch.arange(1, len(hits) + 1)).sum() / positives)

    broken = "breaks ties by the order of the samples: all with one score pass the threshold together"
    return {
        "counts a tie as lost: a positive and a negative with the same score count half": lambda: float((difference > 0).float().mean()),
        "counts a tie as won: a positive and a negative with the same score count half": lambda: float((difference >= 0).float().mean()),
        "has the scores upside down: a higher score speaks for class 1": lambda: 1 - right,
        "gives 2 · area − 1, the Gini coefficient": lambda: 2 * right - 1,
        "divides by the number of all pairs, N²: only pairs of a positive and a negative count": lambda: right * positives * negatives / len(labels) ** 2,
        "uses one threshold, 0.5: the curve goes through all of them": lambda: one_threshold(0.5),
        "gives the accuracy at the threshold 0.5": lambda: float(((scores >= 0.5) == labels).float().mean()),
        broken: lambda: one_after_the_other(scores.argsort(descending=True, stable=True)),
        f"{broken}.": lambda: one_after_the_other(scores.argsort(stable=True).flip(0)),
        "uses a fixed grid of thresholds from 0 to 1: take the scores themselves": lambda: on_a_grid(101),
        "uses a fixed grid of eleven thresholds from 0 to 1: take the scores themselves": lambda: on_a_grid(11),
        "gives the average precision, the area under the other curve": average_precision,
        "gives a negative area: let the false positive rate grow from 0 to 1": lambda: -right,
    }  # fmt: skip


def _check_refused(answer: Answer, labels: Tensor, scores: Tensor) -> None:
    given = describe(labels, scores)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = answer.value(labels, scores)
    except NotImplementedError:
        raise NotAttempted from None
    except ValueError:
        return
    except Exception as error:
        raise Mistake(f"It raises {type(error).__name__} for {given}: with one class alone raise a ValueError that says so.") from None
    raise Mistake(f"It lets one class alone through: {given} gives {describe(result)}; no area exists, so raise a ValueError.")


register(
    "evaluation.roc_auc",
    roc_auc,
    check_roc_auc,
    difficulty=3,
    importance=5,
    minutes=20,
    hints=(
        "The area is a chance: draw a positive and a negative; how often does the positive have the higher score?",
        "Compare each positive with each negative (a (P, N) tensor by broadcasting). A tie counts one half.",
        "d = scores[labels == 1][:, None] - scores[labels == 0]; the mean of (d > 0) + (d == 0) / 2. Raise ValueError if either part is empty.",
    ),
)
