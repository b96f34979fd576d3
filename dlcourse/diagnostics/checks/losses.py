"""Examinations of the loss: can it be called with these outputs and targets, and does it mean what it should?"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from dlcourse.diagnostics.case import Case
from dlcourse.diagnostics.checks.meanings import (
    Contract,
    advice,
    described,
    pairing,
    range_of_outputs,
    reduction,
    right_is_cheaper,
    squashed,
    yes_no_range,
)
from dlcourse.diagnostics.report import Finding
from dlcourse.runtime import seed_everything

BATCH = 32
PASSING = (
    "View",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Permute",
    "Transpose",
    "Clone",
    "ToCopy",
    "Alias",
    "Select",
    "Slice",
    "TBackward",
)
"""Operations that leave the values as they are, by the beginning of their names in autograd's graph."""


def contract(case: Case) -> Iterator[Finding]:
    """The loss on a batch of the model's own answers, and on made-up ones."""
    if case.outputs is None:
        return
    model, _ = case.try_out()
    inputs, targets = case.batch(BATCH)
    seed_everything(case.seed)
    outputs = model(inputs)
    if not isinstance(outputs, Tensor):
        return
    yield from _call(case, outputs, targets)
    if case.outputs is None:
        return
    last = _last_operation(outputs)
    outputs = outputs.detach()

    def value(made_up: Tensor, wanted: Tensor) -> float | None:
        seed_everything(case.seed)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return float(case.loss_fn(made_up.clone(), wanted.clone()))
        except Exception:
            return None

    facts = Contract(outputs, targets, value, _kind(outputs), last)
    facts = _without_ignored(facts, getattr(case.loss_fn, "ignore_index", None))
    if len(facts.targets) == 0:
        return
    if outside := list(yes_no_range(facts)):
        yield from outside
        case.targets = (case.targets > 0).to(case.targets)
        return
    mismatch = list(pairing(facts)) or list(right_is_cheaper(case, facts))
    yield from mismatch
    yield from list(range_of_outputs(facts)) or squashed(facts)
    if not mismatch:
        yield from reduction(facts)


def _without_ignored(facts: Contract, ignored: int | None) -> Contract:
    """Only the samples whose label the loss does not leave out."""
    if not facts.labels or ignored is None:
        return facts
    kept = (facts.targets != ignored).reshape(len(facts.targets), -1).all(dim=1)
    return replace(facts, outputs=facts.outputs[kept], targets=facts.targets[kept])


def _call(case: Case, outputs: Tensor, targets: Tensor) -> Iterator[Finding]:
    """What is wrong with the call itself. Where it cannot be used, `case.outputs` is None afterwards."""
    kept, given = outputs.detach().clone(), targets.clone()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning of broadcasting is found by what it does
            loss = case.loss_fn(outputs, targets)
    except Exception as error:
        message = re.sub(r"\s+", " ", str(error)).strip()[:300]
        yield Finding(
            "loss-target-mismatch",
            "error",
            "the loss",
            f"it raises {type(error).__name__}: {message} [outputs {described(outputs)}, targets {described(targets)}]",
            advice(outputs, targets),
        )
        case.outputs = None
        return
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        seen = f"it returns {shape} for a batch of {len(targets)}"
        yield Finding(
            "loss-not-scalar", "error", "the loss", seen, "reduction='mean', or loss.mean() at the end of your own"
        )
        case.outputs = None
        return
    if not loss.requires_grad and outputs.requires_grad:
        yield Finding(
            "detached-graph", "error", "the loss", "the outputs have a graph, the loss has none: no gradient leaves it",
            "no detach(), item(), numpy(), argmax or torch.tensor(…) between outputs and loss",
        )  # fmt: skip
        case.outputs = None
        return
    if not torch.equal(outputs.detach().nan_to_num(), kept.nan_to_num()) or not torch.equal(
        targets.nan_to_num(), given.nan_to_num()
    ):
        seen = "after the call the outputs or the targets it was given are changed"
        yield Finding("in-place-input", "error", "the loss", seen, "no operation in place on the arguments of the loss")


def _kind(outputs: Tensor) -> str:
    if outputs.ndim >= 2 and outputs.shape[1] > 1:
        if bool((outputs >= 0).all()) and torch.allclose(outputs.sum(dim=1), torch.ones_like(outputs[:, 0]), atol=1e-3):
            return "probabilities"
        if torch.allclose(outputs.logsumexp(dim=1), torch.zeros_like(outputs[:, 0]), atol=1e-3):
            return "log-probabilities"
    return "numbers"


def _last_operation(outputs: Tensor) -> str:
    """The name of the last operation of the graph that is more than a change of shape, such as "SoftmaxBackward0"."""
    node = outputs.grad_fn
    while node is not None and node.name().startswith(PASSING) and node.next_functions:
        node = node.next_functions[0][0]
    return "" if node is None else node.name()
