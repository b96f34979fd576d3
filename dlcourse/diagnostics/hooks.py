"""What each layer gives out, seen by forward hooks: size, dead units, saturation.

A unit behind a ReLU that is zero for every input gets no gradient and cannot come back (Lu et al. 2019,
arXiv:1903.06733). A saturated sigmoid or tanh has hardly any slope (Glorot and Bengio 2010). Only modules are seen: what
a `forward` computes with functions (`F.relu`, `torch.tanh`) has no hook.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

MARGIN = 0.01
"""Saturated: this share of the range, or less, away from a bound."""


@dataclass(frozen=True)
class ActivationStats:
    """Numbers about one output of one module, over all its samples."""

    kind: str
    """The module's class: "Conv2d", "ReLU" …"""
    shape: tuple[int, ...]
    mean: float
    std: float
    rms: float
    """The root of the mean square: the size of the signal."""
    dead: float
    """The share of units that are 0 for every sample and position. A unit is a channel of (B, C, H, W), a feature of
    (B, D) or (B, N, D)."""
    saturated: float | None
    """The share of values within 1 % of the range of a bound; None for a module without bounds (or with one, as ReLU)."""
    finite: bool


@contextmanager
def record_activations(model: nn.Module) -> Iterator[dict[str, ActivationStats]]:
    """Inside the block, each forward pass of `model` fills the mapping that it yields: module name → statistics.

    It holds the modules without children of the last pass, in the order in which they ran. One that runs twice in a pass
    has two entries, "relu" and "relu (2)". Only numbers are kept, no tensor; the hooks go when the block ends, also by
    an error. Outputs without a floating-point tensor are left out; of several tensors the first counts.

    >>> model = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    >>> with record_activations(model) as record:
    ...     output = model(torch.zeros(5, 4))
    >>> {name: (stats.kind, stats.shape) for name, stats in record.items()}
    {'0': ('Linear', (5, 2)), '1': ('ReLU', (5, 2))}
    """
    record: dict[str, ActivationStats] = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            stats, runs = activation_stats(module, output), 1
            if stats is not None:
                while (key := name if runs == 1 else f"{name} ({runs})") in record:
                    runs += 1
                record[key] = stats

        return keep

    handles = [model.register_forward_pre_hook(lambda module, inputs: record.clear())]
    try:
        for name, module in model.named_modules():
            if not list(module.children()):
                handles.append(module.register_forward_hook(hook(name)))
        yield record
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def activation_stats(module: nn.Module, output: Any) -> ActivationStats | None:
    """The statistics of one output of `module`; None when it holds no floating-point tensor."""
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if not tensors or not tensors[0].numel():
        return None
    values = tensors[0].detach().float()
    numbers = [values.mean(), values.std(correction=0), values.square().mean().sqrt(), dead_share(values)]
    mean, std, rms, dead = torch.stack(numbers).tolist()
    bounds = _bounds(module)
    saturated = None
    if bounds is not None:
        near = MARGIN * (bounds[1] - bounds[0])
        saturated = ((values <= bounds[0] + near) | (values >= bounds[1] - near)).float().mean().item()
    finite = bool(torch.isfinite(values).all())
    return ActivationStats(type(module).__name__, tuple(values.shape), mean, std, rms, dead, saturated, finite)


def dead_share(values: Tensor) -> Tensor:
    """The share of units that are 0 throughout: channels of (B, C, H, W), features of (B, D) or (B, N, D)."""
    unit = 1 if values.ndim in (2, 4, 5) else -1
    rows = values.reshape(-1, 1) if values.ndim < 2 else values.movedim(unit, -1).flatten(0, -2)  # (…, units)
    return (rows == 0).all(dim=0).float().mean()


def _bounds(module: nn.Module) -> tuple[float, float] | None:
    if isinstance(module, nn.Sigmoid | nn.Hardsigmoid):
        return 0.0, 1.0
    if isinstance(module, nn.Tanh):
        return -1.0, 1.0
    if isinstance(module, nn.Hardtanh) and not isinstance(module, nn.ReLU6):  # whose lower bound is a ReLU's
        return module.min_val, module.max_val
    return None
