"""What a set of curves shows, whatever their noise."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcourse.diagnostics.curves import REMEDIES, read_curves, thinned
from dlcourse.training import History


def falling(start, end, n, speed=5.0):
    return [end + (start - end) * math.exp(-speed * i / (n - 1)) for i in range(n)]


def kinds(train, val=None, **accuracies):
    history = {"train_loss": train} | ({"val_loss": val} if val else {}) | accuracies
    return [reading.kind for reading in read_curves(history)]


N = 30
CASES = {
    "converged": (falling(2.3, 0.4, N, 8), falling(2.2, 0.45, N, 8), ["healthy"]),
    "converged_to_nothing": (falling(2.3, 0.001, N, 12), falling(2.2, 0.002, N, 12), ["healthy"]),
    "still_falling": (falling(2.3, 0.4, N, 2), falling(2.2, 0.6, N, 2), ["still-improving"]),
    "never_learned": ([2.303] * N, [2.303] * N, ["underfitting"]),
    "learned_little": (falling(2.3, 1.9, N, 12), falling(2.3, 1.92, N, 12), ["underfitting"]),
    "stuck_halfway": (falling(2.3, 1.2, N, 12), falling(2.3, 1.25, N, 12), ["plateau"]),
    "two_classes_never_learned": ([0.693] * N, [0.693] * N, ["underfitting"]),
    "fine_tuned": (falling(0.35, 0.3, N, 9), falling(0.36, 0.33, N, 9), ["healthy"]),
    "rises_in_validation": (
        falling(2.3, 0.05, N), [v + 0.03 * max(0, i - 8) for i, v in enumerate(falling(2.2, 0.7, N, 8))], ["overfitting"]
    ),
    "blows_up": (falling(2.3, 1.5, N)[:10] + [2.0 + 0.5 * i for i in range(10)], None, ["divergence"]),
    "explodes_at_once": ([2.3, 14.0, 90.0, 88.0, 95.0, 91.0], None, ["divergence"]),
    "jumps": ([v + (1.2 if i in (8, 15, 22) else 0) for i, v in enumerate(falling(2.3, 0.5, N, 8))], None, ["instability"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03])
@pytest.mark.parametrize("seed", range(5))
def test_each_kind_is_read_also_under_noise(case, noise, seed):
    train, val, expected = CASES[case]
    shaky = random.Random(seed)
    train, val = ([v * (1 + shaky.gauss(0, noise)) for v in curve] if curve else None for curve in (train, val))
    found = kinds(train, val)
    if expected == ["still-improving"] and noise:  # a slow fall may hide in the noise
        assert found in (expected, ["healthy"])
    else:
        assert found == expected


@pytest.mark.parametrize("case", [case for case in CASES if case != "still_falling"])
def test_under_noise_of_5_percent_seven_eighths_are_read_right(case):
    train, val, expected = CASES[case]
    right = 0
    for seed in range(80):
        shaky = random.Random(seed)
        noisy = ([v * (1 + shaky.gauss(0, 0.05)) for v in curve] if curve else None for curve in (train, val))
        right += kinds(*noisy) == expected
    assert right >= 70


@pytest.mark.parametrize("seed", range(5))
def test_the_noise_of_single_steps_is_no_instability(seed):
    shaky = random.Random(seed)
    steps = [v * (1 + 0.25 * shaky.gauss(0, 1)) for v in falling(2.3, 0.4, 1000, 8)]
    assert kinds(steps) == ["healthy"]


@pytest.mark.parametrize("train", [[2.3, 1.1, 0.7, 0.5, 0.4], [2.3, 0.9, 0.6, 0.45, 0.4]])
def test_a_healthy_run_of_five_epochs_is_not_slow(train):
    assert kinds(train, [v + 0.05 for v in train]) in (["still-improving"], ["healthy"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_read_first_and_named(value):
    [reading] = read_curves({"train_loss": [2.3, 2.0, 1.9], "val_loss": [2.3, value, 1.9]})
    assert reading.kind == "nan"
    assert reading.evidence == f"val_loss is {value} at point 2 of 3"
    assert kinds([2.3, value]) == ["nan"]


def test_the_accuracies_say_what_a_loss_cannot():
    flat, low = [0.9, 0.62, 0.61, 0.61, 0.61, 0.61], [0.35, 0.31, 0.3, 0.3, 0.3, 0.3]
    assert kinds(flat, train_accuracy=[0.9] * 6) == ["healthy"]
    assert kinds(flat, train_accuracy=[0.5] * 6) == ["underfitting"]
    assert kinds(low, train_accuracy=[0.5] * 6) == ["underfitting"]
    train = falling(2.3, 0.01, 10)
    [reading] = read_curves(
        {"train_loss": train, "val_loss": [v + 0.2 for v in train], "train_accuracy": [0.4, 0.99, 1.0], "val_accuracy": [0.4, 0.7, 0.7]}
    )
    assert reading.kind == "overfitting"
    assert reading.evidence == "train_accuracy ends 0.30 above val_accuracy"


def test_a_history_is_read_as_it_is():
    records = [{"epoch": i, "train_loss": t, "val_loss": t + 0.1, "learning_rate": 0.1} for i, t in enumerate(falling(2.3, 0.4, 20, 9))]
    [reading] = read_curves(History(records))
    assert reading.kind == "healthy"
    assert reading.remedy == REMEDIES["healthy"]
    assert "val_loss has fallen and come to rest" in reading.evidence


@given(st.lists(st.floats(0.0, 1e6), min_size=3, max_size=60), st.lists(st.floats(0.0, 1e6), max_size=60))
def test_any_finite_curves_get_a_reading(train, val):
    found = kinds(train, val)
    assert found
    assert set(found) <= set(REMEDIES)
    assert not {"healthy", "still-improving"} & set(found) or len(found) == 1


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=200))
def test_thinning_keeps_the_mean_of_equal_blocks(values):
    thin = thinned(values * 24)
    assert len(thin) == min(24, 24 * len(values))
    assert sum(thin) / len(thin) == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match='there is no "train_loss" .or "loss"., only \'val_loss\''):
        read_curves({"val_loss": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="only nothing"):
        read_curves({})
    with pytest.raises(ValueError, match=r"2 point\(s\) of the training loss say nothing; 3 are the least"):
        read_curves({"loss": [2.0, 1.0]})
