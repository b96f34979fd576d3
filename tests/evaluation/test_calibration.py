"""Calibration against cases worked by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import nn

from dlcourse.evaluation import TemperatureScaling, expected_calibration_error, fit_temperature, reliability_table

# Five answers: 0.95 right, 0.85 wrong, 0.81 right, 0.60 (an upper edge, so of the bin below) right, 0.55 wrong.
SURE = np.array([0.95, 0.85, 0.81, 0.60, 0.55])
BY_HAND = np.stack([SURE, 1 - SURE], axis=1), np.array([0, 1, 0, 0, 1])


def test_a_table_and_its_error_by_hand():
    table = reliability_table(*BY_HAND, bins=5)
    assert table.lower == pytest.approx([0.4, 0.8])
    assert table.upper == pytest.approx([0.6, 1.0])
    assert table.count.tolist() == [2, 3]
    assert table.confidence == pytest.approx([0.575, 0.87])
    assert table.accuracy == pytest.approx([1 / 2, 2 / 3])
    error = 2 / 5 * (0.575 - 1 / 2) + 3 / 5 * (0.87 - 2 / 3)
    assert expected_calibration_error(*BY_HAND, bins=5) == pytest.approx(error, abs=1e-15)
    assert expected_calibration_error(*BY_HAND, bins=1) == pytest.approx(abs(SURE.mean() - 3 / 5))


def test_extremes():
    sure = np.eye(3)[[0, 1, 2]]
    assert expected_calibration_error(sure, [0, 1, 2]) == 0
    assert expected_calibration_error(sure, [1, 2, 0]) == 1
    assert expected_calibration_error(torch.full((4, 4), 0.25), torch.arange(4)) == 0  # a quarter sure, a quarter right


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_the_error_is_the_sum_that_guo_writes(seed, bins):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(4), size=50)
    labels = generator.integers(4, size=50)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            total += inside.sum() / 50 * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(total, abs=1e-12)


def test_a_temperature_by_hand():
    """Always logits (2, 0), right three times of four: the best probability is 3/4, so 2 / T = ln 3."""
    logits = torch.tensor([[2.0, 0.0]]).repeat(4, 1)
    assert fit_temperature(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(2 / math.log(3), rel=1e-12)
    assert fit_temperature(logits + 1000, torch.tensor([0, 0, 0, 1])) == pytest.approx(2 / math.log(3), rel=1e-6)


@given(st.integers(0, 10_000))
def test_the_temperature_is_where_scipy_finds_the_smallest_loss(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(60, 5, generator=generator, dtype=torch.float64)
    labels = torch.where(torch.rand(60, generator=generator) < 0.5, logits.argmax(1), 0)

    def loss(log_t):
        return nn.functional.cross_entropy(logits / math.exp(log_t), labels).item()

    found = minimize_scalar(loss, bounds=(math.log(0.01), math.log(100)), method="bounded", options={"xatol": 1e-9})
    ours = fit_temperature(logits, labels)
    assert loss(math.log(ours)) <= found.fun + 1e-9
    assert ours == pytest.approx(math.exp(found.x), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_all_right_all_wrong_and_nothing_said_give_a_finite_temperature(scale):
    logits = scale * torch.eye(3)
    assert fit_temperature(logits, torch.arange(3)) == pytest.approx(0.01)
    assert fit_temperature(logits, (torch.arange(3) + 1) % 3) == pytest.approx(100)
    assert fit_temperature(torch.full((3, 3), scale), torch.arange(3)) == 1.0


def test_scaling_mends_an_overconfident_model_and_keeps_its_answers():
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator)[:, 0]
    overconfident = 2.5 * honest
    temperature = fit_temperature(overconfident[:2000], labels[:2000])
    assert temperature == pytest.approx(2.5, rel=0.1)
    model = TemperatureScaling(nn.Identity(), temperature)
    answers = model(overconfident[2000:])
    assert torch.equal(answers.argmax(1), overconfident[2000:].argmax(1))
    before = expected_calibration_error(overconfident[2000:].softmax(1), labels[2000:])
    assert expected_calibration_error(answers.softmax(1), labels[2000:]) < 0.3 * before
    assert model.state_dict()["temperature"].item() == pytest.approx(temperature)


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins", "message"),
    [
        (np.full((2, 2), 0.4), [0, 1], 15, "sum to 1 in each row; row 0 sums to 0.8"),
        ([[1.2, -0.2]], [0], 15, r"outside \[0, 1\]"),
        ([[np.nan, 0.5]], [0], 15, "1 NaN of 2"),
        ([0.5, 0.5], [0, 1], 15, r"shape \(N, K\) with K ≥ 2, not \(2,\)"),
        (np.empty((0, 3)), [], 15, "probabilities is empty"),
        ([[0.5, 0.5]], [2], 15, "labels run from 2 to 2, outside 0 … 1"),
        ([[0.5, 0.5]], [0, 1], 15, "1 rows of probabilities for 2 labels"),
        ([[0.5, 0.5]], [0], 0, "bins=0 must be at least 1"),
    ],
)
def test_what_is_no_probability_is_refused(probabilities, labels, bins, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(probabilities, labels, bins)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(3), [0], r"logits must have shape \(N, K\)"),
        (torch.zeros(3, 2), [0], "one row for each of 1 labels"),
        (torch.full((1, 2), torch.inf), [0], "logits must be finite"),
        (torch.zeros(1, 2), [2], "outside 0 … 1"),
    ],
)
def test_a_temperature_needs_finite_logits_and_their_labels(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_a_temperature_is_a_positive_number(temperature):
    with pytest.raises(ValueError, match=f"temperature={temperature} must be a positive number"):
        TemperatureScaling(nn.Identity(), temperature)
