"""The training loop and the evaluation loop: what `Trainer` runs too.

A step of the optimizer goes over a *window* of one or more batches (gradient accumulation, `accumulate`): each batch
adds the gradient of its loss times its share of the window's samples, so that the sum is the mean gradient over all of
them, also when the last batch or the last window is short. The order inside a step:

    autocast → divide the loss → scaled backward → unscale → clip → step → update → zero

Losses and accuracies are means over samples. They are summed from values that stay on the device; the training step
reads them once, after the backward pass is queued, because a loss that is not finite must be found *before* the step
is applied. That one read a step is the only place where the loop waits for a GPU.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlcourse.runtime import progress
from dlcourse.training.batches import Means, are_labels, check_labels, set_epoch, unpack, windows

LossFunction = Callable[[Tensor, Tensor], Tensor]
AMP_DTYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class NonFiniteLoss(RuntimeError):
    """A loss that is NaN or infinite. The step it belongs to was not applied: the weights are those before it."""


def train_one_epoch(
    model: nn.Module,
    loader: Iterable[Any],
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    *,
    accumulate: int = 1,
    clip_norm: float | None = None,
    amp: str = "off",
    scaler: torch.amp.GradScaler | None = None,
    epoch: int | None = None,
) -> dict[str, float]:
    """Train on each batch of the loader once; returns the means over its samples, "loss" and (for labels) "accuracy".

    `loader` gives pairs (inputs (B, …), targets (B,) or (B, …)); `loss_fn(outputs, targets)` is the mean over a batch.
    `accumulate` batches make a step, so that there are ceil(batches / accumulate); `clip_norm`, `amp` and `scaler` are
    those of `train_step`. `epoch` (1, 2, …) gives a shuffling loader the order of that epoch, and the progress bar and
    errors their name; None leaves the loader's order to the caller.

    Raises NonFiniteLoss naming epoch and step, ValueError for an empty loader, a batch that is not a pair of tensors,
    and a label outside the classes.
    """
    set_training_mode(model)
    optimizer.zero_grad()
    name = "this epoch" if epoch is None else f"epoch {epoch}"
    if epoch is not None:
        set_epoch(loader, epoch - 1)
    means = Means()
    for step, window in enumerate(windows(progress(loader, name), accumulate), start=1):
        where = f"{name}, step {step}"
        train_step(model, window, loss_fn, optimizer, means, where, clip_norm=clip_norm, amp=amp, scaler=scaler)
    return means.result()


def train_step(
    model: nn.Module,
    window: Sequence[Any],
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    means: Means,
    where: str = "this step",
    *,
    clip_norm: float | None = None,
    amp: str = "off",
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """One update of the weights from a window of batches, whose losses are added to `means`.

    clip_norm: the largest norm that the gradient of all parameters together may have; None leaves it as it is.
    amp: "off", "bf16" or "fp16", the precision that autocast chooses where it is safe. fp16 needs a `scaler`
        (`torch.amp.GradScaler(device)`) to keep small gradients from vanishing.

    Raises NonFiniteLoss naming `where`; weights and optimizer are then as before, and the gradients cleared. A scaler
    that skips a step halves its scale; one that falls below 1 skips for good, and is the same error.
    """
    if amp == "fp16" and scaler is None:
        raise ValueError("amp='fp16' needs scaler=torch.amp.GradScaler(device), or small gradients vanish")
    scaler = scaler or torch.amp.GradScaler(enabled=False)  # a disabled scaler hands everything through
    samples = sum(len(unpack(batch, means.batches + 1 + i)[1]) for i, batch in enumerate(window))
    for batch in window:
        loss, outputs, targets = forward(model, batch, loss_fn, number=means.batches + 1, amp=amp)
        share = len(targets) / samples  # of the window: 1 without accumulation
        scaler.scale(loss * share).backward()
        means.add(loss, outputs, targets)
    if not math.isfinite(means.read()["loss"]):
        optimizer.zero_grad()
        raise NonFiniteLoss(f"the loss is NaN or infinite at {where}; the step was not applied")
    if clip_norm is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    check_scale(scaler, where)


@torch.no_grad()
def evaluate(model: nn.Module, loader: Iterable[Any], loss_fn: LossFunction, *, amp: str = "off") -> dict[str, float]:
    """The means over all samples of the loader, "loss" and (for labels) "accuracy"; nothing about the model changes.

    The model is in eval mode meanwhile; afterwards every part of it is in the mode it was in.
    Raises ValueError for an empty loader, a batch that is not a pair of tensors, and a label outside the classes.
    """
    means = Means()
    with evaluation_mode(model):
        for batch in loader:
            means.add(*forward(model, batch, loss_fn, number=means.batches + 1, amp=amp))
    return means.result()


def forward(
    model: nn.Module, batch: Any, loss_fn: LossFunction, *, number: int = 1, amp: str = "off"
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean loss of a batch (a scalar), the model's outputs (B, …) and the targets, all on the model's device."""
    inputs, targets = unpack(batch, number)
    device = device_of(model)
    with autocast(device, amp):
        outputs = model(inputs.to(device, non_blocking=True))
        if are_labels(outputs, targets):
            check_labels(targets, outputs.shape[1], number)
        targets = targets.to(device, non_blocking=True)
        loss = loss_fn(outputs, targets)
    return loss, outputs, targets


def set_training_mode(model: nn.Module) -> None:
    """Train mode, but a batch norm whose parameters are all frozen stays in eval mode: its statistics would move."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.affine:
            module.train(any(parameter.requires_grad for parameter in module.parameters()))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; after it each module is back in its own mode (frozen parts may differ)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def autocast(device: torch.device, amp: str) -> AbstractContextManager[Any]:
    """The autocast context of amp="off", "bf16" or "fp16" on this device."""
    if amp not in AMP_DTYPES:
        raise ValueError(f"amp={amp!r} is unknown; choose one of {', '.join(AMP_DTYPES)}")
    dtype = AMP_DTYPES[amp]
    return nullcontext() if dtype is None else torch.amp.autocast(device.type, dtype=dtype)


def check_precision(amp: str, device: torch.device) -> None:
    """Raise ValueError when `device` cannot compute in the precision `amp`. (That it is slow there is no error.)"""
    dtype = AMP_DTYPES[amp]
    if dtype is None:
        return
    try:
        with torch.no_grad(), torch.amp.autocast(device.type, dtype=dtype), warnings.catch_warnings():
            warnings.simplefilter("error")  # autocast warns of a type it does not know, and then does nothing
            right = nn.functional.linear(torch.ones(1, 1, device=device), torch.ones(1, 1, device=device)).dtype == dtype
    except (RuntimeError, UserWarning):
        right = False
    if not right:
        raise ValueError(f"amp={amp!r} does not run on this device ({device.type}); use another amp, or amp='off'")


def check_scale(scaler: torch.amp.GradScaler, where: str) -> None:
    """Raise NonFiniteLoss when the scaler has halved its scale below 1: it would go on skipping every step in silence."""
    if scaler.is_enabled() and scaler.get_scale() < 1:
        raise NonFiniteLoss(
            f"the fp16 gradients still overflow at {where}, although the loss scale fell below 1; the last steps were "
            f"not applied. Use amp='bf16' or 'off', a smaller learning rate, or look for what is so large"
        )


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are (the CPU when it has none)."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
