"""The range test finds a rate that learns, and leaves no trace."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from watching import assert_equal

from dlcourse.data import make_loader
from dlcourse.diagnostics import lr_range_test
from dlcourse.training import evaluate, train_one_epoch


class Noisy(TensorDataset):
    """Adds noise from torch's, NumPy's and Python's global generators, as augmentations do."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.1 * (torch.randn(()) + np.random.normal() + random.gauss(0, 1)), y  # noqa: NPY002


def data(size=300, kind=TensorDataset):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 1, 6, 6, generator=generator)
    return kind(x, (x.mean((1, 2, 3)) > 0).long() + 2 * (x.std((1, 2, 3)) > 1).long())


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(128, 32), nn.ReLU(),
        nn.Linear(32, 4),
    )  # fmt: skip


def sgd(model, rate=0.05):
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


def everything(model, optimizer, loader):
    np_state = np.random.get_state()  # noqa: NPY002
    generators = [loader.generator.get_state()] if loader.generator is not None else []
    return {
        "model": copy.deepcopy(model.state_dict()),
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "torch": torch.get_rng_state(),
        "numpy": (np_state[0], torch.from_numpy(np_state[1].astype(np.int64)), *np_state[2:]),
        "python": random.getstate(),
        "generators": generators,
    }


def shuffled():
    return DataLoader(data(kind=Noisy), 16, shuffle=True)


def with_a_generator():
    return DataLoader(data(kind=Noisy), 16, shuffle=True, generator=torch.Generator().manual_seed(5))


def of_the_course():
    return make_loader(data(kind=Noisy), 16, train=True)


@pytest.mark.parametrize("new_loader", [shuffled, with_a_generator, of_the_course])
@pytest.mark.parametrize("make_optimizer", [sgd, lambda model: torch.optim.AdamW(model.parameters(), lr=0.01)])
def test_everything_is_afterwards_as_it_was(new_loader, make_optimizer):
    model, loader = net(), new_loader()
    optimizer = make_optimizer(model)
    train_one_epoch(model, loader, F.cross_entropy, optimizer)  # momentum, buffers and modes that are not the first ones
    model[1].eval()
    next(model.parameters()).grad = torch.ones(8, 1, 3, 3)
    before = everything(model, optimizer, loader)
    assert len(lr_range_test(model, loader, F.cross_entropy, optimizer, steps=30).losses) > 10
    assert_equal(before, everything(model, optimizer, loader))
    assert_equal(next(iter(loader)), first_batch(new_loader, before))


def first_batch(new_loader, before):
    """The batch that the loader would have given without the test."""
    torch.set_rng_state(before["torch"])
    np.random.set_state((before["numpy"][0], before["numpy"][1].numpy().astype(np.uint32), *before["numpy"][2:]))  # noqa: NPY002
    random.setstate(before["python"])
    loader = new_loader()
    if before["generators"]:
        loader.generator.set_state(before["generators"][0])
    return next(iter(loader))


def test_a_training_after_the_test_is_the_training_without_it():
    losses = []
    for test_first in (False, True):
        model, loader = net(), shuffled()
        optimizer = sgd(model)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        if test_first:
            lr_range_test(model, loader, F.cross_entropy, optimizer)
        for _ in range(3):
            losses.append(train_one_epoch(model, loader, F.cross_entropy, optimizer)["loss"])
            scheduler.step()
    assert losses[:3] == losses[3:]


def test_an_error_leaves_everything_as_it_was():
    def fails(outputs, targets):
        raise RuntimeError("no loss")

    model, loader = net(), shuffled()
    optimizer = sgd(model)
    before = everything(model, optimizer, loader)
    with pytest.raises(RuntimeError, match="no loss"):
        lr_range_test(model, loader, fails, optimizer)
    assert_equal(before, everything(model, optimizer, loader))


def test_the_rates_rise_by_a_constant_factor_from_low_to_high():
    model = net()
    found = lr_range_test(model, shuffled(), F.cross_entropy, sgd(model), low=1e-5, high=1e-2, steps=31, stop_at=1e9)
    assert found.learning_rates == pytest.approx([10 ** (-5 + n / 10) for n in range(31)])
    assert len(found.losses) == 31


def test_it_stops_where_the_loss_diverges():
    model = net()
    found = lr_range_test(model, shuffled(), F.cross_entropy, sgd(model), low=1e-4, high=1e3, steps=200)
    assert len(found.losses) < 200
    assert all(loss <= 4 * min(found.losses[: i + 1]) for i, loss in enumerate(found.losses[:-1]))
    assert all(map(np.isfinite, found.losses))


def test_a_loss_that_is_not_finite_ends_it():
    model = nn.Linear(1, 1)
    loader = DataLoader(TensorDataset(torch.ones(8, 1), torch.ones(8, 1)), 4)
    found = lr_range_test(
        model, loader, lambda outputs, targets: (outputs - targets).square().mean() * torch.nan, sgd(model)
    )
    assert found == type(found)([], [], None)


@pytest.mark.parametrize("make_optimizer", [sgd, lambda m: torch.optim.SGD(m.parameters(), lr=0.1), lambda m: torch.optim.AdamW(m.parameters())])
def test_the_suggestion_learns_and_neither_a_hundredth_nor_thirty_times_does_as_well(make_optimizer):
    set_ = data(1200)
    model = net()
    found = lr_range_test(model, make_loader(set_, 32, train=True), F.cross_entropy, make_optimizer(model), low=1e-6)
    assert found.suggestion is not None
    assert found.suggestion in found.learning_rates
    losses = []
    for factor in (1.0, 0.01, 30.0):
        model = net()
        optimizer = make_optimizer(model)
        optimizer.param_groups[0]["lr"] = factor * found.suggestion
        for _ in range(3):
            train_one_epoch(model, make_loader(set_, 32, train=True), F.cross_entropy, optimizer)
        losses.append(evaluate(model, make_loader(set_, 500), F.cross_entropy)["loss"])
    assert losses[0] < 0.8 * min(losses[1:])


def test_there_is_no_suggestion_where_the_loss_never_falls():
    model = net()
    noise = TensorDataset(torch.zeros(64, 1, 6, 6), torch.zeros(64, dtype=torch.long))
    rising = lambda outputs, targets: -F.cross_entropy(outputs, targets) + 10  # noqa: E731  (falls without end)
    stuck = lr_range_test(model, DataLoader(noise, 8), lambda o, t: 0 * o.sum() + 1.0, sgd(model), steps=20)
    assert stuck.suggestion is None
    assert lr_range_test(model, DataLoader(noise, 8), rising, sgd(model), steps=20, high=0.1).suggestion is not None


def test_groups_keep_their_ratios_and_a_frozen_one_stays():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    groups = [{"params": part.parameters(), "lr": rate} for part, rate in zip(model, (0.1, 0.01, 0.0), strict=True)]
    optimizer, moved = torch.optim.SGD(groups), []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            moved.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    optimizer.__class__ = Spy
    loader = DataLoader(TensorDataset(torch.randn(20, 3), torch.randint(0, 2, (20,))), 5)
    found = lr_range_test(model, loader, F.cross_entropy, optimizer, steps=10, high=0.1)
    assert moved == [pytest.approx([rate, 0.1 * rate, 0.0]) for rate in found.learning_rates]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01, 0.0]


def test_rates_that_a_schedule_set_to_zero_are_no_obstacle():
    model = net()
    loader = make_loader(data(1200), 32, train=True)
    found = lr_range_test(model, loader, F.cross_entropy, sgd(model, rate=0.0))
    assert found == lr_range_test(model, loader, F.cross_entropy, sgd(model, rate=0.1))
    assert found.suggestion is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 1.0, "high": 0.1}, "low=1.0 and high=0.1 must satisfy 0 < low < high"),
        ({"low": 0.0}, "low=0.0 and high=10.0"),
        ({"high": float("inf")}, "high=inf"),
        ({"steps": 1}, "steps=1 must be at least 2"),
        ({"smoothing": 1.0}, "smoothing=1.0 must lie in 0 ≤ smoothing < 1"),
        ({"stop_at": 1.0}, "stop_at=1.0 be greater than 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    model = net()
    with pytest.raises(ValueError, match=message):
        lr_range_test(model, shuffled(), F.cross_entropy, sgd(model), **options)


def test_an_empty_loader_is_an_error():
    model = net()
    with pytest.raises(ValueError, match="the loader is empty: it gave no batch"):
        lr_range_test(model, [], F.cross_entropy, sgd(model))
