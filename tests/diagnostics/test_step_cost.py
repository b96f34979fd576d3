"""The parts of a step are timed on a copy, and a slow part is found."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from watching import small_batch, small_net, trained, untouched

from dlcourse.diagnostics.memory import memory_account
from dlcourse.diagnostics.step_cost import step_cost


class Slow(torch.autograd.Function):
    """Waits in the forward or in the backward pass."""

    @staticmethod
    def forward(ctx, x, forward, backward):
        time.sleep(forward)
        ctx.wait = backward
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        time.sleep(ctx.wait)
        return grad, None, None


class Waiting(nn.Module):
    def __init__(self, forward=0.0, backward=0.0):
        super().__init__()
        self.fc, self.waits = nn.Linear(3, 2), (forward, backward)

    def forward(self, x):
        return Slow.apply(self.fc(x), *self.waits) if type(x) is torch.Tensor else self.fc(x)  # not for the stand-ins


BATCH = torch.randn(4, 3), torch.arange(4) % 2


@pytest.mark.parametrize(("waits", "slowest"), [((0.02, 0.0), "forward"), ((0.0, 0.02), "backward")])
def test_the_slow_pass_is_found(waits, slowest):
    model = Waiting(*waits)
    cost = step_cost(model, BATCH, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1), rounds=2)
    assert cost.slowest == slowest
    assert cost.seconds[slowest] >= 0.02
    assert cost.loading is None
    assert cost.total == pytest.approx(cost.forward + cost.backward + cost.step)


def test_a_slow_optimizer_and_a_slow_loader_are_found():
    class SlowSGD(torch.optim.SGD):
        def step(self, closure=None):
            time.sleep(0.02)
            return super().step(closure)

    class SlowLoader:
        def __iter__(self):
            for _ in range(2):  # fewer than the rounds: it begins again
                time.sleep(0.02)
                yield BATCH

    model = Waiting()
    assert step_cost(model, BATCH, F.cross_entropy, SlowSGD(model.parameters(), lr=0.1), rounds=2).slowest == "step"
    cost = step_cost(model, SlowLoader(), F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1))
    assert cost.slowest == "loading"
    assert list(cost.seconds) == ["loading", "forward", "backward", "step"]


def test_the_memory_is_the_account_of_the_step():
    model, batch = small_net(), small_batch()
    optimizer = torch.optim.AdamW(model.parameters())
    assert step_cost(model, batch, F.cross_entropy, optimizer, rounds=1).memory == memory_account(model, batch[0], optimizer)


@pytest.mark.parametrize("of", ["loader", "batch"])
def test_nothing_is_changed(of):
    model, optimizer, loader = trained()
    with untouched(model, optimizer, loader):
        step_cost(model, loader if of == "loader" else small_batch(), F.cross_entropy, optimizer, rounds=2)


def test_wrong_input_is_refused():
    model = small_net()
    with pytest.raises(ValueError, match="rounds=0 must be at least 1"):
        step_cost(model, small_batch(), F.cross_entropy, rounds=0)
    with pytest.raises(ValueError, match="the loader is empty: it gave no batch"):
        step_cost(model, [], F.cross_entropy)
