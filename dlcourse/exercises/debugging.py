"""Exercises on debugging (chapter 14): three instruments, and two patients to repair."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from dlcourse.exercises import _debugging_gradients, _debugging_network, _debugging_step, _debugging_units
from dlcourse.exercises.checking import Answer
from dlcourse.exercises.registry import register

LossFunction = Callable[[Tensor, Tensor], Tensor]


def gradient_norm(model: nn.Module, inputs: Tensor, targets: Tensor, loss_fn: LossFunction) -> float:
    """The L2 norm of the gradient of all parameters together, in train mode; the model stays as it was."""
    model = copy.deepcopy(model).train()
    model.zero_grad()
    loss_fn(model(inputs), targets).backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat(gradients).norm().item()


def check_gradient_norm(answer: Answer) -> str:
    return _debugging_gradients.check_gradient_norm(answer, gradient_norm)


register(
    "debugging.gradient_norm",
    gradient_norm,
    check_gradient_norm,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "All gradients laid end to end are one vector; its length is asked for. And what does a forward and backward pass leave "
        "behind in a model?",
        "copy.deepcopy(model) takes the traces. A parameter that is frozen or unused has .grad None.",
        "model = copy.deepcopy(model).train(); model.zero_grad(); backward; "
        "torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item().",
    ),
)


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients by one factor so that together they are at most `max_norm` long; returns the norm before."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    if total > max_norm:
        for gradient in gradients:
            gradient.mul_(max_norm / total)
    return total.item()


def check_clip_gradients(answer: Answer) -> str:
    return _debugging_gradients.check_clip_gradients(answer)


register(
    "debugging.clip_gradients",
    clip_gradients,
    check_clip_gradients,
    difficulty=2,
    importance=5,
    minutes=10,
    hints=(
        "Clipping may shorten the gradient but must not turn it. So how many factors are there?",
        "First the norm of all gradients together, then, if it is above max_norm, every gradient times max_norm / norm. "
        "`parameters` may be a generator: make a list of the gradients first.",
        "gradients = [p.grad for p in parameters if p.grad is not None]; total = torch.cat([g.flatten() for g in gradients]).norm(); "
        "g.mul_(max_norm / total) for each if total > max_norm; return total.item().",
    ),
)


def dead_units(model: nn.Module, layer: nn.Module, images: Tensor) -> list[int]:
    """The units of `layer`, a part of `model`, that give 0 for every image, and at every position.

    The layer gives (B, C, H, W) or (B, D). The model runs once, in the modes it is in, and keeps no hook.
    """
    dead: list[int] = []

    def look(module: nn.Module, inputs: Any, output: Tensor) -> None:
        alive = (output != 0).transpose(0, 1).flatten(1).any(dim=1)  # (B, C, H, W) or (B, D) -> (units,)
        dead.extend((~alive).nonzero().flatten().tolist())

    handle = layer.register_forward_hook(look)
    try:
        with torch.no_grad():
            model(images)
    finally:
        handle.remove()
    return dead


def check_dead_units(answer: Answer) -> str:
    return _debugging_units.check(answer, dead_units)


register(
    "debugging.dead_units",
    dead_units,
    check_dead_units,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "register_forward_hook(function) calls function(module, inputs, output) after each pass of the layer. When is the output still "
        "what the layer gave?",
        "Look inside the hook, since the next layer may write over its input. A unit is axis 1; it is alive if any value of it is not 0.",
        "alive = (output != 0).transpose(0, 1).flatten(1).any(dim=1); handle = layer.register_forward_hook(look); run the model under "
        "torch.no_grad() in a `try`, handle.remove() in its `finally`.",
    ),
)


def training_step(model: nn.Module, images: Tensor, labels: Tensor, optimizer: Optimizer, max_norm: float) -> float:
    """One update in train mode, the gradient of all parameters clipped to `max_norm`; returns the mean loss before it."""
    model.train()
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss.item()


def check_training_step(answer: Answer) -> str:
    return _debugging_step.check(answer, training_step)


register(
    "debugging.training_step",
    training_step,
    check_training_step,
    difficulty=2,
    importance=5,
    minutes=10,
    hints=(
        "Ask of each line: is it there, is it right, and is it at its place? The order is mode, zero, forward, loss, backward, clip, step.",
        "Five faults: the mode, the zeroing, what the loss gets, where and how the gradient is clipped, what is returned.",
        "model.train(); optimizer.zero_grad(); loss = F.cross_entropy(model(images), labels); loss.backward(); "
        "nn.utils.clip_grad_norm_(model.parameters(), max_norm); optimizer.step(); return loss.item().",
    ),
)


class SmallNet(nn.Module):
    """Images (B, H, W, 3) with values 0 … 255 -> logits (B, classes)."""

    def __init__(self, channels: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(blocks))
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images / 127.5 - 1  # to −1 … 1, in a new tensor
        x = self.stem(x.permute(0, 3, 1, 2))  # (B, H, W, 3) -> (B, channels, H, W)
        for block in self.blocks:
            x = x + F.relu(block(x))
        x = F.dropout(x.mean(dim=(2, 3)), 0.5, training=self.training)  # -> (B, channels)
        return self.head(x)


def check_network(answer: Answer) -> str:
    return _debugging_network.check(answer, SmallNet)


register(
    "debugging.network",
    SmallNet,
    check_network,
    difficulty=3,
    importance=5,
    minutes=15,
    hints=(
        "Ask of each line what it does to the input, to the order of the numbers, to the graph, and in eval mode.",
        "Six faults: an operation in place, a reshape, a plain list, a cut graph, a dropout that never rests, an output for which "
        "cross-entropy has no use.",
        "images / 127.5 - 1; permute(0, 3, 1, 2); nn.ModuleList; no .detach(); F.dropout(…, training=self.training); return the logits.",
    ),
)
