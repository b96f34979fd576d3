"""Why does it not learn? `diagnose` examines a training and names what is wrong, worst first.

It looks at the data, the labels, the model, the loss, the gradients and the optimizer, in this order, on a sample of the
data and on copies. Where something can be treated (inputs that are not scaled, labels out of range), the later
examinations go on with it treated, so that one fault does not hide another. A learning rate is called wrong only
when another one was tried and worked.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from dlcourse.diagnostics.case import Case, draw
from dlcourse.diagnostics.checks import by_heart, gradients, inputs, labels, losses, models, optimizers, rates, weights
from dlcourse.diagnostics.report import Finding, Report
from dlcourse.diagnostics.traces import without_a_trace, working_copy
from dlcourse.runtime import progress, seed_everything
from dlcourse.training.engine import LossFunction

SECONDS = 45.0
"""After this time no further training is tried."""

EXAMINATIONS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    inputs.finite,
    inputs.duplicates,
    inputs.constant,
    inputs.order,
    inputs.channel_order,
    models.modes,
    models.runs,
    labels.label_range,
    labels.relation,
    models.input_scale,
    models.same_twice,
    models.activations,
    weights.constant_weights,
    weights.frozen,
    losses.contract,
    labels.balance,
    labels.target_scale,
    gradients.gradients,
    optimizers.wiring,
    rates.rate,
)
"""In the order of cause and effect. `by_heart.reference` comes last, since it wants to know what was found before."""


def diagnose(
    model: nn.Module,
    loader: Iterable[Any],
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    val_loader: Iterable[Any] | None = None,
    steps: int = 30,
    seed: int = 0,
) -> Report:
    """Examine a training and report what is wrong with it; model, optimizer and random generators stay as they are.

    `loader` gives pairs (inputs (B, …), targets (B, …)) as it would for training; one pass over it is read (10 s at most).
    With `val_loader` it is searched for images that are in both. `steps` is the length of the short trainings on one batch
    with the optimizer given. A report for the same arguments and seed is the same.

    Hooks of the user are not called. Whatever the model or the loss raises is a finding. Raises ValueError for an empty
    loader, one that can be read only once, a batch that is not a pair of tensors, and steps < 5.
    """
    if steps < 5:
        raise ValueError(f"steps={steps} must be at least 5 to tell a learning rate")
    if isinstance(loader, Iterator):
        raise ValueError(
            "the loader is an iterator, which the examination would use up; give a DataLoader or a list of batches"
        )
    start = time.monotonic()
    loaders = [loader] if val_loader is None else [loader, val_loader]
    with without_a_trace(*loaders):
        seed_everything(seed)
        data = draw(loader, seed)
        own_model, own_optimizer = working_copy(model, optimizer)
        if isinstance(loss_fn, nn.Module):
            loss_fn = copy.deepcopy(loss_fn)  # it may keep a state of its own, such as a moving mean
        deadline = start + SECONDS
        stepped = optimizer is not None and (bool(optimizer.state) or getattr(optimizer, "_opt_called", False))
        case = Case(own_model, own_optimizer, loss_fn, loader, val_loader, data, seed, steps, deadline, stepped)
        findings: list[Finding] = []
        for examination in progress(EXAMINATIONS, "examining", len(EXAMINATIONS)):
            findings += _examined(case, examination)
        findings += _examined(case, lambda case: by_heart.reference(case, findings))
    if not data.complete:
        case.notes.append(f"all samples: after 10 s {len(data.stream)} had been read")
    if case.outputs is None:
        case.notes.append("what comes after a forward pass and a loss, since one of them fails")
    return Report(tuple(findings), tuple(case.notes), time.monotonic() - start)


def _examined(case: Case, examination: Callable[[Case], Iterator[Finding]]) -> list[Finding]:
    """The findings of one examination. When it fails on an unusual model, the others still go on."""
    found: list[Finding] = []
    try:
        found.extend(examination(case))
    except Exception as error:
        name = getattr(examination, "__name__", "training").replace("_", " ").replace("<lambda>", "learning by heart")
        case.notes.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
    return found
