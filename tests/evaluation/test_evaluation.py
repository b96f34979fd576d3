"""Metrics against scikit-learn and by hand, and the order and mode that a prediction must keep."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Subset, TensorDataset

from dlcourse.data import EpochSampler, make_loader
from dlcourse.evaluation import (
    Predictions,
    accuracy,
    average_scores,
    classification_summary,
    confusion_matrix,
    misclassified,
    precision_recall_f1,
    predict_all,
    top_k_accuracy,
    worst_mistakes,
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


# ---------------------------------------------------------------- each row's image


class Numbers(torch.utils.data.Dataset):
    """Item i is an image whose every pixel is i, with the label i % 3."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.full((1, 2, 2), float(index)), index % 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, range(10)),
        ({"drop_last": True}, range(8)),
        ({"sampler": [7, 0, 3, 3, 9]}, [7, 0, 3, 3, 9]),
        ({"sampler": range(9, 3, -1), "drop_last": True}, [9, 8, 7, 6]),
    ],
)
def test_every_row_has_the_index_of_its_item(options, expected):
    predictions = predict_all(nn.Flatten(), DataLoader(Numbers(), 4, **options))
    assert predictions.ids.tolist() == list(expected)
    assert predictions.logits[:, 0].tolist() == list(expected)


def test_ids_of_a_subset_point_into_the_subset_and_without_a_data_set_they_count():
    subset = Subset(Numbers(), [5, 2, 8])
    predictions = predict_all(nn.Flatten(), make_loader(subset, 2))
    assert predictions.ids.tolist() == [0, 1, 2]
    assert predictions.logits[:, 0].tolist() == [subset[i][0][0, 0, 0].item() for i in predictions.ids]
    batches = [(torch.zeros(2, 1, 2, 2), torch.zeros(2)), (torch.zeros(1, 1, 2, 2), torch.zeros(1))]
    assert predict_all(nn.Flatten(), batches).ids.tolist() == [0, 1, 2]
    assert predict_all(nn.Flatten(), iter(batches)).ids.tolist() == [0, 1, 2]


def test_a_stream_and_ready_batches_are_counted():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.zeros(1, 2, 2), 1)] * 3)

    assert predict_all(nn.Flatten(), DataLoader(Stream(), 2)).ids.tolist() == [0, 1, 2]
    ready = [(torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.long))] * 2
    assert predict_all(nn.Flatten(), DataLoader(ready, batch_size=None)).ids.tolist() == [0, 1, 2, 3]


class Shuffling:
    def __iter__(self):
        return iter(torch.randperm(10).split(4))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 4, "shuffle": True}, "RandomSampler"),
        ({"batch_size": 4, "sampler": EpochSampler(10)}, "EpochSampler"),
        ({"batch_sampler": BatchSampler(RandomSampler(range(10)), 4, False)}, "RandomSampler"),
        ({"batch_sampler": Shuffling()}, "Shuffling"),
    ],
)
def test_a_loader_that_draws_its_order_is_refused(options, named):
    loader = DataLoader(Numbers(), **options)
    with pytest.raises(ValueError, match=f"draws its order with {named}, so that row i would not be item i"):
        predict_all(nn.Flatten(), loader)


def test_a_collate_function_that_leaves_samples_out_is_found():
    def drop_the_first(samples):
        return torch.utils.data.default_collate(samples[1:])

    with pytest.raises(ValueError, match="gave 7 samples for 10 indices: does its collate_fn leave some out"):
        predict_all(nn.Flatten(), DataLoader(Numbers(), 4, collate_fn=drop_the_first))


def test_predictions_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match=r"logits \(4, 2\) and labels \(3,\)"):
        Predictions(torch.zeros(4, 2), torch.zeros(3).long())
    with pytest.raises(ValueError, match=r"4 predictions with ids of shape \(3,\)"):
        Predictions(torch.zeros(4, 2), torch.zeros(4).long(), torch.arange(3))


def test_several_labels_an_image_are_questions_of_their_own():
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0], [-4.0, -4.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    predictions = predict_all(nn.Flatten(), [(logits[:, :, None], labels)])
    assert predictions.multi_label
    assert predictions.labels.dtype == torch.long
    torch.testing.assert_close(predictions.probabilities, logits.sigmoid())
    assert predictions.predicted.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert misclassified(predictions).tolist() == [2, 1]
    with pytest.raises(ValueError, match="one label an image"):
        worst_mistakes(predictions)


def test_wrong_answers_carry_their_ids():
    logits = torch.tensor([[5.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.0, 2.0]])
    predictions = Predictions(logits, torch.tensor([0, 1, 0, 0]), torch.tensor([40, 41, 42, 43]))
    assert misclassified(predictions).tolist() == [42, 43, 41]
    first, second = worst_mistakes(predictions, 2)
    assert (first.id, first.label, first.predicted) == (42, 0, 1)
    assert first.confidence == pytest.approx(torch.tensor([0.0, 3.0]).softmax(0)[1].item())
    assert second.id == 43
    assert len(worst_mistakes(predictions, 100)) == 3
    with pytest.raises(ValueError, match="count=0 must be at least 1"):
        worst_mistakes(predictions, 0)


# ---------------------------------------------------------------- averages and top-k


def test_averages_by_hand():
    matrix = np.array([[8, 2, 0], [1, 1, 0], [0, 0, 0]])
    precision, recall, f1 = precision_recall_f1(matrix)
    assert precision.tolist() == pytest.approx([8 / 9, 1 / 3, 0])
    assert recall.tolist() == pytest.approx([0.8, 0.5, 0])
    assert f1.tolist() == pytest.approx([16 / 19, 2 / 5, 0])
    assert average_scores(matrix, "macro")[1] == pytest.approx(1.3 / 3)
    assert average_scores(matrix, "weighted")[1] == pytest.approx((10 * 0.8 + 2 * 0.5) / 12)
    assert average_scores(matrix, "micro") == (0.75, 0.75, 0.75)


def test_the_summary_shows_the_averages_that_are_asked_for():
    table = classification_summary([0, 0, 1], [0, 1, 1], ["a", "b"], averages=["macro", "micro", "weighted"])
    assert list(table.index[2:]) == ["macro average", "micro average", "weighted average", "accuracy"]
    assert table.loc["micro average", "f1"] == pytest.approx(2 / 3)
    assert table.loc["weighted average", "precision"] == pytest.approx((2 * 1 + 1 * 0.5) / 3)


@given(st.integers(0, 1000))
def test_top_1_is_the_accuracy_and_top_k_is_everything(seed):
    generator = torch.Generator().manual_seed(seed)
    scores, labels = torch.randn(20, 6, generator=generator), torch.randint(6, (20,), generator=generator)
    assert top_k_accuracy(scores, labels, 1) == pytest.approx(accuracy(scores.argmax(1), labels))
    assert top_k_accuracy(scores, labels, 6) == top_k_accuracy(scores, labels, 99) == 1.0
    found = [top_k_accuracy(scores, labels, k) for k in range(1, 7)]
    assert found == sorted(found)


def test_a_tie_counts_for_the_share_of_its_orders():
    assert top_k_accuracy(torch.zeros(3, 10), [0, 4, 9], 2) == pytest.approx(0.2)
    assert top_k_accuracy([[3, 1, 1, 0]], [2], 2) == 0.5  # one place left for two
    assert top_k_accuracy([[3, 1, 1, 0]], [2], 3) == 1.0
    assert top_k_accuracy([[3, 1, 1, 0]], [3], 3) == 0.0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: top_k_accuracy(torch.zeros(2, 3), [0, 1], 0), "k=0 must be at least 1"),
        (lambda: top_k_accuracy(torch.zeros(3), [0, 1, 2], 1), r"shape \(N, K\), not \(3,\)"),
        (lambda: top_k_accuracy(torch.full((1, 2), torch.nan), [0], 1), "scores holds 2 NaN of 2"),
        (lambda: top_k_accuracy(torch.zeros(2, 3), [0, 3], 1), "outside 0 … 2"),
        (lambda: top_k_accuracy(torch.zeros(2, 3), [0], 1), "2 rows of scores for 1 labels"),
        (lambda: average_scores(np.eye(2, dtype=int), "samples"), "average='samples' is not one of macro, micro, weighted"),
        (lambda: precision_recall_f1(np.zeros((2, 3), int)), r"counts of shape \(K, K\), not int64 of shape \(2, 3\)"),
        (lambda: precision_recall_f1(np.eye(2)), "not float64"),
        (lambda: precision_recall_f1(np.zeros((2, 2), int)), "at least one sample"),
        (lambda: precision_recall_f1(np.array([[1, -1], [0, 2]])), "counts from 0 up"),
    ],
)
def test_what_has_no_answer_is_refused(function, message):
    with pytest.raises(ValueError, match=message):
        function()
