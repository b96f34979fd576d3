"""Examinations of weights and gradients at the start: do all parts take part, and does the gradient arrive."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dlcourse.diagnostics.case import Case, seed_all
from dlcourse.diagnostics.layers import look_at_layers
from dlcourse.diagnostics.report import Finding
from dlcourse.diagnostics.trials import knowing_nothing, loss_of

BATCH = 32
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def constant_weights(case: Case) -> Iterator[Finding]:
    """Weights that are all equal from the start, so that the units of a layer are, and remain, copies of one another."""
    weights = [(n, p) for n, p in case.model.named_parameters() if is_matrix(p)]
    zero = [n for n, p in weights if bool((p == 0).all())]
    equal = [n for n, p in weights if n not in zero and float(p.detach().amax() - p.detach().amin()) == 0]
    if not equal and len(zero) <= max(1, len(weights) // 2):
        return
    names = equal or zero
    yield Finding(
        "zero-or-constant-init",
        "error",
        names[0],
        f"{len(names)} of {len(weights)} weights hold one single value ({'0' if not equal else 'not 0'}): all units of a layer compute the same",
        "random weights (Kaiming, Xavier); only a last layer, or the last one of a residual branch, may start at 0",
    )


def frozen(case: Case) -> Iterator[Finding]:
    """Parameters that need no gradient, and whether that looks meant."""
    named = dict(case.model.named_parameters())
    still = [name for name, p in named.items() if not p.requires_grad]
    if not still:
        return
    if len(still) == len(named):
        yield _frozen("error", "all parameters", "no parameter needs a gradient: nothing can be trained")
        return
    norms = {
        f"{n}.{q}".lstrip(".")
        for n, m in case.model.named_modules()
        if isinstance(m, NORMS)
        for q, _ in m.named_parameters()
    }
    order = [
        name for name in _in_order(case) if name not in norms and (named[name].requires_grad or _takes_part(case, name))
    ]
    flags = [not named[name].requires_grad for name in order]
    seen = f"{len(still)} of {len(named)} parameter tensors need no gradient, the first is {still[0]}"
    if flags and flags[-1]:
        owner = order[-1].rpartition(".")[0].rpartition(".")[0]  # the module around the last layer
        adapted = owner and any(name.startswith(owner + ".") and p.requires_grad for name, p in named.items())
        yield _frozen(
            "warning" if adapted else "error", order[-1], seen + "; the layer that gives the outputs is among them"
        )
    elif True not in flags:
        yield _frozen("info", still[0], seen)
    elif False in flags[: flags.index(True)]:  # a layer that is trained comes before
        minority = sum(flags) <= len(flags) / 2
        yield _frozen(
            "error" if minority else "warning", order[flags.index(True)], seen + "; layers before it are trained"
        )
    else:
        yield _frozen("info", still[0], seen + "; they come before all that is trained, as in transfer learning")


def _takes_part(case: Case, name: str) -> bool:
    """Whether the outputs depend on a parameter (an old head may be left in a model, frozen and unused)."""
    if case.outputs is None:
        return True
    model, _ = case.try_out()
    answers = []
    with torch.no_grad():
        for _ in range(2):
            seed_all(case.seed)
            answers.append(model(case.batch(BATCH)[0]))
            dict(model.named_parameters())[name].add_(1.0)
    return not torch.equal(answers[0].nan_to_num(), answers[1].nan_to_num())


def _frozen(severity: str, where: str, seen: str) -> Finding:
    return Finding(
        "frozen-parameters",
        severity,
        where,
        seen,
        "if it is not meant: parameter.requires_grad_(True), and add it to the optimizer",
    )


def _in_order(case: Case) -> list[str]:
    """Names of the weights (of 2 and more dimensions) in the order in which a forward pass uses them."""
    named = {name: p for name, p in case.model.named_parameters() if p.ndim >= 2}
    if case.outputs is None:
        return list(named)
    model, _ = case.try_out()
    seed_all(case.seed)
    _, looks = look_at_layers(model, case.batch(4)[0] if not _has_batch_norm(model) else case.batch(BATCH)[0])
    used = [f"{look.name}.{q}" for look in looks for q, p in look.module.named_parameters(recurse=False) if p.ndim >= 2]
    order = list(dict.fromkeys(name for name in used if name in named))
    return order if len(order) >= len(named) / 2 else list(named)


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


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


def weights_in_order(case: Case, flow: dict[str, float]) -> list[float]:
    """The relative gradients of the weights in the order of the forward pass."""
    return [flow[name] for name in _in_order(case) if name in flow]


def same_rows(weight: Tensor) -> bool:
    """Whether all units of a layer have the same incoming weights (for a matrix of several units and inputs)."""
    if not is_matrix(weight):
        return False
    rows = weight.detach().flatten(1)
    return bool(((rows - rows[:1]).abs() <= 1e-6 * rows.abs().amax().clamp(min=1e-12)).all())


def is_matrix(weight: Tensor) -> bool:
    """Weights of several units with several inputs each."""
    return weight.ndim >= 2 and len(weight) > 1 and weight[0].numel() > 1
