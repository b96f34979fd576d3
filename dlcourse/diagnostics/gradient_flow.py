"""How the gradient of one batch is spread over the parameters, and how far one step moves each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlcourse.diagnostics.traces import take_batch, without_a_trace, working_copy
from dlcourse.training.engine import LossFunction, forward, set_training_mode

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ParameterFlow:
    """One parameter tensor: L2 norms of its gradient, of itself, and of the step that the optimizer takes."""

    name: str
    shape: tuple[int, ...]
    gradient: float | None
    """None where no gradient arrives: frozen, detached or unused. That is not 0.0, a gradient of zeros."""
    weight: float
    update: float | None
    """None without an optimizer."""

    @property
    def update_ratio(self) -> float | None:
        """The step's norm over the weight's, for healthy trainings near 1e-3; None for weights that are all zero."""
        return None if self.update is None or self.weight == 0 else self.update / self.weight


@dataclass(frozen=True)
class GradientFlow:
    """What `gradient_flow` saw, one entry a parameter tensor in the model's order."""

    loss: float
    parameters: tuple[ParameterFlow, ...]

    def __getitem__(self, name: str) -> ParameterFlow:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(f"no parameter {name!r}; there are {', '.join(p.name for p in self.parameters)}")

    @property
    def total(self) -> float:
        """The L2 norm of all gradients together, as if they were one vector: what `clip_grad_norm_` returns."""
        return math.hypot(*(p.gradient for p in self.parameters if p.gradient is not None))

    def table(self) -> pd.DataFrame:
        """One row a parameter tensor: shape, gradient, weight, update, update_ratio; NaN where there is none."""
        import pandas as pd

        columns = ["shape", "gradient", "weight", "update", "update_ratio"]
        rows = [[getattr(p, column) for column in columns] for p in self.parameters]
        table = pd.DataFrame(rows, index=pd.Index([p.name for p in self.parameters], name="parameter"), columns=columns)
        return table.astype(dict.fromkeys(columns[1:], float))


def gradient_flow(
    model: nn.Module, data: Any, loss_fn: LossFunction, optimizer: torch.optim.Optimizer | None = None
) -> GradientFlow:
    """The gradient of one batch, in train mode: `data` is a batch (inputs, targets) or a loader, whose first is taken.

    With an optimizer also the step it would take. Everything happens on copies: weights, buffers, gradients, modes,
    optimizer and random generators are afterwards as they were.
    """
    with without_a_trace(data):
        batch = take_batch(data)
        model, optimizer = working_copy(model, optimizer)
        set_training_mode(model)
        model.zero_grad()
        loss, _, _ = forward(model, batch, loss_fn)
        loss.backward()
        parameters = dict(model.named_parameters())
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        gradients = {name: None if p.grad is None else norm(p.grad) for name, p in parameters.items()}
        if optimizer is not None:
            optimizer.step()
        updates = {name: None if optimizer is None else norm(p - before[name]) for name, p in parameters.items()}
    return GradientFlow(
        loss.item(),
        tuple(ParameterFlow(n, tuple(w.shape), gradients[n], norm(w), updates[n]) for n, w in before.items()),
    )


def norm(tensor: Tensor) -> float:
    """The L2 norm, in float64 so that the square of a large gradient does not overflow."""
    return tensor.detach().cpu().double().norm().item()
