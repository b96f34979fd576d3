"""Predictions over a whole loader, and the metrics of classification computed from them.

Precision, recall and F1 follow scikit-learn's definitions; a class that never occurs or is never predicted scores 0
there and is kept in the table, so that rows and columns always stand for the same classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import pandas as pd

Labels = Tensor | np.ndarray | Sequence[int]


@dataclass(frozen=True)
class Predictions:
    """A model's answers to a whole data set, in the order of the data set, on the CPU.

    logits: (N, K) float32; labels: (N,) int64.
    """

    logits: Tensor
    labels: Tensor

    @property
    def probabilities(self) -> Tensor:
        """Softmax of the logits, (N, K); each row sums to 1."""
        return self.logits.softmax(dim=1)

    @property
    def predicted(self) -> Tensor:
        """The class with the largest logit, (N,)."""
        return self.logits.argmax(dim=1)


@torch.no_grad()
def predict_all(model: nn.Module, loader: Iterable[Any], *, device: torch.device | str | None = None) -> Predictions:
    """Run the model over a loader of (images, labels) in eval mode and keep every logit.

    The images go to the model's own device, or to `device`. Every module's mode is restored afterwards. The order is the
    loader's: use one that does not shuffle, and row i belongs to item i of the data set. Raises ValueError for an empty
    loader and for logits that are not (B, K).
    """
    if device is None:
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    logits, labels = [], []
    try:
        for images, targets in loader:
            output = model(images.to(device))  # (B, C, H, W) -> (B, K)
            if output.ndim != 2 or len(output) != len(targets):
                raise ValueError(
                    f"the model answers {len(targets)} images with shape {tuple(output.shape)}, not (B, K)"
                )
            logits.append(output.float().cpu())
            labels.append(targets.cpu())
    finally:
        for module, mode in modes:
            module.training = mode
    if not logits:
        raise ValueError("the loader is empty: there is nothing to predict")
    return Predictions(torch.cat(logits), torch.cat(labels).long())


def accuracy(predicted: Labels, labels: Labels) -> float:
    """The share of predictions that equal their label, in [0, 1]. `predicted` holds class indices, (N,), not logits."""
    predicted, labels = _class_indices("predicted", predicted), _class_indices("labels", labels)
    _check_same_length(predicted, labels)
    return float(np.mean(predicted == labels))


def confusion_matrix(labels: Labels, predicted: Labels, num_classes: int) -> np.ndarray:
    """How often each class was taken for each: (K, K) counts, rows the true class, columns the predicted one."""
    labels = _class_indices("labels", labels, num_classes)
    predicted = _class_indices("predicted", predicted, num_classes)
    _check_same_length(predicted, labels)
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def classification_summary(labels: Labels, predicted: Labels, classes: Sequence[str]) -> pd.DataFrame:
    """Precision, recall, F1 and support: a row a class, then "macro average" and "accuracy" (over all images).

    A class that is absent from `labels` or never predicted scores 0 and stays in the table.
    """
    import pandas as pd
    from sklearn.metrics import precision_recall_fscore_support

    labels = _class_indices("labels", labels, len(classes))
    predicted = _class_indices("predicted", predicted, len(classes))
    _check_same_length(predicted, labels)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), zero_division=0
    )
    table = pd.DataFrame({"precision": precision, "recall": recall, "f1": f1, "support": support}, index=list(classes))
    table.loc["macro average"] = [precision.mean(), recall.mean(), f1.mean(), len(labels)]
    table.loc["accuracy"] = [np.nan, np.nan, accuracy(predicted, labels), len(labels)]
    return table.astype({"support": int})


def _class_indices(name: str, values: Labels, num_classes: int | None = None) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be class indices of shape (N,), not {array.dtype} of shape {array.shape}")
    if not len(array):
        raise ValueError(f"{name} is empty")
    if num_classes is not None and not 0 <= array.min() <= array.max() < num_classes:
        raise ValueError(f"{name} run from {array.min()} to {array.max()}, outside 0 … {num_classes - 1}")
    return array.astype(np.int64)


def _check_same_length(predicted: np.ndarray, labels: np.ndarray) -> None:
    if len(predicted) != len(labels):
        raise ValueError(f"{len(predicted)} predictions for {len(labels)} labels")
