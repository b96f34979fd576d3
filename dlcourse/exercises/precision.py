"""Exercises on mixed precision and memory (chapter 13): rounding to bf16, loss scaling, gradient accumulation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlcourse.exercises import _precision_accumulate, _precision_rounding, _precision_scaling
from dlcourse.exercises.checking import Answer
from dlcourse.exercises.registry import register

Batches = Iterable[tuple[Tensor, Tensor]]


def round_to_bf16(x: Tensor) -> Tensor:
    """x (float32, any shape) with each number replaced by the nearest bf16, ties to even; the result is float32."""
    bits = x.view(torch.int32)
    last_kept = (bits >> 16) & 1
    rounded = (bits + 0x7FFF + last_kept) & ~0xFFFF  # more than half a step carries; half a step only where the end is odd
    return torch.where(x.isnan(), x, rounded.view(torch.float32))


def check_round_to_bf16(answer: Answer) -> str:
    return _precision_rounding.check(answer)


register(
    "precision.round_to_bf16",
    round_to_bf16,
    check_round_to_bf16,
    difficulty=4,
    importance=3,
    minutes=20,
    hints=(
        "bf16 is the upper half of a float32. Which whole number do you add to x.view(torch.int32) before you clear the lower "
        "16 bits, so that more than half a step carries into the upper half?",
        "Adding 0x8000 carries from half a step on, also where the end would be odd. Add 0x7FFF, and one more where the last "
        "kept bit, (bits >> 16) & 1, is 1.",
        "A NaN whose payload sits in the lower bits would become infinite: torch.where(x.isnan(), x, …). Clear the lower bits "
        "with & ~0xFFFF, and look at the result as .view(torch.float32).",
    ),
)


def loss_scaling_step(loss: Tensor, optimizer: Optimizer, scale: float) -> float:
    """One step with the loss multiplied by `scale`, skipped when a gradient is not finite; returns the next scale."""
    (loss * scale).backward()
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for gradient in gradients:
        gradient /= scale
    finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
    if finite:
        optimizer.step()
    optimizer.zero_grad()
    return scale if finite else scale / 2


def check_loss_scaling_step(answer: Answer) -> str:
    return _precision_scaling.check(answer, loss_scaling_step)


register(
    "precision.loss_scaling_step",
    loss_scaling_step,
    check_loss_scaling_step,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "The order: scale the loss, backward, unscale the gradients, look at them, step or not, clear them.",
        "Go through optimizer.param_groups and pass over parameters whose grad is None. One infinite or NaN number in any of "
        "them stops the whole step.",
        "finite = all(p.grad.isfinite().all() for p in parameters). Return scale after a step and scale / 2 after a skipped "
        "one; zero_grad() in both cases.",
    ),
)


def accumulate(
    model: nn.Module, batches: Batches, loss_fn: Callable[[Tensor, Tensor], Tensor], optimizer: Optimizer, k: int
) -> int:
    """Train on every batch once, with one step for each window of `k` batches; returns the number of steps."""
    optimizer.zero_grad()
    rest, updates = iter(batches), 0
    while window := list(islice(rest, k)):
        samples = sum(len(targets) for _, targets in window)
        for inputs, targets in window:
            (loss_fn(model(inputs), targets) * len(targets) / samples).backward()
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
    return updates


def check_accumulate(answer: Answer) -> str:
    return _precision_accumulate.check(answer, accumulate)


register(
    "precision.accumulate",
    accumulate,
    check_accumulate,
    difficulty=3,
    importance=5,
    minutes=15,
    hints=(
        "Take the batches of a window first, so that you know how many samples it holds before its first backward().",
        "list(islice(iterator, k)) takes up to k batches and gives an empty list at the end. The loss of a batch counts by its "
        "share of the window's samples.",
        "For each batch of the window: (loss * len(targets) / samples).backward(). Then step and zero_grad, also for the "
        "short window at the end; and one zero_grad before the first.",
    ),
)
