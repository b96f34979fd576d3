"""What a forward pass does in each layer: the doctor's own look, by hooks, at inputs and outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

BOUNDS: dict[type[nn.Module], tuple[float, float]] = {
    nn.Sigmoid: (0.0, 1.0),
    nn.Tanh: (-1.0, 1.0),
    nn.Hardtanh: (-1.0, 1.0),
    nn.Softsign: (-1.0, 1.0),
}
"""Activations with flat ends, and where these are. (Gates such as Hardsigmoid may rest at an end.)"""


@dataclass(frozen=True)
class LayerLook:
    """One call of a leaf module."""

    name: str
    module: nn.Module
    input_rms: float
    rms: float
    """Root mean square of the output, NaN when it is not finite."""
    variation: float
    """Root mean square of how the outputs of the samples differ from their mean."""
    dead: float
    """Share of the units entering it that are 0 for every sample and place (in the best of its calls)."""
    saturated: float
    """Share of the values leaving (or, after a function instead of a module, entering) it at the flat ends of a sigmoid or tanh."""

    @property
    def weighted(self) -> bool:
        """Whether it multiplies by weights: a convolution, a linear layer, not a norm."""
        weight = getattr(self.module, "weight", None)
        return isinstance(weight, Tensor) and weight.ndim >= 2 and not isinstance(self.module, nn.Embedding)


def look_at_layers(model: nn.Module, inputs: Tensor) -> tuple[Tensor, list[LayerLook]]:
    """Run the model with hooks on its leaves (removed afterwards): its outputs, and what was seen, in order of execution."""
    looks: list[LayerLook] = []
    names = {module: name for name, module in model.named_modules()}

    def look(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        entering = args[0].detach() if args and isinstance(args[0], Tensor) else None
        leaving = output[0] if isinstance(output, tuple) else output
        if not isinstance(leaving, Tensor) or not leaving.is_floating_point():
            return
        raw = entering is None or entering.data_ptr() == inputs.data_ptr() or not any(each.weighted for each in looks)
        looks.append(
            LayerLook(
                names.get(module, type(module).__name__) or type(module).__name__,
                module,
                _rms(entering) if entering is not None and entering.is_floating_point() else 1.0,
                _rms(leaving.detach()),
                _rms(leaving.detach() - leaving.detach().mean(dim=0)),
                0.0 if raw or entering is None else _dead(entering),
                max(_saturated(module, leaving.detach()), 0.0 if raw or entering is None else _at_ends(entering)),
            )
        )

    handles = [module.register_forward_hook(look) for module in model.modules() if not any(module.children())]
    try:
        with torch.no_grad():
            outputs = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    alive: dict[nn.Module, float] = {}
    for each in looks:  # a layer that is called several times starts from a state of zeros
        alive[each.module] = min(each.dead, alive.get(each.module, 1.0))
    return outputs, [replace(each, dead=alive[each.module]) for each in looks]


def entering_first_weights(model: nn.Module, inputs: Tensor) -> tuple[nn.Module | None, Tensor]:
    """The first leaf module with a weight that a forward pass calls, and what goes into it (the inputs, when there is none)."""
    entering: list[tuple[nn.Module | None, Tensor]] = []
    leaves = [m for m in model.modules() if isinstance(getattr(m, "weight", None), Tensor) and not any(m.children())]
    handles = [m.register_forward_pre_hook(lambda m, args: entering.append((m, args[0].detach()))) for m in leaves]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [*entering, (None, inputs)][0]


def _rms(values: Tensor) -> float:
    rms = float(values.float().square().mean().sqrt())
    return rms if math.isfinite(rms) else math.nan


def _dead(entering: Tensor) -> float:
    if entering.ndim < 2 or not entering.is_floating_point() or len(entering) < 2:
        return 0.0
    units = 1 if entering.ndim != 3 else 2  # (B, C, H, W) and (B, D) against (B, N, D)
    zero = (entering == 0).movedim(units, 0).flatten(1).all(dim=1)
    return float(zero.float().mean())


def _saturated(module: nn.Module, leaving: Tensor) -> float:
    for kind, (low, high) in BOUNDS.items():
        if isinstance(module, kind) and not isinstance(module, nn.ReLU6):
            margin = 0.01 * (high - low)
            return float(((leaving < low + margin) | (leaving > high - margin)).float().mean())
    return 0.0


def _at_ends(entering: Tensor) -> float:
    """The share of values at the ends of [−1, 1] or (0, 1), when that is where all of them lie."""
    if not entering.is_floating_point() or entering.numel() < 64:
        return 0.0
    low, high = (float(value) for value in torch.aminmax(entering))
    if bool(((entering == low) | (entering == high)).all()):
        return 0.0  # two values only: binary on purpose
    if -1 <= low < -0.9 and 0.9 < high <= 1:
        return float((entering.abs() > 0.98).float().mean())
    if 0 <= low < 0.1 and 0.9 < high <= 1 and float((entering == 0).float().mean()) < 0.1:
        return float(((entering < 0.01) | (entering > 0.99)).float().mean())
    return 0.0
