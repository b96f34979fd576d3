"""A network that can learn learns one batch by heart, one that cannot does not, and neither is changed by the test."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from watching import small_batch, small_net, trained, untouched

from dlcourse.diagnostics.overfit import overfit_one_batch


def test_a_small_network_learns_a_batch_in_spite_of_its_dropout_and_stops_early():
    result = overfit_one_batch(small_net(), small_batch(), F.cross_entropy, steps=400)
    assert result.succeeded
    assert result.accuracies[-1] == 1
    assert len(result.losses) == len(result.accuracies) < 400
    assert result.losses[-1] <= 0.05 * result.losses[0]


def test_the_given_optimizer_trains_the_copy():
    model, batch = small_net(), small_batch()
    slow = overfit_one_batch(model, batch, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=1e-6), steps=20)
    fast = overfit_one_batch(model, batch, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.3), steps=20)
    assert not slow.succeeded
    assert fast.losses[-1] < 0.5 * slow.losses[-1]


def test_a_network_whose_units_are_dead_does_not_succeed():
    model = small_net()
    with torch.no_grad():
        model[1].bias.fill_(-1e3)
    result = overfit_one_batch(model, small_batch(), F.cross_entropy, steps=30)
    assert not result.succeeded
    assert len(result.losses) == 30


def test_regression_has_no_accuracies_and_succeeds_at_a_twentieth_of_the_loss():
    torch.manual_seed(0)
    x = torch.randn(16, 3)
    batch = x, x @ torch.tensor([[1.0], [-2.0], [0.5]])
    model = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    result = overfit_one_batch(model, batch, F.mse_loss, optimizer, steps=300)
    assert result.succeeded
    assert result.accuracies is None
    assert result.losses[-1] <= 0.05 * result.losses[0]
    assert not overfit_one_batch(model, batch, F.mse_loss, optimizer, steps=3).succeeded


def test_a_loss_that_becomes_nan_ends_it_without_success():
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)
    result = overfit_one_batch(model, (torch.ones(4, 3), torch.ones(4, 1)), F.mse_loss, optimizer)
    assert not result.succeeded
    assert math.isnan(result.losses[-1])
    assert len(result.losses) < 100


@pytest.mark.parametrize("given", [True, False])
def test_nothing_is_changed(given):
    model, optimizer, loader = trained()
    with untouched(model, optimizer, loader):
        overfit_one_batch(model, loader, F.cross_entropy, optimizer if given else None, steps=5)


def test_dropout_is_off_and_a_batch_norm_frozen_on_purpose_stays_frozen():
    modes = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net()
            self.net[1].requires_grad_(False)

        def forward(self, x):
            modes.append([module.training for module in self.net])
            return self.net(x)

    overfit_one_batch(Watched(), small_batch(), F.cross_entropy, steps=2)
    assert modes == [[True, False, True, False, True, True]] * 2


def test_a_model_that_writes_into_its_input_meets_the_same_batch_at_each_step():
    seen = []

    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            seen.append(x.clone())
            x -= 5
            return self.fc(x)

    images = torch.randn(4, 3)
    overfit_one_batch(Writes(), (images, torch.arange(4) % 2), F.cross_entropy, steps=3)
    assert all(torch.equal(x, images) for x in seen)


def test_fewer_than_one_step_is_refused():
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        overfit_one_batch(small_net(), small_batch(), F.cross_entropy, steps=0)
