"""The first test of a new network: can it learn one batch by heart?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dlcourse.diagnostics.traces import take_batch, without_a_trace, working_copy
from dlcourse.runtime import progress
from dlcourse.training.batches import Means
from dlcourse.training.engine import LossFunction, NonFiniteLoss, set_training_mode, train_step

LEARNT = 0.05
"""The share of the first loss that a batch learned by heart may have left."""


@dataclass(frozen=True)
class Overfit:
    """How the loss of one batch fell."""

    losses: list[float]
    """Before each step. It ends with NaN when the loss did."""
    accuracies: list[float] | None
    """Before each step, for class labels; else None."""
    succeeded: bool
    """With class labels: at some step every one was right. Else: the loss fell to 5 % of the first."""


def overfit_one_batch(
    model: nn.Module,
    data: Any,
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    steps: int = 100,
) -> Overfit:
    """Train a copy of the model on one batch for up to `steps` steps; `data` is a batch or a loader, whose first is taken.

    A network that cannot do this has a fault, or too few units. Without an optimizer AdamW with rate 1e-3 trains it.
    Dropout is off, since it hinders learning by heart. It ends early when all is right and the loss below 5 % of the first.
    Model, optimizer, modes and random generators are afterwards as they were.

    Raises ValueError for fewer than 1 step.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    losses: list[float] = []
    accuracies: list[float] = []
    with without_a_trace(data):
        batch = take_batch(data)
        model, optimizer = working_copy(model, optimizer)
        optimizer = optimizer or torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        set_training_mode(model)
        for module in model.modules():
            module.training = module.training and not isinstance(module, _DropoutNd)
        optimizer.zero_grad()
        for step in progress(range(1, steps + 1), "overfitting one batch", steps):
            means, inputs = Means(), batch[0].clone()  # the model may change what it is given
            try:
                train_step(model, [(inputs, batch[1])], loss_fn, optimizer, means, f"step {step}")
            except NonFiniteLoss:
                losses.append(math.nan)
                break
            seen = means.result()
            losses.append(seen["loss"])
            accuracies += [seen["accuracy"]] if "accuracy" in seen else []
            if losses[-1] <= LEARNT * losses[0] and (not accuracies or accuracies[-1] == 1):
                break
    learnt = max(accuracies) == 1 if accuracies else min(losses) <= LEARNT * losses[0]
    return Overfit(losses, accuracies or None, learnt and not math.isnan(losses[-1]))
