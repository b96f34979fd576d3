"""The norms are those of a plain training step, and the training looked at does not notice."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from watching import small_batch, small_net, trained, untouched

from dlcourse.diagnostics.gradient_flow import gradient_flow
from dlcourse.diagnostics.hooks import record_activations


def test_norms_total_and_updates_are_those_of_a_plain_step():
    model, batch = small_net(), small_batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    torch.manual_seed(3)
    flow = gradient_flow(model, batch, F.cross_entropy, optimizer)
    torch.manual_seed(3)
    before = copy.deepcopy(dict(model.named_parameters()))
    loss = F.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    total = nn.utils.clip_grad_norm_(model.parameters(), math.inf)
    optimizer.step()
    assert flow.loss == loss.item()
    assert flow.total == pytest.approx(total.item(), rel=1e-5)
    assert [p.name for p in flow.parameters] == list(before)
    for name, parameter in model.named_parameters():
        seen, weight = flow[name], before[name].detach()
        assert seen.shape == tuple(parameter.shape)
        assert seen.gradient == pytest.approx(parameter.grad.norm().item(), rel=1e-5)
        assert seen.weight == pytest.approx(weight.norm().item(), rel=1e-5)
        assert seen.update == pytest.approx((parameter - weight).norm().item(), rel=1e-3)
    assert flow["5.weight"].update_ratio == flow["5.weight"].update / flow["5.weight"].weight


def test_the_total_is_the_length_of_the_whole_gradient_not_the_sum_of_norms():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(3.0)
        model[1].weight.fill_(4.0)
    flow = gradient_flow(model, (torch.ones(1, 1), torch.zeros(1, 1)), lambda out, target: (out - target).sum())
    assert [p.gradient for p in flow.parameters] == [4.0, 3.0]
    assert flow.total == 5.0


def test_no_gradient_is_none_and_a_gradient_of_zeros_is_zero():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    with torch.no_grad():
        model[1].bias.fill_(-1e3)
    optimizer = torch.optim.SGD(model[1:].parameters(), lr=0.1)
    flow = gradient_flow(model, (torch.randn(5, 3), torch.arange(5) % 2), F.cross_entropy, optimizer)
    assert flow["0.weight"].gradient is None
    assert (flow["0.weight"].update, flow["1.weight"].update) == (0.0, 0.0)
    assert flow["1.weight"].gradient == 0.0
    assert flow["3.bias"].update > 0
    assert flow.total > 0


def test_an_update_ratio_needs_an_optimizer_and_a_weight():
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.bias)
    batch = torch.randn(5, 3), torch.arange(5) % 2
    assert gradient_flow(model, batch, F.cross_entropy)["weight"].update_ratio is None
    flow = gradient_flow(model, batch, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1))
    assert flow["bias"].update_ratio is None
    assert flow["bias"].update > 0


def test_large_gradients_do_not_overflow():
    model = nn.Linear(2, 1, bias=False)
    flow = gradient_flow(model, (torch.full((1, 2), 1e30), torch.zeros(1, 1)), lambda out, target: (out - target).sum())
    assert flow.total == pytest.approx(math.sqrt(2) * 1e30, rel=1e-5)


def test_the_table_has_a_row_a_parameter_and_nan_where_there_is_nothing():
    model = small_net()
    model[0].requires_grad_(False)
    table = gradient_flow(model, small_batch(), F.cross_entropy).table()
    assert list(table.index) == [name for name, _ in model.named_parameters()]
    assert list(table.columns) == ["shape", "gradient", "weight", "update", "update_ratio"]
    assert table.gradient.isna().sum() == 2
    assert table.update_ratio.isna().all()
    assert table.gradient["5.weight"] > 0


@pytest.mark.parametrize("of", ["loader", "batch"])
def test_nothing_is_changed(of):
    model, optimizer, loader = trained()
    batch = small_batch()
    copies = [part.clone() for part in batch]
    with untouched(model, optimizer, loader), torch.no_grad():
        gradient_flow(model, loader if of == "loader" else batch, F.cross_entropy, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(batch, copies, strict=True))


def test_a_model_that_writes_into_its_input_does_not_change_the_batch():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            x -= 5
            return self.fc(x)

    images = torch.ones(4, 3)
    gradient_flow(Writes(), (images, torch.arange(4) % 2), F.cross_entropy)
    assert torch.equal(images, torch.ones(4, 3))


def test_it_may_look_while_activations_are_recorded():
    model, batch = small_net(), small_batch()
    with record_activations(model) as record:
        gradient_flow(model, batch, F.cross_entropy)
    assert record == {}


def test_what_is_no_batch_is_refused():
    model = small_net()
    with pytest.raises(ValueError, match="the loader is empty: it gave no batch"):
        gradient_flow(model, [], F.cross_entropy)
    with pytest.raises(ValueError, match="a batch .inputs, targets. or a loader of such batches is needed, not int"):
        gradient_flow(model, 3, F.cross_entropy)
    with pytest.raises(ValueError, match="must be a pair of tensors"):
        gradient_flow(model, [torch.ones(3)], F.cross_entropy)
    with pytest.raises(KeyError, match="no parameter 'fc.weight'; there are 0.weight, 0.bias"):
        gradient_flow(model, small_batch(), F.cross_entropy)["fc.weight"]
