"""Metrics against scikit-learn and by hand, and the order and mode that a prediction must keep."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlcourse.evaluation import (
    Predictions,
    accuracy,
    classification_summary,
    confusion_matrix,
    misclassified,
    predict_all,
)


def loader(n=10, batch_size=4):
    images = torch.randn(n, 3, 2, 2)
    return DataLoader(TensorDataset(images, torch.arange(n) % 3), batch_size), images


def test_predict_all_keeps_order_labels_and_the_last_short_batch():
    data, images = loader()
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    predictions = predict_all(model, data)
    torch.testing.assert_close(predictions.logits, model(images).detach())
    assert predictions.labels.tolist() == [i % 3 for i in range(10)]
    torch.testing.assert_close(predictions.probabilities.sum(1), torch.ones(10))
    assert torch.equal(predictions.predicted, predictions.logits.argmax(1))


def test_predict_all_uses_eval_mode_and_restores_every_mode():
    data, _ = loader()
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 3))
    model.train()
    model[1].eval()  # a frozen batch norm must not come back in train mode
    before = model[1].running_mean.clone()
    first, second = predict_all(model, data), predict_all(model, data)
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(before, model[1].running_mean)
    assert model.training
    assert not model[1].training
    assert model[2].training


def test_predict_all_restores_the_mode_after_an_error_and_leaves_ordinary_tensors():
    model = nn.Flatten(0)
    model.train()
    with pytest.raises(ValueError, match=r"not \(B, K\)"):
        predict_all(model, loader()[0])
    assert model.training
    with pytest.raises(ValueError, match="empty"):
        predict_all(model, [])
    logits = predict_all(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), loader()[0]).logits
    assert not logits.is_inference()
    assert not logits.requires_grad


def test_a_model_without_parameters_predicts_on_the_cpu_and_device_is_heeded():
    data, images = loader()
    assert torch.equal(predict_all(nn.Flatten(), data).logits, images.flatten(1))
    assert torch.equal(predict_all(nn.Flatten(), data, device="cpu").logits, images.flatten(1))


def test_accuracy():
    assert accuracy([0, 1, 2, 2], [0, 1, 1, 2]) == 0.75
    assert accuracy(torch.tensor([1]), np.array([0])) == 0.0


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        ([0, 1], [0], "2 predictions for 1 labels"),
        ([], [], "predicted must be class indices|empty"),
        (torch.randn(4, 3), [0, 1, 2, 0], r"class indices of shape \(N,\), not float32 of shape \(4, 3\)"),
        ([0.5, 1.0], [0, 1], "not float64"),
        (torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long), "empty"),
    ],
)
def test_accuracy_refuses_what_is_not_class_indices(predicted, labels, message):
    with pytest.raises(ValueError, match=message):
        accuracy(predicted, labels)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_the_confusion_matrix_is_sklearns(pairs):
    labels, predicted = zip(*pairs, strict=True)
    ours = confusion_matrix(labels, predicted, 4)
    assert np.array_equal(ours, sklearn.metrics.confusion_matrix(labels, predicted, labels=range(4)))


def test_the_confusion_matrix_has_the_true_class_in_rows_and_refuses_foreign_classes():
    assert confusion_matrix([0, 0, 1], [1, 1, 1], 2).tolist() == [[0, 2], [0, 1]]
    with pytest.raises(ValueError, match=r"labels run from 0 to 2, outside 0 … 1"):
        confusion_matrix([0, 2], [0, 0], 2)
    with pytest.raises(ValueError, match=r"predicted run from -1 to 0"):
        confusion_matrix([0, 1], [0, -1], 2)
    with pytest.raises(ValueError, match="1 predictions for 2 labels"):
        confusion_matrix([0, 1], [0], 2)


def test_the_summary_keeps_absent_classes_and_agrees_with_sklearn():
    labels, predicted = [0, 0, 1, 1, 1], [0, 1, 1, 1, 0]
    table = classification_summary(labels, predicted, ["a", "b", "absent"])
    assert list(table.index) == ["a", "b", "absent", "macro average", "accuracy"]
    assert table.loc["absent"].tolist() == [0, 0, 0, 0]
    assert table.loc["b", "precision"] == pytest.approx(2 / 3)
    assert table.loc["a", "f1"] == pytest.approx(0.5)
    assert table.loc["accuracy", "f1"] == pytest.approx(0.6)
    assert table.loc["macro average", "recall"] == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert table["support"].tolist() == [2, 3, 0, 5, 5]


def test_misclassified_are_indices_into_the_data_set_worst_first():
    logits = torch.tensor([[5.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.0, 2.0]])
    predictions = Predictions(logits, torch.tensor([0, 1, 0, 0]))
    assert misclassified(predictions).tolist() == [2, 3, 1]
    assert misclassified(Predictions(logits, predictions.predicted)).tolist() == []
