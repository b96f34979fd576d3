"""The user's optimizer on one batch; where it fails, the same at other rates: a treatment that works is the diagnosis."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from dlcourse.diagnostics.case import Case, rates_of
from dlcourse.diagnostics.checks.optimizers import decay
from dlcourse.diagnostics.report import Finding
from dlcourse.diagnostics.trials import Trial, scale_of, train_on

BATCH = 32


def rate(case: Case) -> Iterator[Finding]:
    """The user's optimizer on one batch; where it fails, the same at other rates."""
    if case.optimizer is None or case.outputs is None:
        return
    known = {id(p) for p in case.model.parameters() if p.requires_grad}
    if not any(id(p) in known for group in case.optimizer.param_groups for p in group["params"]):
        return
    batch = case.batch(min(max(case.data.batch_sizes), BATCH) if max(case.data.batch_sizes) > 1 else 8)
    given = rates_of(case.optimizer, case.stepped)
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
    yield from decay(case)
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
                f"a learning rate around ≈ {max(max(given), 1e-6) * factor:.1g} (lr_range_test finds one)",
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
    remedy = f"a learning rate around ≈ {better:.1g} (lr_range_test finds one), with warmup if only the start is wild"
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
    for group, rate in zip(optimizer.param_groups, rates_of(optimizer, case.stepped), strict=True):
        wanted = factor * rate if rate or factor <= 1 else factor * 1e-6
        group["lr"] = torch.tensor(wanted) if isinstance(group["lr"], torch.Tensor) else wanted
    return train_on(case, model, optimizer, batch, case.steps, _decided)


def _decided(trial: Trial) -> bool:
    """Whether further steps would tell nothing new: the loss is lost, or half of it is gone for good."""
    return len(trial.losses) > 5 and (
        trial.losses[-1] > 20 * max(trial.first, 1.0) or max(trial.losses[-3:]) < 0.5 * trial.first
    )
