"""Short trainings on one batch: the doctor tries a treatment and looks whether it helps."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from dlcourse.diagnostics.case import Case, seed_all
from dlcourse.training.batches import are_labels


@dataclass
class Trial:
    """How a short training on one batch went."""

    losses: list[float] = field(default_factory=list)
    """Before each step, and after the last; it ends at the first that is not finite."""
    accuracies: list[float] = field(default_factory=list)
    flows: list[dict[str, float]] = field(default_factory=list)
    """Of each step: norm of the gradient over that of the weight, by parameter; 0 for a gradient of zeros."""
    stride: float = 0.0
    """How far the first steps move a weight, over its size: the median over the weights of at least two dimensions."""
    spread: float = 0.0
    """How much the last outputs differ from sample to sample."""

    @property
    def first(self) -> float:
        return self.losses[0]

    @property
    def last(self) -> float:
        """The loss at the end: the mean of the last three, infinite when it was lost."""
        tail = self.losses[-3:]
        return sum(tail) / len(tail) if all(math.isfinite(loss) for loss in tail) else math.inf

    def learned(self, nothing: float) -> bool:
        """Whether the batch was mostly learned by heart: half of the loss of knowing nothing is gone, or 9 of 10 are right."""
        return min(self.losses, default=math.inf) < 0.5 * nothing or max(self.accuracies, default=0.0) >= 0.9


def train_on(
    case: Case,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    steps: int,
    until: Callable[[Trial], bool] = lambda trial: False,
) -> Trial:
    """Train on one batch for some steps, or until it is enough. Each step draws the same random numbers (dropout).

    Gradients are put only where they belong, into this copy's own parameters: a loss that refers to the user's model
    must not leave gradients there.
    """
    trial = Trial()
    inputs, targets = batch
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def closure() -> float:
        loss, outputs = loss_of(case, model, inputs, targets)
        trial.losses.append(loss.item())
        if are_labels(outputs, targets):
            trial.accuracies.append(float((outputs.argmax(dim=1) == targets).float().mean()))
        trial.spread = float(outputs.detach().float().std(dim=0).mean()) if len(outputs) > 1 else math.nan
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True) if loss.requires_grad else []
        for parameter, gradient in zip(named.values(), gradients, strict=False):
            parameter.grad = gradient
        trial.flows.append({name: relative(p) for name, p in named.items() if p.grad is not None})
        return loss.item()

    weights = [p for p in named.values() if p.ndim >= 2]
    for step in range(steps):
        for parameter in model.parameters():
            parameter.grad = None
        before = [p.detach().clone() for p in weights] if step < 3 else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step(closure)
        moves = [float((p.detach() - b).norm() / b.norm()) for p, b in zip(weights, before, strict=False) if bool(b.any())]
        trial.stride = max(trial.stride, statistics.median(moves)) if moves else trial.stride
        if not math.isfinite(trial.losses[-1]) or until(trial) or case.late:
            break
    else:
        with torch.no_grad():
            trial.losses.append(loss_of(case, model, inputs, targets)[0].item())
    return trial


def loss_of(case: Case, model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and outputs on copies of the batch, with the case's random numbers."""
    seed_all(case.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = model(inputs.clone())
        return case.loss_fn(outputs, targets.clone()), outputs


def relative(parameter: Tensor) -> float:
    """The norm of the gradient over the norm of the parameter."""
    if parameter.grad is None:
        return 0.0
    return float(parameter.grad.norm() / parameter.detach().norm().clamp(min=1e-12))


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
    return model


def knowing_nothing(case: Case, outputs: Tensor, targets: Tensor) -> tuple[float, float] | None:
    """The loss of answers that do not look at the image: the best and the worst of some constants. None if it refuses all."""
    constants = [torch.zeros_like(outputs)]
    if outputs.ndim == 2 and outputs.shape[1] > 1 and are_labels(outputs, targets):
        uniform = torch.full_like(outputs, 1 / outputs.shape[1])
        low = float(outputs.min())
        constants = [uniform] if 0 <= low <= 1 and float(outputs.max()) <= 1 else [uniform.log()]
    elif targets.is_floating_point() and outputs.shape == targets.shape:
        mean = targets.mean(dim=0, keepdim=True).expand_as(targets)
        constants.append(mean)
        if bool(((mean >= 0) & (mean <= 1)).all()):
            constants.append(torch.logit(mean, eps=1e-3))
    found = []
    for constant in constants:
        try:
            with torch.no_grad():
                found.append(float(case.loss_fn(constant.to(outputs).clone(), targets.clone())))
        except Exception:
            continue
    found = [value for value in found if math.isfinite(value)]
    return (min(found), max(found)) if found else None
