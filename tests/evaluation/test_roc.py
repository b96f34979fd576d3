"""What a curve and its area say, and the questions that have no answer."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlcourse.evaluation import average_precision, precision_recall_curve, roc_auc, roc_curve

LABELS = np.array([0, 1, 1, 0])
pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=2, max_size=40).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@given(pairs)
def test_the_area_is_the_chance_that_a_positive_beats_a_negative(rows):
    labels, scores = map(np.array, zip(*rows, strict=True))
    duels = np.sign(scores[labels == 1][:, None] - scores[labels == 0])
    assert roc_auc(labels, scores) == pytest.approx((duels.mean() + 1) / 2, abs=1e-12)


@given(pairs)
def test_areas_ask_for_the_order_of_the_scores_only(rows):
    labels, scores = map(np.array, zip(*rows, strict=True))
    for area in (roc_auc, average_precision):
        assert area(labels, scores) == pytest.approx(area(labels, np.exp(scores) - 7), abs=1e-12)
        turned = np.random.default_rng(0).permutation(len(labels))
        assert area(labels, scores) == pytest.approx(area(labels[turned], scores[turned]), abs=1e-12)


def test_a_tie_is_a_slope_and_half_a_win():
    false_rate, true_rate, thresholds = roc_curve([0, 1, 1, 0], [0.5, 0.5, 0.9, 0.1])
    assert false_rate.tolist() == [0, 0, 0.5, 1]
    assert true_rate.tolist() == [0, 0.5, 1, 1]
    assert thresholds.tolist() == [np.inf, 0.9, 0.5, 0.1]
    assert roc_auc([0, 1, 1, 0], [0.5, 0.5, 0.9, 0.1]) == (1 + 1 + 0.5 + 1) / 4
    assert roc_auc([0, 1, 0, 1], [3, 3, 3, 3]) == 0.5


def test_a_precision_recall_curve_by_hand():
    precision, recall, thresholds = precision_recall_curve([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])
    assert precision.tolist() == pytest.approx([1, 1, 1 / 2, 2 / 3, 1 / 2])
    assert recall.tolist() == [0, 0.5, 0.5, 1, 1]
    assert thresholds.tolist() == [np.inf, 0.9, 0.8, 0.7, 0.1]
    assert average_precision([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision([1, 1], [0.2, 0.3]) == 1.0


def test_of_two_columns_the_second_is_the_score_and_tensors_and_booleans_serve():
    probabilities = torch.tensor([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.9, 0.1]])
    labels = torch.tensor([0, 1, 1, 0])
    assert roc_auc(labels, probabilities) == roc_auc(labels.bool(), probabilities[:, 1]) == 1.0
    assert roc_auc(labels, probabilities, average=None).tolist() == [1.0, 1.0]
    assert roc_auc(LABELS.astype(bool), [0.1, 0.9, 0.8, 0.3]) == 1.0


def test_averages_of_three_classes():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    areas = roc_auc([0, 1, 0, 2], probabilities, average=None)
    assert roc_auc([0, 1, 0, 2], probabilities) == pytest.approx(areas.mean())
    assert roc_auc([0, 1, 0, 2], probabilities, average="weighted") == pytest.approx(areas @ [0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("function", "labels", "scores", "message"),
    [
        (roc_auc, [1, 1, 1], [0.1, 0.2, 0.3], "only class 1: a ROC curve needs both"),
        (roc_curve, [0, 0], [0.1, 0.2], "only class 0"),
        (average_precision, [0, 0], [0.1, 0.2], "without a positive there is no recall"),
        (roc_auc, [0, 1, 0], np.full((3, 3), 1 / 3), "no sample of class 2 of 3: its area is undefined"),
        (average_precision, [0] * 3, np.full((3, 9), 1 / 9), r"class 1, 2, 3, 4, 5, … of 9"),
        (roc_auc, [0, 1], np.full((2, 2), 0.6), "must sum to 1 in each row; row 0 sums to 1.2"),
        (roc_auc, [0, 1], [[1.5, -0.5], [0.5, 0.5]], r"from -0.5 to 1.5, outside \[0, 1\]: logits need a softmax"),
        (roc_auc, [0, 1], [0.5, np.nan], "scores holds 1 NaN of 2 numbers"),
        (precision_recall_curve, [0, 1], [0.5, np.nan], "1 NaN"),
        (roc_auc, [], [], "scores is empty"),
        (roc_auc, [0, 2], [0.1, 0.2], "labels run from 0 to 2, outside 0 … 1"),
        (roc_auc, [0.0, 1.0], [0.1, 0.2], "not float64"),
        (roc_auc, [0, 1, 1], [0.1, 0.2], "2 scores for 3 labels"),
        (roc_auc, [0, 1, 1], np.full((2, 2), 0.5), "2 rows of probabilities for 3 labels"),
        (roc_auc, [0, 1], np.ones((2, 1)), r"shape \(N, K\) with K ≥ 2, not \(2, 1\)"),
        (roc_curve, [0, 1], np.full((2, 2), 0.5), r"must have shape \(N,\), not \(2, 2\)"),
    ],
)
def test_a_question_without_an_answer_is_an_error(function, labels, scores, message):
    with pytest.raises(ValueError, match=message):
        function(labels, scores)


def test_an_unknown_average_is_named():
    with pytest.raises(ValueError, match="average='micro' is not one of macro, weighted, None"):
        roc_auc([0, 1], [0.1, 0.2], average="micro")
