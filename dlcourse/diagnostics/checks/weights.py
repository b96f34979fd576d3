"""Examinations of the weights before any training: are they all alike, and which of them are frozen."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dlcourse.diagnostics.case import Case
from dlcourse.diagnostics.layers import look_at_layers
from dlcourse.diagnostics.report import Finding
from dlcourse.runtime import seed_everything

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
            seed_everything(case.seed)
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
    seed_everything(case.seed)
    _, looks = look_at_layers(model, case.batch(4)[0] if not _has_batch_norm(model) else case.batch(BATCH)[0])
    used = [f"{look.name}.{q}" for look in looks for q, p in look.module.named_parameters(recurse=False) if p.ndim >= 2]
    order = list(dict.fromkeys(name for name in used if name in named))
    return order if len(order) >= len(named) / 2 else list(named)


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


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
