"""Activation checkpointing: the same step with less kept."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.models import create_model
from dlcourse.training import Trainer, TrainerConfig, checkpoint_activations, evaluate

IMAGES = torch.rand(6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6)


class Branch(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        return x + self.drop(self.norm(self.conv(x)).relu())


def net() -> nn.Module:
    torch.manual_seed(0)
    parts = {"stem": Branch(3), "blocks": nn.Sequential(Branch(3), Branch(3)), "flat": nn.Flatten()}
    model = nn.Sequential()
    for name, part in {**parts, "head": nn.Linear(3 * 16 * 16, 10)}.items():
        model.add_module(name, part)
    return model.double()


def step(model: nn.Module) -> tuple[torch.Tensor, list[torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(1)  # the dropout of both
    output = model.train()(IMAGES)
    F.cross_entropy(output, LABELS).backward()
    return output.detach(), [p.grad for p in model.parameters()], model.state_dict()


def kept(model: nn.Module) -> int:
    total = 0

    def count(tensor):
        nonlocal total
        total += tensor.nbytes
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model.train()(IMAGES)
    return total


@pytest.mark.parametrize("blocks", [("stem",), ("blocks",), ("stem", "blocks.1"), ("stem", "blocks")])
def test_outputs_gradients_and_running_statistics_are_the_same(blocks):
    plain, lean = net(), net()
    checkpoint_activations(lean, *blocks)
    (output, gradients, state), (lean_output, lean_gradients, lean_state) = step(plain), step(lean)
    assert torch.equal(output, lean_output)
    assert all(torch.equal(a, b) for a, b in zip(gradients, lean_gradients, strict=True))
    assert state.keys() == lean_state.keys()
    assert all(torch.equal(value, lean_state[name]) for name, value in state.items())


def test_it_keeps_less_and_names_what_it_wrapped():
    lean = net()
    assert checkpoint_activations(lean, "stem", "blocks") == ["stem", "blocks.0", "blocks.1"]
    assert kept(lean) < 0.4 * kept(net())


def test_in_eval_mode_nothing_is_recomputed():
    model, calls = net(), []
    checkpoint_activations(model, "blocks")
    model.blocks[0].conv.register_forward_hook(lambda *_: calls.append(1))
    model.eval()(IMAGES).sum().backward()
    assert len(calls) == 1
    model.train()(IMAGES).sum().backward()
    assert len(calls) == 3  # forward, and again for the backward pass


def test_a_copy_checkpoints_its_own_blocks():
    model = net()
    checkpoint_activations(model, "blocks")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin.eval()(IMAGES).any()  # the copied forward uses the copy's weights
    assert model.eval()(IMAGES).any()


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_it_trains_in_the_trainer_as_without(amp):
    images, data = torch.rand(24, 3, 16, 16), []
    data = [(images[i : i + 8], torch.arange(8) % 4) for i in (0, 8, 16)]
    losses = []
    for lean in (False, True):
        torch.manual_seed(0)
        model = create_model("resnet18", 4, stem="cifar")
        if lean:
            checkpoint_activations(model, "layer1", "layer3")
        config = TrainerConfig(epochs=1, amp=amp, restore_best=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        Trainer(model, optimizer, F.cross_entropy, config=config, device="cpu").fit(data, data)
        losses.append(evaluate(model, data, F.cross_entropy)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_name_that_the_model_does_not_have():
    for name in ("layer9", ""):
        with pytest.raises(ValueError, match=rf"Sequential has no module '{name}'; its parts: stem, blocks, flat, head"):
            checkpoint_activations(net(), name)
