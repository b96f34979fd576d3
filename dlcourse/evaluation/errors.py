"""Which samples a model gets wrong."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlcourse.evaluation.predictions import Predictions


@dataclass(frozen=True)
class WrongAnswer:
    """One wrong answer: the item of the data set, its class, the class it was taken for, and how sure the model was."""

    id: int
    label: int
    predicted: int
    confidence: float


def misclassified(predictions: Predictions) -> Tensor:
    """Indices of the wrong predictions into the data set, (M,) int64, the most confident mistake first.

    They are the predictions' own ids, so they point at the right images whatever was predicted. With several labels an
    image is wrong when one of them is, as confident as its surest wrong label.
    """
    return predictions.ids[_wrong_rows(predictions)[0]]


def worst_mistakes(predictions: Predictions, count: int = 8) -> list[WrongAnswer]:
    """The `count` most confident wrong answers (fewer if there are fewer), the surest first; one label an image.

    Raises ValueError for a count below 1 and for predictions with several labels.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    if predictions.multi_label:
        raise ValueError("worst_mistakes needs one label an image; for several labels misclassified() gives the images")
    rows, confidence = _wrong_rows(predictions)
    columns = [predictions.ids[rows], predictions.labels[rows], predictions.predicted[rows], confidence]
    return [WrongAnswer(*row) for row in zip(*(column[:count].tolist() for column in columns), strict=True)]


def _wrong_rows(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """The rows of the wrong predictions and the confidence of each, the surest first; ties in order."""
    wrong = predictions.predicted != predictions.labels
    if predictions.multi_label:
        sure = (predictions.probabilities - 0.5).abs() + 0.5  # of yes or of no
        confidence, wrong = sure.masked_fill(~wrong, 0).amax(dim=1), wrong.any(dim=1)
    else:
        confidence = predictions.probabilities.amax(dim=1)
    rows = wrong.nonzero().flatten()
    rows = rows[confidence[rows].argsort(descending=True, stable=True)]
    return rows, confidence[rows]
