"""Examinations of the optimizer before it is used: what it holds, what lies in the gradients, how hard the decay pulls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dlcourse.diagnostics.case import Case, rates_of
from dlcourse.diagnostics.report import Finding
from dlcourse.diagnostics.trials import loss_of

BATCH = 32


def wiring(case: Case) -> Iterator[Finding]:
    """Whether the optimizer holds the parameters that are to be trained, and what gradients lie in them."""
    if case.optimizer is None:
        return
    named = dict(case.model.named_parameters())
    held = {id(p) for group in case.optimizer.param_groups for p in group["params"]}
    trainable = [name for name, p in named.items() if p.requires_grad]
    missing = [name for name in trainable if id(named[name]) not in held]
    foreign = len(held - {id(p) for p in named.values()})
    if trainable and not any(id(p) in held for p in named.values()):
        yield Finding(
            "optimizer-of-another-model",
            "error",
            "the optimizer",
            f"none of the {len(held)} tensors it holds belongs to the model, whose {len(trainable)} trainable ones no step will change",
            "make the optimizer after the model is complete (copied, moved, its head replaced): Adam(model.parameters())",
        )
    elif missing:
        probe = len(missing) >= len(trainable) / 2 and missing == trainable[: len(missing)] and not foreign
        also = f"; it holds {foreign} tensors that are no longer in the model" if foreign else ""
        yield Finding(
            "parameter-not-in-optimizer",
            "warning" if probe else "error",
            missing[0],
            f"{len(missing)} of {len(trainable)} trainable parameters are not in the optimizer, the first is {missing[0]}{also}",
            "add a group for them (optimizer.add_param_group), or make the optimizer after the last change of the model"
            + (", or freeze them if that is what is meant" if probe else ""),
        )
    yield from _stale(case)


def _stale(case: Case) -> Iterator[Finding]:
    assert case.optimizer is not None
    model, optimizer = case.try_out()
    assert optimizer is not None
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.zero_grad()
    if any(p.grad is not None and bool(p.grad.any()) for p in parameters):
        yield _leftover("error", "optimizer.zero_grad()", "gradients are still there after it was called")
        return
    left = {
        n: p.grad
        for n, p in case.model.named_parameters()
        if p.grad is not None and p.requires_grad and bool(p.grad.any())
    }
    if not left or case.outputs is None:
        return
    size = max(BATCH, min(max(case.data.batch_sizes), 64))
    named = {name: p for name, p in model.named_parameters() if name in left}
    lengths = []
    for start in range(0, min(len(case.inputs), 4 * size), size):  # the longest of some batches, since they differ
        inputs, targets = (
            case.inputs[start : start + size].to(case.device),
            case.targets[start : start + size].to(case.device),
        )
        loss, _ = loss_of(case, model, inputs, targets)
        if len(inputs) < size / 2 or not loss.requires_grad:
            break
        fresh = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        lengths.append(math.hypot(*(float(g.norm()) for g in fresh if g is not None)))
    if not lengths:
        return
    times = math.hypot(*(float(g.norm()) for g in left.values())) / max(*lengths, 1e-12)
    yield _leftover(
        "error" if times > 3 else "warning" if times > 1.5 else "info",
        "the .grad of the parameters",
        f"{len(left)} parameters hold a gradient from before, ≈ {times:.1f} times as long as the longest of {len(lengths)} batches",
    )


def _leftover(severity: str, where: str, seen: str) -> Finding:
    remedy = "optimizer.zero_grad() once for each step, before backward(): gradients are added to what is there"
    return Finding("stale-gradients", severity, where, seen, remedy)


def decay(case: Case) -> Iterator[Finding]:
    """Weight decay that pulls the weights to 0 faster than they can learn."""
    model, optimizer = case.try_out()
    assert optimizer is not None
    groups = list(zip(optimizer.param_groups, rates_of(optimizer, case.stepped), strict=True))
    decays = [float(group.get("weight_decay", 0) or 0) for group, _ in groups]
    if not any(decays):
        return
    if _mixed_in(optimizer):
        ratio = _decay_over_gradient(case, model, optimizer)
        strong = ratio > 1
        seen = (
            f"the decay is ≈ {ratio:.2g} times as large as the gradient it is added to, "
            f"and Adam makes steps of full length of it"
        )
    else:
        shares = [d * rate / (1 - _momentum(group)) for d, (group, rate) in zip(decays, groups, strict=True)]
        strong = max(shares) > 5e-3
        seen = f"decay and rate alone halve the weights in ≈ {math.log(2) / max(*shares, 1e-12):.0f} steps"
    if strong:
        yield Finding(
            "weight-decay-too-strong",
            "error",
            f"weight_decay = {max(decays):g}",
            seen,
            "1e-4 to 5e-4 for SGD, 0.01 to 0.1 for AdamW; AdamW instead of Adam, whose decay is mixed into the gradient",
        )


def _momentum(group: dict[str, Any]) -> float:
    return min(float(group.get("momentum", 0) or 0), 0.99)


def _mixed_in(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the decay is added to the gradient before that is scaled to steps of one length, as in Adam and RMSprop."""
    group = optimizer.param_groups[0]
    adaptive = any(key in group for key in ("betas", "alpha", "rho", "lr_decay"))
    decoupled = type(optimizer).__name__ in ("AdamW", "Lion", "Muon") or group.get("decoupled_weight_decay", False)
    return adaptive and not decoupled


def _decay_over_gradient(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """The length of what decay adds to the gradient over that of the gradient, also one that wrong labels give: the
    gradient of a trained model is small, and decay no fault for that."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    inputs, targets = case.batch(BATCH)
    lengths = []
    for wanted in (targets, targets.roll(1, dims=0)):
        loss, _ = loss_of(case, model, inputs, wanted)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        lengths.append(math.hypot(*(float(g.norm()) for g in found if g is not None)))
    pulls = [
        float(group.get("weight_decay", 0) or 0) * float(p.detach().norm())
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    return math.hypot(*pulls) / max(*lengths, 1e-12)
