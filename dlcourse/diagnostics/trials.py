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

from dlcourse.diagnostics.case import Case, are_class_labels
from dlcourse.runtime import seed_everything


@dataclass(frozen=True)
class Scale:
    """Where the loss of a batch lies between two kinds of answers."""

    nothing: float
    """The loss of the best answer that does not look at the images."""
    best: float
    """The loss of answers that are as right as can be: above 0 where labels are soft or smoothed."""


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
    model: nn.Module | None = None
    """As it is after the training."""
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

    def learned(self, scale: Scale) -> bool:
        """Whether the batch was mostly learned by heart: halfway from knowing nothing to the best, or 9 of 10 right."""
        lowest = min(self.losses, default=math.inf)
        halfway = (scale.nothing + scale.best) / 2
        return lowest < halfway or lowest < 0.2 * self.first or max(self.accuracies, default=0.0) >= 0.9

    def stalled(self, over: int) -> bool:
        """Whether the last `over` steps brought next to nothing."""
        return len(self.losses) > 2 * over and min(self.losses[-over:]) > 0.97 * min(self.losses[:-over])


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
    trial = Trial(model=model)
    inputs, targets = batch
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def closure() -> float:
        loss, outputs = loss_of(case, model, inputs, targets)
        trial.losses.append(loss.item())
        if are_class_labels(outputs, targets):
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
        moves = [
            float((p.detach() - b).norm() / b.norm()) for p, b in zip(weights, before, strict=False) if bool(b.any())
        ]
        trial.stride = max(trial.stride, statistics.median(moves)) if moves else trial.stride
        if not math.isfinite(trial.losses[-1]) or until(trial) or case.late:
            break
    else:
        with torch.no_grad():
            trial.losses.append(loss_of(case, model, inputs, targets)[0].item())
    return trial


def loss_of(
    case: Case, model: nn.Module, inputs: Tensor, targets: Tensor, *, seed: int | None = None
) -> tuple[Tensor, Tensor]:
    """Loss and outputs on copies of the batch, with the case's random numbers (or others)."""
    seed_everything(case.seed if seed is None else seed)
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
    uniform = torch.full_like(outputs, 1 / outputs.shape[1]) if outputs.ndim >= 2 else constants[0]
    if are_class_labels(outputs, targets):
        constants = [uniform] if float(outputs.min()) >= 0 and float(outputs.max()) <= 1 else [uniform.log()]
    elif targets.is_floating_point() and outputs.shape == targets.shape:
        mean = targets.mean(dim=0, keepdim=True).expand_as(targets)
        constants.append(mean)
        if bool(((mean >= 0) & (mean <= 1)).all()):
            constants += [torch.logit(mean, eps=1e-3), mean.clamp(min=1e-4).log()]
    found = [cost for cost in _costs(case, constants, outputs, targets) if cost >= 0]  # below: not what the loss wants
    return (min(found), max(found)) if found else None


def scale_of(case: Case, batch: tuple[Tensor, Tensor]) -> Scale:
    """The scale of the loss on this batch."""
    model, _ = case.try_out()
    with torch.no_grad():
        loss, outputs = loss_of(case, model, *batch)
    constants = knowing_nothing(case, outputs, batch[1])
    nothing = constants[0] if constants is not None else loss.item()
    return Scale(nothing, min(max(0.0, _as_right_as_can_be(case, outputs, batch[1])), nothing))


def _as_right_as_can_be(case: Case, outputs: Tensor, targets: Tensor) -> float:
    if are_class_labels(outputs, targets) and outputs.shape[1] > 1:
        inside = targets.long().clamp(0, outputs.shape[1] - 1)
        answer = nn.functional.one_hot(inside, outputs.shape[1]).movedim(-1, 1).to(outputs)
        answers = [size * answer for size in (2, 4, 8, 16)]
    elif targets.is_floating_point() and outputs.shape == targets.shape:
        answers = [targets]
        if bool(((targets >= 0) & (targets <= 1)).all()):
            answers += [torch.logit(targets, eps=1e-3), targets.clamp(min=1e-4).log()]
    else:
        return 0.0
    return min(_costs(case, answers, outputs, targets), default=0.0)


def _costs(case: Case, answers: list[Tensor], outputs: Tensor, targets: Tensor) -> list[float]:
    """The finite losses of made-up answers, without those that the loss refuses."""
    costs = []
    for answer in answers:
        try:
            with torch.no_grad():
                costs.append(float(case.loss_fn(answer.to(outputs).clone(), targets.clone())))
        except Exception:
            continue
    return [cost for cost in costs if math.isfinite(cost)]
