"""What the check of the exercise "repair a training step" (chapter 14) does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from dlcourse.exercises.checking import Answer, Mistake, compare


class _Probe(nn.Module):
    """A small network with batch norm that notes the mode of each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        return self.last(torch.relu(self.norm(self.first(x))))


LOSSES = {
    "": lambda outputs, labels: F.cross_entropy(outputs, labels),
    "takes a softmax before the loss, which takes one itself: cross_entropy wants the logits": (
        lambda outputs, labels: F.cross_entropy(outputs.softmax(1), labels)
    ),
    "sums the loss over the batch: the mean is asked for": (
        lambda outputs, labels: F.cross_entropy(outputs, labels, reduction="sum")
    ),
}
ZEROS = {
    "": "first",
    "never sets the gradients to zero: backward() adds to those of the steps before": "never",
}
CLIPS = {
    "": "all",
    "does not clip, or only after the step": "no",
    "clips after the step, when the gradients have done their work": "after the step",
    "clips before backward(): those are no gradients of this batch": "before backward",
    "clips each tensor on its own, which turns the gradient: one call for all parameters": "each",
    "clips each number (clip_grad_value_), which turns the gradient: clip the norm": "value",
}
STEPS = {"": "once", "changes nothing: optimizer.step() is missing, or the gradients are zero when it comes": "never", "steps before backward(): by the gradients of the batch before": "early"}


def _step(model: nn.Module, x: Tensor, y: Tensor, optimizer: Optimizer, max_norm: float, loss_fn: Any, zero: str, clip: str, step: str) -> None:
    def clipped() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)

    model.train()
    if zero == "first":
        optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    if step == "early":
        optimizer.step()
    if clip == "before backward":
        clipped()
    loss.backward()
    if clip == "all":
        clipped()
    elif clip == "each":
        for parameter in model.parameters():
            nn.utils.clip_grad_norm_([parameter], max_norm)
    elif clip == "value":
        nn.utils.clip_grad_value_(model.parameters(), max_norm)
    if step == "once":
        optimizer.step()
    if clip == "after the step":
        clipped()


def check(answer: Answer, training_step: Callable[..., Any]) -> str:
    start = _Probe().double()
    batches = [(3 * torch.randn(8, 4, dtype=torch.float64), torch.randint(3, (8,))) for _ in range(3)]
    for make, max_norm in ((_sgd, 0.3), (_sgd, 100.0), (_adam, 0.3)):
        losses: list[Any] = []

        def run(step: Any, make: Any = make, losses: list[Any] = losses) -> tuple[_Probe, list[Tensor]]:
            model = copy.deepcopy(start)
            model.eval()
            optimizer = make(model.parameters())
            losses[:] = [step(model, x, y, optimizer) for x, y in batches]
            return model, [p.detach() for p in model.parameters()]

        def planned(plan: tuple[tuple[str, Any], ...], run: Any = run, max_norm: float = max_norm) -> list[Tensor]:
            ways = [way for _, way in plan]
            return run(lambda m, x, y, o: _step(m, x, y, o, max_norm, *ways))[1]

        given = f"three steps with {'Adam' if make is _adam else 'SGD'}, max_norm={max_norm}, on a model in eval mode"
        model, weights = run(lambda m, x, y, o, max_norm=max_norm: answer(m, x, y, o, max_norm))
        got = list(losses)
        if not all(model.modes):
            raise Mistake(f"Given {given}, the forward pass ran in eval mode: call model.train() first.")
        if not model.modes:
            raise Mistake(f"Given {given}, it never calls the model.")
        if len(model.modes) != len(batches):
            raise Mistake(f"Given {given}, the model ran {len(model.modes)} times: once a step is enough.")
        wrong = {
            "; and it ".join(fault for fault, _ in plan if fault): (lambda plan=plan: planned(plan))
            for plan in sorted(product(*(table.items() for table in (LOSSES, ZEROS, CLIPS, STEPS))), key=_faults)
            if _faults(plan)
        }
        _, want = run(lambda m, x, y, o, max_norm=max_norm: training_step(m, x, y, o, max_norm))
        want_losses = list(losses)
        compare(weights, want, given=given, mistakes=wrong, what="the weights afterwards")
        if any(isinstance(loss, Tensor) and loss.requires_grad for loss in got):
            raise Mistake("It returns the loss with its graph attached, which keeps all activations alive: loss.item().")
        compare(got, want_losses, given=given, what="the list of the losses", mistakes={
            "sums the loss it returns: the mean is asked for": [len(batches[0][1]) * loss for loss in want_losses],
        })  # fmt: skip
    return "weights and losses of three steps equal to a right loop's, with two optimizers, clipped and not, from eval mode"


def _faults(plan: tuple[tuple[str, Any], ...]) -> int:
    return sum(bool(fault) for fault, _ in plan)


def _sgd(parameters: Any) -> Optimizer:
    return torch.optim.SGD(parameters, lr=0.5)


def _adam(parameters: Any) -> Optimizer:
    return torch.optim.Adam(parameters, lr=0.1)
