"""Intervals that cover as often as they say, and a test whose p-value is exact."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from dlcourse.evaluation import Interval, bootstrap_interval, compare_models, mcnemar, roc_auc
from dlcourse.evaluation.comparison import coin_p_value


def test_a_95_percent_interval_of_an_accuracy_covers_in_about_95_percent_of_the_test_sets():
    generator = np.random.default_rng(1)
    truth, covered = 0.8, 0
    for seed in range(1000):
        right = (generator.random(300) < truth).astype(np.float32)
        covered += truth in bootstrap_interval(np.mean, right, resamples=400, seed=seed, vectorized=True)
    assert 930 <= covered <= 970


def test_the_interval_of_a_mean_is_about_two_standard_errors_to_each_side():
    values = np.random.default_rng(0).normal(size=1000)
    interval = bootstrap_interval(np.mean, values)
    assert interval.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(1000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    narrower = bootstrap_interval(np.mean, values, confidence=0.5)
    assert interval.low < narrower.low < narrower.high < interval.high
    assert narrower.confidence == 0.5


def test_the_seed_decides_and_the_callers_generator_is_left_alone():
    values = torch.arange(20.0)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = (bootstrap_interval(np.mean, values, seed=3) for _ in range(2))
    assert first == again
    assert first != bootstrap_interval(np.mean, values, seed=4)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_rows_of_several_samples_are_drawn_together():
    labels = np.tile([0, 1], 20)
    interval = bootstrap_interval(lambda y, p: roc_auc(y, p), labels, labels + 0.5, resamples=50)
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)
    a = np.arange(10.0)
    together = bootstrap_interval(lambda a, b, axis: (a - b).mean(axis=axis), a, a, vectorized=True)
    assert (together.low, together.high) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1, 2], [1, 2, 3]), {}, r"of one length, at least 2, not \[2, 3\]"),
        (([1],), {}, r"not \[1\]"),
        (([1, 2],), {"confidence": 95}, "confidence=95 must lie between 0 and 1, such as 0.95"),
        (([1, 2],), {"resamples": 0}, "resamples=0 must be at least 1"),
        (([1.0, math.nan],), {}, "not finite"),
    ],
)
def test_what_cannot_be_resampled_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(lambda *samples: np.mean(samples[0]), *map(np.array, arguments), **options)


def test_a_statistic_that_some_draws_lack_says_so():
    with pytest.raises(ValueError, match="only class"):
        bootstrap_interval(lambda y, p: roc_auc(y, p), np.array([0, 1]), np.array([0.1, 0.9]))


def test_mcnemar_by_hand():
    """Nine images: the first alone right on 1, the second alone on 5, both on 2, neither on 1."""
    labels = torch.zeros(9, dtype=torch.long)
    first, second = torch.tensor([0, 1, 1, 1, 1, 1, 0, 0, 1]), torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 2])
    result = mcnemar(labels, first, second)
    assert (result.only_first, result.only_second) == (1, 5)
    assert result.p_value == pytest.approx(2 * (1 + 6) / 64)
    turned = mcnemar(labels, second, first)
    assert (turned.only_first, turned.only_second, turned.p_value) == (5, 1, pytest.approx(result.p_value))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 51, 400, 20_000])
def test_the_p_value_is_scipys(n):
    for heads in sorted({0, n // 3, n // 2, (n + 1) // 2, max(n // 2 - 5, 0), n}):
        theirs = binomtest(heads, n, 0.5).pvalue if n else 1.0
        assert coin_p_value(heads, n - heads) == pytest.approx(theirs, rel=1e-9)


def test_models_that_answer_alike_are_not_told_apart():
    labels = np.arange(50) % 5
    result = compare_models(labels, labels, labels)
    assert (result.first, result.second, result.test.p_value) == (1, 1, 1)
    assert result.difference == Interval(0, 0, 0)


def test_pairs_make_the_interval_of_a_difference_narrow():
    generator = np.random.default_rng(0)
    labels = np.zeros(1000, dtype=int)
    first = (generator.random(1000) < 0.2).astype(int)
    second = np.where(generator.random(1000) < 0.03, 1 - first, first)  # differs on 3 %
    result = compare_models(labels, first, second)
    assert result.difference.value == pytest.approx(result.first - result.second)
    assert result.difference.value in result.difference
    single = bootstrap_interval(np.mean, (first == labels).astype(float))
    width = result.difference.high - result.difference.low
    assert width < 0.6 * (single.high - single.low)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0], [0, 1]), "1 predictions for 2 labels"),
        (([], [], []), "labels must be class indices|empty"),
        (([0, 1], [0.2, 0.8], [0, 1]), "first must be class indices"),
    ],
)
def test_mcnemar_takes_class_indices_of_one_length(arguments, message):
    with pytest.raises(ValueError, match=message):
        mcnemar(*arguments)
