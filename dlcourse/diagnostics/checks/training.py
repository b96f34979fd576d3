"""Examinations by treatment: short trainings on one batch, with a reference optimizer and with the user's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from dlcourse.diagnostics.case import Case
from dlcourse.diagnostics.checks.weights import is_matrix, same_rows, weights_in_order
from dlcourse.diagnostics.report import Finding
from dlcourse.diagnostics.trials import Trial, loss_of, scale_of, train_on, without_dropout

BY_HEART = 32
"""Samples that a model must be able to learn by heart."""
BATCH = 32


def reference(case: Case, so_far: Sequence[Finding]) -> Iterator[Finding]:
    """Learn a few samples by heart with Adam, at three rates: what is wrong when none of them works is not the optimizer."""
    trainable = [p for p in case.model.parameters() if p.requires_grad]
    if case.outputs is None or not trainable:
        return
    batch = case.batch(BY_HEART)
    best: Trial | None = case.own_trial
    scale = scale_of(case, batch)
    for rate in (2e-3, 2e-2, 2e-4):
        if best is not None and best.learned(scale):
            break
        model, _ = case.try_out()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
        trial = train_on(
            case, without_dropout(model), optimizer, batch, 5 * case.steps,
            lambda trial: trial.learned(scale) or trial.stalled(case.steps // 2) or (len(trial.losses) > 20 and trial.last > trial.first),
        )  # fmt: skip
        if best is None or trial.last < best.last:
            best = trial
        if case.late and not trial.learned(scale):
            case.notes.append("whether the model can learn a batch by heart: no time was left")
            return
    assert best is not None
    assert best.model is not None
    learned = best.learned(scale)
    sick = {finding.code for finding in so_far if finding.severity == "error"} - HARMLESS
    weights = [(name, p) for name, p in best.model.named_parameters() if p.requires_grad]
    stuck = [name for name, p in weights if is_matrix(p) and not bool(p.any())] if len(best.flows) > 3 else []
    if alike := stuck or ([] if learned else [name for name, p in weights if same_rows(p)]):
        yield Finding(
            "zero-or-constant-init",
            "error",
            alike[0],
            f"after {len(best.flows)} steps all units of {len(alike)} layers still have the same weights",
            "random weights (Kaiming, Xavier); only a last layer, or the last one of a residual branch, may start at 0",
        )
        return
    if sick & BLOCKING:
        return
    faded = list(_faded(case, best, learned))
    yield from faded
    if learned or faded or sick:
        return
    if best.spread < 1e-4 and len(batch[0]) > 1:
        yield Finding(
            "constant-output",
            "error",
            "the outputs",
            f"after {len(best.flows)} steps all samples get the same answer (spread ≈ {best.spread:.2g})",
            "look where the samples become alike: record_activations shows the layer whose output no longer varies",
        )
    elif len(batch[0]) >= 4:
        frozen = any(not p.requires_grad for p in case.model.parameters())
        yield Finding(
            "capacity-too-small",
            "warning" if frozen or min(best.losses) < scale.best + 0.7 * (scale.nothing - scale.best) else "error",
            "the model",
            f"{len(batch[0])} samples could not be learned by heart at three rates: loss ≈ {min(best.losses):.3g}, "
            f"where knowing nothing costs ≈ {scale.nothing:.3g}",
            "look for a bottleneck (a layer of a few units, a pool too early); widen it until one batch can be learned",
        )


def _faded(case: Case, trial: Trial, learned: bool) -> Iterator[Finding]:
    """A gradient that fades on its way back, or a signal that fades on its way forward."""
    remedy = "residual connections, batch or layer norm, ReLU-like activations, weights on a scale of their inputs (Kaiming)"
    back = max(_fading(case, flow) for flow in (trial.flows[0], trial.flows[-1]))
    if back < 1e-3:
        yield Finding(
            "vanishing-gradient",
            "error" if back < 1e-5 or not learned else "warning",
            "the first layers",
            f"gradient over weight is ≈ {back:.1e} of what it is in the last layers",
            remedy,
        )
        return
    hidden = [look for look in case.looks if look.weighted][:-1]
    if len(hidden) >= 3 and hidden[0].input_rms > 0:
        signal = hidden[-1].variation / max(hidden[0].variation, 1e-30)
        if hidden[0].variation < 1e-3 * hidden[0].input_rms:
            signal *= hidden[0].variation / hidden[0].input_rms
        if signal < (1e-4 if learned else 1e-2):
            yield Finding(
                "vanishing-gradient",
                "error" if signal < 1e-5 or not learned else "warning",
                hidden[-1].name,
                f"what tells the samples apart shrinks to ≈ {signal:.1e} on its way through {len(hidden)} layers, and the gradient with it",
                remedy,
            )


BLOCKING = {
    "dead-units", "saturated-activations", "zero-or-constant-init", "exploding-activations", "nonfinite-parameter", "detached-graph",
    "frozen-parameters", "loss-target-mismatch", "initial-loss",
}  # fmt: skip
"""Faults of which a gradient that fades is a consequence."""
HARMLESS = {"unshuffled", "class-missing", "class-imbalance", "duplicate-or-leaking-data", "label-noise", "learning-rate-too-high", "learning-rate-too-low"}
"""Faults that do not keep a model from learning one batch by heart."""


def _fading(case: Case, flow: dict[str, float]) -> float:
    """How much smaller the relative gradient is in the first third of the layers than in the last."""
    layers = weights_in_order(case, flow)
    third = max(1, len(layers) // 3)
    first, last = max(layers[:third], default=1.0), max(layers[-third:], default=1.0)
    return first / last if len(layers) >= 3 and last > 0 else 1.0


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
    left = {n: p.grad for n, p in case.model.named_parameters() if p.grad is not None and p.requires_grad and bool(p.grad.any())}
    if not left or case.outputs is None:
        return
    size = max(BATCH, min(max(case.data.batch_sizes), 64))
    named = {name: p for name, p in model.named_parameters() if name in left}
    lengths = []
    for start in range(0, min(len(case.inputs), 4 * size), size):  # the longest of some batches, since they differ
        inputs, targets = case.inputs[start : start + size].to(case.device), case.targets[start : start + size].to(case.device)
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


def rate(case: Case) -> Iterator[Finding]:
    """The user's optimizer on one batch; where it fails, the same at other rates."""
    if case.optimizer is None or case.outputs is None:
        return
    known = {id(p) for p in case.model.parameters() if p.requires_grad}
    if not any(id(p) in known for group in case.optimizer.param_groups for p in group["params"]):
        return
    batch = case.batch(min(max(case.data.batch_sizes), BATCH) if max(case.data.batch_sizes) > 1 else 8)
    given = _rates(case.optimizer, case.stepped)
    own = _try(case, batch, 1.0)
    if own is None:
        return
    scale = scale_of(case, batch)
    nothing = scale.nothing
    case.own_trial = own
    where = f"lr = {', '.join(f'{r:g}' for r in given[:3])}"
    if own.stride > 0.7:
        wild = own.stride > 3 or not own.learned(scale)
        yield _too_high(
            where,
            f"the first steps change a typical weight by ≈ {own.stride:.1f} times its own size (1e-3 to 1e-2 is usual)",
            max(given) * _calm(case, batch),
            "error" if wild else "warning",
        )
        return
    yield from _decay(case)
    rises = own.last > 1.05 * own.first or own.last > 1.5 * nothing
    stands = own.last > 0.98 * own.first or (own.last > 0.95 * nothing and own.first > 0.95 * nothing)
    if not (rises or stands) or own.last < scale.best + 0.2 * (nothing - scale.best):
        return
    tried = [own]
    for factor in (0.1, 0.01, 1e-3) if rises or own.stride > 0.02 else ():
        other = _try(case, batch, factor)
        if other is None:
            return
        if other.last < 0.95 * own.first and other.last < 0.75 * own.last:
            yield _too_high(where, _compared(case, own, factor, other), max(given) * factor)
            return
        tried.append(other)
    if rises:
        if all(trial.last > trial.first for trial in tried):
            yield Finding(
                "wrong-direction",
                "error",
                where,
                f"the loss rises at every rate, even at 0.001 times it (≈ {tried[-1].first:.4g} to ≈ {tried[-1].last:.4g})",
                "maximize=True in the optimizer, a loss with the wrong sign, or gradients that are not those of this loss",
            )
        return
    fall = max(own.first - own.last, 0.0)
    for factor in (10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7):
        other = _try(case, batch, factor)
        if other is None or other.last > 1.2 * own.first:
            return
        if own.first - other.last > max(0.05 * own.first, 20 * fall):
            yield Finding(
                "learning-rate-too-low",
                "error" if factor >= 100 and fall < 0.003 * own.first else "warning",
                where,
                _compared(case, own, factor, other),
                f"a learning rate around {max(max(given), 1e-6) * factor:.1g} (lr_range_test finds one)",
            )
            return


def _calm(case: Case, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
    """The first of some smaller rates, as a factor, with which the loss falls by steps of a fair size."""
    for factor in (0.1, 0.01, 1e-3, 1e-4):
        trial = _try(case, batch, factor)
        if trial is None or (trial.stride < 0.2 and trial.last < 0.95 * trial.first):
            return factor
    return 1e-4


def _compared(case: Case, own: Trial, factor: float, other: Trial) -> str:
    return (
        f"on one batch the loss goes from ≈ {own.first:.3g} to ≈ {own.last:.3g} in {case.steps} steps; "
        f"at {factor:g} times the rate to ≈ {other.last:.3g}"
    )


def _too_high(where: str, seen: str, better: float, severity: str = "error") -> Finding:
    remedy = f"a learning rate around {better:.1g} (lr_range_test finds one), with warmup if only the start is wild"
    return Finding("learning-rate-too-high", severity, where, seen, remedy)


def _try(case: Case, batch: tuple[torch.Tensor, torch.Tensor], factor: float) -> Trial | None:
    """Train with the user's optimizer at `factor` times its rates (1e-6 for rates of 0); None when there is no time left."""
    if case.late:
        note = "the learning rate: no time was left"
        if note not in case.notes:
            case.notes.append(note)
        return None
    model, optimizer = case.try_out()
    assert optimizer is not None
    for group, rate in zip(optimizer.param_groups, _rates(optimizer, case.stepped), strict=True):
        wanted = factor * rate if rate or factor <= 1 else factor * 1e-6
        group["lr"] = torch.tensor(wanted) if isinstance(group["lr"], torch.Tensor) else wanted
    return train_on(case, model, optimizer, batch, case.steps, _decided)


def _decided(trial: Trial) -> bool:
    """Whether further steps would tell nothing new: the loss is lost, or half of it is gone for good."""
    return len(trial.losses) > 5 and (trial.losses[-1] > 20 * max(trial.first, 1.0) or max(trial.losses[-3:]) < 0.5 * trial.first)


def _rates(optimizer: torch.optim.Optimizer, stepped: bool) -> list[float]:
    """The rate of each group; before the first step, with a scheduler that warms up, the one it climbs to."""
    if stepped:
        return [float(group["lr"]) for group in optimizer.param_groups]
    return [max(float(group.get(name, 0.0)) for name in ("lr", "initial_lr", "max_lr")) for group in optimizer.param_groups]


def _decay(case: Case) -> Iterator[Finding]:
    """Weight decay against the gradient that a wrong answer would give."""
    assert case.optimizer is not None
    decays = [float(group.get("weight_decay", 0) or 0) for group in case.optimizer.param_groups]
    if not any(decays):
        return
    model, optimizer = case.try_out()
    assert optimizer is not None
    inputs, targets = case.batch(BATCH)
    named = [p for p in model.parameters() if p.requires_grad]
    pull, push = 0.0, 0.0
    sizes = {id(p): 0.0 for p in named}
    for wanted in (targets, targets.roll(1, dims=0)):
        loss, _ = loss_of(case, model, inputs, wanted)
        for p, g in zip(named, torch.autograd.grad(loss, named, allow_unused=True), strict=True):
            if g is not None:
                sizes[id(p)] = max(sizes[id(p)], float(g.norm()))
    fastest, group_number = 0.0, 0
    for number, (group, decay, rate) in enumerate(zip(optimizer.param_groups, decays, _rates(optimizer, case.stepped), strict=True)):
        momentum = float(group.get("momentum", 0) or 0)
        shrink = decay * rate / (1 - min(momentum, 0.99))
        members = [p for p in group["params"] if id(p) in sizes]
        pull = math.hypot(pull, decay * math.hypot(*(float(p.detach().norm()) for p in members)))
        push = math.hypot(push, math.hypot(*(sizes[id(p)] for p in members)))
        if shrink > fastest:
            fastest, group_number = shrink, number
    adaptive = any(key in case.optimizer.param_groups[0] for key in ("betas", "alpha", "rho", "lr_decay"))
    decoupled = type(case.optimizer).__name__ in ("AdamW", "NAdamW", "Lion", "Muon") or bool(
        case.optimizer.param_groups[0].get("decoupled_weight_decay", False)
    )
    ratio = pull / max(push, 1e-12)
    if adaptive and not decoupled:
        strong = ratio > 1
        seen = f"the decay is ≈ {ratio:.2g} times as large as the gradient it is added to, and Adam makes steps of full length of it"
    else:
        strong = fastest > 5e-3
        halves = math.log(2) / max(fastest, 1e-12)
        seen = f"decay and rate alone halve the weights in ≈ {halves:.0f} steps"
    if strong:
        yield Finding(
            "weight-decay-too-strong",
            "error",
            f"weight_decay = {decays[group_number]:g}",
            seen,
            "1e-4 to 5e-4 for SGD, 0.01 to 0.1 for AdamW; AdamW instead of Adam, whose decay is mixed into the gradient",
        )

