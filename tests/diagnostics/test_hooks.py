"""What the hooks record is what the layers gave out; afterwards there is no hook and no tensor left."""

import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from watching import small_batch, small_net, trained, untouched

from dlcourse.diagnostics.hooks import activation_stats, dead_share, record_activations


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_numbers_are_those_of_the_outputs_in_the_order_in_which_they_ran():
    model, (images, _) = small_net().eval(), small_batch()
    with record_activations(model) as record:
        outputs = model(images)
    assert list(record) == ["0", "1", "2", "3", "4", "5"]
    assert [stats.kind for stats in record.values()] == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout", "Flatten", "Linear"]
    convolved = model[0](images)
    assert record["0"].shape == tuple(convolved.shape)
    assert record["0"].mean == pytest.approx(convolved.mean().item(), abs=1e-6)
    assert record["0"].std == pytest.approx(convolved.std(correction=0).item(), rel=1e-5)
    assert record["5"].rms == pytest.approx(outputs.square().mean().sqrt().item(), rel=1e-5)
    assert all(stats.finite for stats in record.values())


@given(st.sampled_from([(6, 5), (6, 4, 5), (6, 5, 3, 2), (6, 5, 2, 2, 2)]), st.sets(st.integers(0, 4)), st.integers(0, 99))
def test_a_unit_is_dead_where_it_is_zero_for_every_sample_and_position(shape, dead, seed):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).abs() + 0.1
    axis = 2 if len(shape) == 3 else 1
    for unit in dead:
        values.select(axis, unit).zero_()
    values.flatten()[torch.randperm(values.numel())[: values.numel() // 8]] = 0.0  # single zeros make no dead unit
    expected = sum((values.select(axis, u) == 0).all().item() for u in range(5)) / 5
    assert dead_share(values).item() == pytest.approx(expected)


def test_negative_biases_kill_the_units_behind_a_relu():
    model, (images, _) = small_net().eval(), small_batch()
    with torch.no_grad():
        model[1].bias[:6] = -1e3
    with record_activations(model) as record:
        model(images)
    assert record["2"].dead == pytest.approx(6 / 8)
    assert record["1"].dead == 0


@pytest.mark.parametrize(
    ("module", "values", "share"),
    [
        (nn.Sigmoid(), [-9.0, 0.0, 1.0, 9.0], 0.5),
        (nn.Tanh(), [-9.0, 0.0, 1.0, 1.0], 0.25),
        (nn.Hardtanh(-2.0, 2.0), [-3.0, 1.9, 1.97, 0.0], 0.5),
        (nn.Hardsigmoid(), [-3.0, 3.0, 0.0, 1.0], 0.5),
        (nn.ReLU6(), [-3.0, 7.0, 0.0, 1.0], None),
        (nn.ReLU(), [-3.0, 7.0, 0.0, 1.0], None),
    ],
)
def test_saturated_is_within_a_hundredth_of_the_range_of_a_bound(module, values, share):
    assert activation_stats(module, module(torch.tensor([values]))).saturated == share


def test_each_forward_pass_fills_it_anew_and_a_module_used_twice_has_two_entries():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.relu = nn.Linear(3, 3), nn.ReLU()

        def forward(self, x):
            return self.relu(self.fc(self.relu(x)))

    model = Twice()
    with record_activations(model) as record:
        for size in (2, 5):
            model(torch.randn(size, 3))
            assert list(record) == ["relu", "fc", "relu (2)"]
            assert {stats.shape for stats in record.values()} == {(size, 3)}


def test_a_model_that_is_one_layer_has_one_entry():
    with record_activations(nn.Linear(3, 2)) as record:
        assert record == {}
    layer = nn.Linear(3, 2)
    with record_activations(layer) as record:
        layer(torch.randn(4, 3))
    assert list(record) == [""]


def test_outputs_of_other_kinds_are_left_out_and_of_a_tuple_the_first_tensor_counts():
    class Odd(nn.Module):
        def forward(self, x):
            return {"labels": x.long(), "scores": (x, 2 * x)}

    model = nn.Sequential(nn.Identity(), Odd())
    with record_activations(model) as record:
        model(torch.ones(2, 3))
    assert record["1"].mean == 1
    assert activation_stats(model, torch.zeros(3, dtype=torch.long)) is None
    assert activation_stats(model, torch.zeros(0, 3)) is None
    assert activation_stats(model, torch.tensor(2.0)).mean == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_said(value):
    assert not activation_stats(nn.ReLU(), torch.tensor([[1.0, value]])).finite


def test_half_precision_does_not_overflow():
    assert activation_stats(nn.ReLU(), torch.full((2, 3), 60_000, dtype=torch.float16)).rms == pytest.approx(60_000, rel=0.01)


@pytest.mark.parametrize("fails", [False, True])
def test_the_hooks_go_also_after_an_error(fails):
    model = small_net()
    images = torch.randn(2, 7) if fails else small_batch()[0]
    try:
        with record_activations(model) as record:
            assert hooks(model) == 7
            model(images)
    except (RuntimeError, ValueError):
        assert fails
    assert hooks(model) == 0
    size = len(record)
    model(small_batch()[0])
    assert len(record) == size


def test_nothing_is_changed_and_no_tensor_stays_alive():
    model, optimizer, loader = trained()
    images, _ = small_batch()
    with untouched(model.eval(), optimizer, loader), record_activations(model) as record:
        outputs = model(images)
    alive = weakref.ref(outputs)
    assert outputs.requires_grad
    del outputs
    gc.collect()
    assert alive() is None
    assert record["5"].shape == (32, 4)
