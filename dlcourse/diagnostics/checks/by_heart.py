"""Learning a few samples by heart: what is wrong when no rate manages it is not the optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from dlcourse.diagnostics.case import Case
from dlcourse.diagnostics.checks.weights import is_matrix, same_rows, weights_in_order
from dlcourse.diagnostics.report import Finding
from dlcourse.diagnostics.trials import Trial, scale_of, train_on, without_dropout

BY_HEART = 32
"""Samples that a model must be able to learn by heart."""
BLOCKING = {
    "dead-units", "saturated-activations", "zero-or-constant-init", "exploding-activations", "nonfinite-parameter", "detached-graph",
    "frozen-parameters", "loss-target-mismatch", "initial-loss",
}  # fmt: skip
"""Faults of which a gradient that fades is a consequence."""
HARMLESS = {
    "unshuffled",
    "class-missing",
    "class-imbalance",
    "duplicate-or-leaking-data",
    "label-noise",
    "learning-rate-too-high",
    "learning-rate-too-low",
}
"""Faults that do not keep a model from learning one batch by heart."""


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
    remedy = (
        "residual connections, batch or layer norm, ReLU-like activations, weights on a scale of their inputs (Kaiming)"
    )
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


def _fading(case: Case, flow: dict[str, float]) -> float:
    """How much smaller the relative gradient is in the first third of the layers than in the last."""
    layers = weights_in_order(case, flow)
    third = max(1, len(layers) // 3)
    first, last = max(layers[:third], default=1.0), max(layers[-third:], default=1.0)
    return first / last if len(layers) >= 3 and last > 0 else 1.0
