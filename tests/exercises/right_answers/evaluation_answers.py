"""Right answers to the exercises on metrics, in other styles than the references'."""

from itertools import pairwise

import numpy as np
import torch
from planting import right_answer
from scipy.stats import rankdata
from sklearn.metrics import f1_score, roc_auc_score


@right_answer("evaluation.macro_f1")
def macro_f1_class_by_class(matrix):
    total = 0.0
    for k in range(len(matrix)):
        tp = matrix[k, k]
        fp, fn = matrix[:, k].sum() - tp, matrix[k].sum() - tp
        precision = tp / (tp + fp) if tp + fp else 0.0
        recall = tp / (tp + fn) if tp + fn else 0.0
        total += 2 * precision * recall / (precision + recall) if tp else 0.0
    return total / len(matrix)


@right_answer("evaluation.macro_f1")
def macro_f1_of_sklearn(matrix):
    labels, predicted = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape))
    return f1_score(labels, predicted, labels=range(len(matrix)), average="macro", zero_division=0)


@right_answer("evaluation.macro_f1")
def macro_f1_in_torch(matrix):
    counts = torch.from_numpy(matrix).double()
    return torch.nan_to_num(2 * counts.diag() / (counts.sum(0) + counts.sum(1))).mean()


@right_answer("evaluation.macro_f1")
def macro_f1_where(matrix):
    denominator = matrix.sum(0) + matrix.sum(1)
    f1 = np.divide(2 * np.diag(matrix), denominator, out=np.zeros(len(matrix)), where=denominator > 0)
    return f1.mean()


@right_answer("evaluation.roc_auc")
def area_from_ranks(labels, scores):
    positives, n = int(labels.sum()), len(labels)
    if positives in (0, n):
        raise ValueError("both classes are needed")
    ranks = rankdata(scores.double().numpy())  # ties share their mean rank
    return (ranks[labels.numpy() == 1].sum() - positives * (positives + 1) / 2) / (positives * (n - positives))


@right_answer("evaluation.roc_auc")
def area_threshold_by_threshold(labels, scores):
    if len(labels.unique()) < 2:
        raise ValueError("both classes are needed")
    points = [(0.0, 0.0)]
    for threshold in scores.unique().flip(0):
        called = scores >= threshold
        points.append((called[labels == 0].double().mean().item(), called[labels == 1].double().mean().item()))
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))


@right_answer("evaluation.roc_auc")
def area_of_sklearn(labels, scores):
    if labels.min() == labels.max():
        raise ValueError("both classes are needed")
    return roc_auc_score(labels, scores)


@right_answer("evaluation.roc_auc")
def area_by_signs(labels, scores):
    if not 0 < labels.sum() < len(labels):
        raise ValueError("both classes are needed")
    return torch.sign(scores[labels == 1][:, None] - scores[labels == 0]).mean() / 2 + 0.5
