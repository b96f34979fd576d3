"""Which samples a model gets wrong."""

from __future__ import annotations

from torch import Tensor

from dlcourse.evaluation.metrics import Predictions


def misclassified(predictions: Predictions) -> Tensor:
    """Indices of the wrong predictions into the data set, (M,) int64, the most confident mistake first.

    They are indices into the data set only if the predictions were made in its order: with a loader that does not shuffle.
    """
    wrong = (predictions.predicted != predictions.labels).nonzero().flatten()
    confidence = predictions.probabilities[wrong].amax(dim=1)
    return wrong[confidence.argsort(descending=True, stable=True)]
