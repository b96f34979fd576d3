"""Wrong answers to the exercises on metrics."""

import numpy as np
import torch
from planting import mistake
from sklearn.metrics import average_precision_score, roc_auc_score


def build_f1(
    f1=lambda hits, predicted, support: 2 * hits / np.maximum(predicted + support, 1),
    average=lambda f1, hits, predicted, support: f1.mean(),
):
    """Macro F1 with one part of it replaced."""

    def macro_f1(matrix):
        counts = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
        return average(f1(*counts), *counts)

    return macro_f1


def plant(exercise, says, name, wrong):
    wrong.__name__ = name
    mistake(exercise, says=says)(wrong)


def plant_f1(says, name, **parts):
    plant("evaluation.macro_f1", says, name, build_f1(**parts))


def precision(hits, predicted, support):
    return hits / np.maximum(predicted, 1)


def recall(hits, predicted, support):
    return hits / np.maximum(support, 1)


def f1_of_the_means(f1, *counts):
    p, r = precision(*counts).mean(), recall(*counts).mean()
    return 2 * p * r / (p + r)


plant_f1("the accuracy, which is the micro average", "micro", average=lambda f1, h, p, s: h.sum() / s.sum())
plant_f1("weighs the classes by their samples", "weighted", average=lambda f1, h, p, s: np.average(f1, weights=s))
plant_f1("weighs the classes by their predictions", "by_predictions", average=lambda f1, h, p, s: np.average(f1, weights=p))
plant_f1("the F1 of the mean precision and the mean recall", "f1_of_means", average=f1_of_the_means)
plant_f1(
    "the plain mean of precision and recall", "arithmetic", f1=lambda *counts: (precision(*counts) + recall(*counts)) / 2
)
plant_f1("gives the mean precision", "only_precision", f1=precision)
plant_f1("gives the mean recall", "only_recall", f1=recall)
plant_f1("forgets the factor 2", "half", f1=lambda h, p, s: h / np.maximum(p + s, 1))
plant_f1("the Jaccard index", "jaccard", f1=lambda h, p, s: h / np.maximum(p + s - h, 1))
plant_f1("the geometric mean", "geometric", f1=lambda *counts: np.sqrt(precision(*counts) * recall(*counts)))
plant_f1("does not divide by their number", "total", average=lambda f1, *counts: f1.sum())
plant_f1("leaves out a class that does not occur", "present_only", average=lambda f1, h, p, s: f1[s > 0].mean())
plant_f1("leaves out a class without predictions", "named_only", average=lambda f1, h, p, s: f1[(p > 0) & (s > 0)].mean())
plant_f1("median", "median", average=lambda f1, *counts: np.median(f1))
plant_f1("It gives nan", "divides_by_zero", f1=lambda h, p, s: 2 * (h / p) * (h / s) / (h / p + h / s))


@mistake("evaluation.macro_f1", says="It changes its input")
def normalises_in_place(matrix):
    result = build_f1()(matrix)
    matrix //= 2
    return result


def compare_pairs(judge):
    def area(labels, scores):
        positives, negatives = scores[labels == 1], scores[labels == 0]
        if not len(positives) or not len(negatives):
            raise ValueError("one class only")
        return judge(positives[:, None] - negatives, labels, scores)

    return area


def plant_area(says, name, judge):
    plant("evaluation.roc_auc", says, name, compare_pairs(judge))


def in_order(labels, scores, order):
    hits = labels[order]
    y, x = hits.cumsum(0) / hits.sum(), (1 - hits).cumsum(0) / (1 - hits).sum()
    x, y = (torch.cat([torch.zeros(1), rate]) for rate in (x, y))
    return torch.trapezoid(y, x)


def on_a_grid(d, labels, scores):
    called = scores >= torch.linspace(1, 0, 101)[:, None]
    return torch.trapezoid(called[:, labels == 1].float().mean(1), called[:, labels == 0].float().mean(1))


def half(d):
    return ((d > 0).double() + (d == 0) / 2).mean()


plant_area("counts a tie as lost", "strictly_greater", lambda d, *_: (d > 0).float().mean())
plant_area("counts a tie as won", "greater_or_equal", lambda d, *_: (d >= 0).float().mean())
plant_area("has the scores upside down", "upside_down", lambda d, *_: 1 - half(d))
plant_area("Gini", "gini", lambda d, *_: 2 * half(d) - 1)
plant_area(r"divides by the number of all pairs, N²", "all_pairs", lambda d, y, s: half(d) * d.numel() / len(y) ** 2)
plant_area(
    "uses one threshold, 0.5", "balanced_accuracy",
    lambda d, y, s: ((s >= 0.5)[y == 1].float().mean() + (s < 0.5)[y == 0].float().mean()) / 2,
)  # fmt: skip
plant_area("gives the accuracy at", "accuracy_at_half", lambda d, y, s: ((s >= 0.5).long() == y).float().mean())
plant_area("gives the average precision", "average_precision", lambda d, y, s: average_precision_score(y, s))
plant_area(
    "breaks ties by the order of the samples", "ties_by_order",
    lambda d, y, s: in_order(y, s, s.argsort(descending=True, stable=True)),
)  # fmt: skip
plant_area("uses a fixed grid of thresholds", "grid", on_a_grid)
plant_area("gives a negative area", "from_1_to_0", lambda d, *_: -half(d))


@mistake("evaluation.roc_auc", says="lets one class alone through: .* gives nan")
def nan_for_one_class(labels, scores):
    d = scores[labels == 1][:, None] - scores[labels == 0]
    return float(half(d))


@mistake("evaluation.roc_auc", says="lets one class alone through: .* gives 0.5")
def a_half_for_one_class(labels, scores):
    return roc_auc_score(labels, scores) if 0 < labels.sum() < len(labels) else 0.5


@mistake("evaluation.roc_auc", says="It raises ZeroDivisionError for .*: with one class alone raise a ValueError")
def divides_by_no_pair(labels, scores):
    labels, scores = labels.tolist(), scores.tolist()
    wins = pairs = 0
    for a, x in zip(labels, scores, strict=True):
        for b, y in zip(labels, scores, strict=True):
            if a == 1 and b == 0:
                wins += (x > y) + (x == y) / 2
                pairs += 1
    return wins / pairs
