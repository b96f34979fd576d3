"""Examinations of the first loss and its gradient: how large, whether it arrives, and whether it points downhill."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dlcourse.diagnostics.case import Case
from dlcourse.diagnostics.report import Finding
from dlcourse.diagnostics.trials import knowing_nothing, loss_of

BATCH = 32


def gradients(case: Case) -> Iterator[Finding]:
    """The first loss, and where its gradient arrives."""
    if case.outputs is None:
        return
    model, _ = case.try_out()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        return
    inputs, targets = case.batch(BATCH)
    loss, outputs = loss_of(case, model, inputs, targets)
    nothing = knowing_nothing(case, outputs.detach(), targets)
    if not loss.requires_grad:
        yield _detached("the outputs", "the outputs have no graph: no gradient reaches any parameter")
        case.outputs = None
        return
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    arrived = {name: g for name, g in zip(named, found, strict=True) if g is not None}
    yield from _unreached(
        case,
        _never_reached(case, [n for n in named if n not in arrived]),
        [n for n, g in arrived.items() if not bool(g.any())],
    )
    yield from _unregistered(case, outputs, {id(p) for p in model.parameters()})
    if not math.isfinite(loss.item()):
        yield Finding(
            "initial-loss",
            "error",
            "the first loss",
            f"it is {loss.item()}",
            "find the first value that is not finite: a log of 0, a division by 0, an overflow",
        )
        return
    yield from _uphill(case, loss.item(), arrived, inputs, targets)
    if nothing is not None and nothing[1] > 1e-8 and loss.item() > 1.75 * nothing[1]:
        yield Finding(
            "initial-loss",
            "error" if loss.item() > 3 * nothing[1] else "warning",
            "the first loss",
            f"≈ {loss.item():.3g}, where an answer that knows nothing costs ≈ {nothing[1]:.3g}: the model is sure and wrong",
            "smaller weights in the last layer (its outputs should start near 0); check the scale of inputs and features",
        )
    norm = math.hypot(*(float(g.norm()) for g in arrived.values()))
    fair = nothing[1] if nothing is not None else loss.item()
    if not math.isfinite(norm) or norm > 100 * max(fair, 1e-12):
        largest = max(arrived, key=lambda name: float(arrived[name].norm()))
        yield Finding(
            "exploding-gradient",
            "error",
            largest,
            f"the norm of the whole gradient is ≈ {norm:.3g} for a loss of ≈ {loss.item():.3g}",
            "the scale of the weights, a norm layer, or clip_norm (one norm over all parameters)",
        )


def _uphill(
    case: Case, loss: float, gradients: dict[str, Tensor], inputs: Tensor, targets: Tensor
) -> Iterator[Finding]:
    """Whether a short way against the gradient makes the loss smaller, by about as much as the gradient says."""
    square = sum(float(g.square().sum()) for g in gradients.values())
    if not 1e-12 < square < math.inf:
        return
    changes = []
    for share in (1e-2, 1e-3):  # of the loss that the way should take off
        model, _ = case.try_out()
        way = share * abs(loss) / square
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in gradients:
                    parameter.sub_(way * gradients[name])
            changes.append((loss_of(case, model, inputs, targets)[0].item() - loss) / (share * abs(loss)))
    if all(change > 0.5 for change in changes):
        yield Finding(
            "wrong-direction",
            "error",
            "the gradient",
            f"a short step against the gradient raises the loss (by ≈ {changes[-1]:.1f} times what it should take off)",
            "a backward pass of your own with a wrong sign, or a gradient that is not that of this loss",
        )


def _never_reached(case: Case, names: list[str]) -> list[str]:
    """Those of the parameters without a gradient that get none in other draws either (stochastic depth leaves out parts)."""
    for seed in range(1, 6):
        if not names:
            break
        model, _ = case.try_out()
        parameters = dict(model.named_parameters())
        loss, _ = loss_of(case, model, *case.batch(BATCH), seed=case.seed + seed)
        found = (
            torch.autograd.grad(loss, [parameters[name] for name in names], allow_unused=True)
            if loss.requires_grad
            else names
        )
        names = [
            name for name, gradient in zip(names, found, strict=True) if gradient is None or isinstance(gradient, str)
        ]
    return names


def _unreached(case: Case, none: list[str], zero: list[str]) -> Iterator[Finding]:
    """Parameters without a gradient, or with one that is 0 everywhere: does the loss depend on them?"""
    if not none and not zero:
        return
    names = none + zero
    model, _ = case.try_out()
    batch = case.batch(BATCH)
    parameters = dict(model.named_parameters())
    depends: set[str] = set()
    with torch.no_grad():
        before = loss_of(case, model, *batch)[0].item()
        for group in [[name] for name in names] if len(names) <= 24 else [none, zero]:
            kept = [parameters[name].clone() for name in group]
            for name in group:
                noise = torch.randn(parameters[name].shape, generator=torch.Generator().manual_seed(0)).to(
                    parameters[name]
                )
                parameters[name].add_(noise * (parameters[name].abs().mean() + 0.1))
            after = loss_of(case, model, *batch)[0].item()
            if not math.isclose(after, before, rel_tol=1e-5, abs_tol=1e-9):
                depends.update(group)
            for name, value in zip(group, kept, strict=True):
                parameters[name].copy_(value)
    cut = [name for name in none if name in depends]
    flat = [name for name in zero if name in depends]
    idle = [name for name in none if name not in depends]
    if cut:
        yield _detached(
            cut[0], f"the loss depends on {len(cut)} parameters that get no gradient, the first is {cut[0]}"
        )
    elif flat and not any(look.dead > 0.5 for look in case.looks):
        yield _detached(
            flat[0], f"the loss depends on {len(flat)} parameters whose gradient is exactly 0, the first is {flat[0]}"
        )
    if idle:
        yield Finding(
            "unused-parameters",
            "warning",
            idle[0],
            f"the loss does not depend on {len(idle)} trainable parameters, the first is {idle[0]}",
            "use them in forward, or remove them: a layer that was defined and forgotten learns nothing",
        )


def _unregistered(case: Case, outputs: Tensor, known: set[int]) -> Iterator[Finding]:
    """Tensors that the outputs would train, which the model does not know as its parameters."""
    strangers: list[Tensor] = []
    nodes, seen = [outputs.grad_fn], set()
    while nodes:
        node: Any = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            strangers.append(variable)
        nodes += [following for following, _ in node.next_functions]
    held = (
        {id(p) for group in case.optimizer.param_groups for p in group["params"]}
        if case.optimizer is not None
        else set()
    )
    if strangers and not any(id(p) in held for p in strangers):
        shapes = ", ".join(str(tuple(p.shape)) for p in strangers[:3])
        yield Finding(
            "parameter-not-in-optimizer",
            "error",
            "layers that are not registered",
            f"{len(strangers)} tensors that need a gradient take part in the outputs and are not in model.parameters(), of shapes {shapes}",
            "nn.ModuleList instead of a list, nn.ModuleDict instead of a dict, nn.Parameter for single tensors",
        )


def _detached(where: str, seen: str) -> Finding:
    return Finding(
        "detached-graph",
        "error",
        where,
        seen,
        "no detach(), .data, no_grad(), numpy(), argmax or round between this part and the loss",
    )
