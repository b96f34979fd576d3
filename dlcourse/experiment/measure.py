"""What `Run.evaluate` measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

import dlcourse
from dlcourse.evaluation import (
    accuracy,
    average_scores,
    confusion_matrix,
    expected_calibration_error,
    precision_recall_f1,
    predict_all,
    wilson_interval,
)


def measure(model: nn.Module, loader: Any, classes: Sequence[str]) -> tuple[dict[str, Any], np.ndarray]:
    """Metrics of a model on a loader, as plain values, and the confusion matrix (K, K)."""
    found = predict_all(model, dlcourse.progress(loader, "evaluating"))
    right = (found.predicted == found.labels).double().numpy()
    interval = wilson_interval(int(right.sum()), len(right))  # the bootstrap's has no width when nothing is wrong
    matrix = confusion_matrix(found.labels, found.predicted, len(classes))
    precision, recall, f1 = precision_recall_f1(matrix)
    metrics = {
        "images": len(right),
        "accuracy": accuracy(found.predicted, found.labels),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "macro_f1": float(average_scores(matrix, "macro")[2]),
        "calibration_error": expected_calibration_error(found.probabilities, found.labels),
        "classes": {
            name: {"precision": float(precision[k]), "recall": float(recall[k]), "f1": float(f1[k]), "images": int(matrix[k].sum())}
            for k, name in enumerate(classes)
        },
    }
    return metrics, matrix
