"""The registered models as the tests build them: on small images, with weights that hide nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dlcourse.models import create_model, list_models

# Of each family the members with code of their own run every time; the others differ from them by the numbers of a table.
EVERYDAY = {
    "simple_cnn", "resnet18", "resnet50", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
    "efficientnet_b0", "vit_tiny_patch16",
}  # fmt: skip

each_model = pytest.mark.parametrize(
    "name", [name if name in EVERYDAY else pytest.param(name, marks=pytest.mark.large) for name in list_models()]
)


def patch_of(name: str) -> int:
    """16 of "vit_tiny_patch16"."""
    return int(name.rpartition("patch")[2])


def sides(name: str) -> tuple[int, int]:
    """Small images on which the model still computes something everywhere: (height, width), not square."""
    return (2 * patch_of(name), 3 * patch_of(name)) if name.startswith("vit") else (64, 96)


def build(name: str, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """The model for images of `sides(name)`, in training mode, without dropout and drop path, `lively`."""
    options: dict[str, Any] = {"img_size": sides(name)} if name.startswith("vit") else {}
    model = lively(without_chance(create_model(name, num_classes, in_channels, **options)))
    return settled(model, images(name, 8, in_channels)) if name.startswith("efficientnet") else model


def settled(model: nn.Module, batch: torch.Tensor) -> nn.Module:
    """Let the running statistics be those of a batch, in training mode. With statistics drawn at random the 55 blocks of
    EfficientNet-B7 multiply rounding errors until two float32 computations of one function have little in common."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


def images(name: str, batch: int = 2, channels: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(batch, channels, *sides(name)), the same on each call."""
    return torch.randn(batch, channels, *sides(name), generator=torch.Generator().manual_seed(1), dtype=dtype)


def without_chance(model: nn.Module) -> nn.Module:
    """Set every rate of dropout and drop path, ours and the libraries', to zero."""
    for module in model.modules():
        if "drop" in type(module).__name__.lower() or "StochasticDepth" in type(module).__name__:
            for rate in ("p", "drop_prob"):
                if hasattr(module, rate):
                    setattr(module, rate, 0.0)
    return model


def lively(model: nn.Module) -> nn.Module:
    """Draw what initialisation leaves at 0 or 1: biases, the norms' weights and running statistics, the head.

    Weights that scale stay around 1 and running variances positive, so that the signal lives through the depth.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.7, 1.3, generator=generator)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.1, generator=generator)
            elif name.startswith(("fc.", "head.", "classifier.")):
                tensor.normal_(0, tensor.shape[1] ** -0.5, generator=generator)
    return model
