"""What the trainings of the clinic are built of: tiny data sets, tiny networks, and the loaders and optimizers around them.

Every builder draws from torch's global generator, which `Case.build` seeds: a training is the same each time it is built.
Every tensor given out is a copy of the caller's own, so that a model that writes into its input spoils nobody else's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dlcourse.data import load_dataset
from dlcourse.models import VisionTransformer
from dlcourse.models.mobilenet_v1 import DepthwiseSeparable
from dlcourse.models.resnet import BasicBlock

LossFunction = Callable[[Tensor, Tensor], Tensor]
MEAN, STD = 0.286, 0.332  # of the training images of fashion-mini in [0, 1], padding and pooling included


@dataclass
class Training:
    """All that a training loop takes. `scheduler` is there only because it holds and has changed the optimizer."""

    model: nn.Module
    loader: Iterable[Any]
    loss_fn: LossFunction
    optimizer: torch.optim.Optimizer | None
    val_loader: Iterable[Any] | None = None
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None


@dataclass(frozen=True)
class Case:
    """A training by name; `codes` are the planted faults, none when it is healthy."""

    name: str
    builder: Callable[[], Training]
    codes: tuple[str, ...] = ()

    def build(self, seed: int = 0) -> Training:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        return self.builder()

    def __str__(self) -> str:
        return self.name


def training(
    model: nn.Module,
    loader: Iterable[Any],
    loss_fn: LossFunction | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    val_loader: Iterable[Any] | None = None,
) -> Training:
    """With cross-entropy and SGD (0.05, momentum 0.9) for what is not said."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Training(model, loader, loss_fn or nn.CrossEntropyLoss(), optimizer, val_loader)


def adam(model: nn.Module, lr: float = 2e-3, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr, **options)


def sgd(model: nn.Module, lr: float = 0.05, momentum: float = 0.9, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, **options)


# Data


@cache
def _fashion() -> tuple[Tensor, Tensor]:
    """900 training images at 16×16, one channel, 0 … 255, in an order without a meaning; loaded once a process."""
    data = load_dataset("fashion-mini", "train")
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:900]
    return F.avg_pool2d(data.images[chosen, :1].float(), 2), torch.tensor(data.targets)[chosen]


def bytes_of_fashion(size: int = 512, channels: int = 1, start: int = 0) -> tuple[Tensor, Tensor]:
    """Images (N, channels, 16, 16) as a file holds them, but float: 0 … 255. Labels 0 … 9."""
    images, labels = _fashion()
    chosen = slice(start, start + size)
    return images[chosen].repeat(1, channels, 1, 1), labels[chosen].clone()


def fashion(size: int = 512, channels: int = 1, start: int = 0) -> tuple[Tensor, Tensor]:
    """Standardised images (N, channels, 16, 16) and their labels 0 … 9."""
    images, labels = bytes_of_fashion(size, channels, start)
    return (images / 255 - MEAN) / STD, labels


def gratings(size: int = 512, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Coloured stripes (N, 3, 16, 16) about [−1, 1], at four angles: labels 0 … 3."""
    labels = torch.randint(4, (size,))
    angle = labels * torch.pi / 4 + 0.1 * torch.randn(size)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    along = angle.cos()[:, None, None] * rows + angle.sin()[:, None, None] * columns  # (N, 16, 16)
    phase = torch.rand(size, 3, 1, 1) * 0.8 + torch.rand(size, 1, 1, 1) * 2 * torch.pi
    colour = torch.tensor([1.0, 0.6, 0.3])[:, None, None] * (0.7 + 0.3 * torch.rand(size, 3, 1, 1))
    return colour * (1.2 * along[:, None] + phase).sin() + noise * torch.randn(size, 3, 16, 16), labels


def blobs(size: int = 512, dim: int = 8, classes: int = 4, spread: float = 0.7) -> tuple[Tensor, Tensor]:
    """Points (N, dim) around `classes` centres."""
    centres, labels = torch.randn(classes, dim), torch.randint(classes, (size,))
    return centres[labels] + spread * torch.randn(size, dim), labels


def table(size: int = 512, dim: int = 8) -> tuple[Tensor, Tensor]:
    """Regression: features (N, dim) and a target (N, 1), all of mean 0 and standard deviation 1."""
    x = torch.randn(size, dim)
    y = x[:, :1] + 0.8 * torch.sin(2 * x[:, 1:2]) - x[:, 2:3] * x[:, 3:4] * 0.5 + 0.05 * torch.randn(size, 1)
    return x, (y - y.mean()) / y.std()


def squares(size: int = 512, labels: int = 4, share: float = 0.4) -> tuple[Tensor, Tensor]:
    """Multi-label: images (N, 1, 16, 16) with a bright square in some quarters; targets (N, labels) 0.0 or 1.0."""
    targets = (torch.rand(size, labels) < share).float()
    images = 0.4 * torch.randn(size, 1, 16, 16)
    for label in range(labels):
        row, column = 8 * (label // 2) + 2, 8 * (label % 2) + 2
        images[:, 0, row : row + 4, column : column + 4] += 1.5 * targets[:, label, None, None]
    return images, targets


def batches(x: Tensor, y: Tensor, batch_size: int = 32, *, shuffle: bool = True, **options: Any) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(x, y), batch_size, shuffle=shuffle, generator=generator, **options)


def listed(x: Tensor, y: Tensor, batch_size: int = 32) -> list[tuple[Tensor, Tensor]]:
    """The same as a plain list of pairs, in the order of the data."""
    return list(zip(x.split(batch_size), y.split(batch_size), strict=True))


def in_order_of(key: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    order = key.argsort(stable=True)
    return tuple(tensor[order] for tensor in tensors)


# Networks


class Net(nn.Module):
    """Features and a head; the faults override `forward`."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Call(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def norm_layer(norm: str | None, channels: int) -> nn.Module:
    if norm is None:
        return nn.Identity()
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1 if norm == "layer" else 4, channels)


def mlp(
    inputs: int = 256,
    outputs: int = 10,
    hidden: Iterable[int] = (64, 32),
    act: Callable[[], nn.Module] = nn.ReLU,
    kind: type[Net] = Net,
) -> Net:
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(inputs, width), act()]
        inputs = width
    return kind(nn.Sequential(*layers), nn.Linear(inputs, outputs))


def deep_mlp(depth: int, inputs: int = 256, outputs: int = 10, width: int = 32, act: Any = nn.ReLU) -> Net:
    return mlp(inputs, outputs, [width] * depth, act)


def cnn(
    classes: int = 10,
    channels: int = 1,
    width: int = 8,
    *,
    norm: str | None = None,
    act: Callable[[], nn.Module] = nn.ReLU,
    kind: type[Net] = Net,
) -> Net:
    """Two convolutions, each halving the 16×16 pixels, and a linear head."""
    features = nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1), norm_layer(norm, width), act(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), norm_layer(norm, 2 * width), act(),
        nn.Flatten(),
    )  # fmt: skip
    return kind(features, nn.Linear(2 * width * 16, classes))


def plain_cnn(depth: int, classes: int = 10, channels: int = 1, width: int = 8, norm: str | None = None) -> Net:
    """`depth` convolutions one after another, without shortcuts."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, stride=2, padding=1)]
    for _ in range(depth):
        layers += [norm_layer(norm, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
    layers += [norm_layer(norm, width), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    return Net(nn.Sequential(*layers), nn.Linear(16 * width, classes))


def resnet(classes: int = 10, channels: int = 1, width: int = 8, kind: type[Net] = Net) -> Net:
    """Two of the course's basic blocks behind a stem, the first with an identity for its shortcut."""
    features = nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        BasicBlock(width, width), BasicBlock(width, 2 * width, stride=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    return kind(features, nn.Linear(2 * width, classes))


def depthwise(classes: int = 10, channels: int = 1, width: int = 16) -> Net:
    """Three depthwise separable blocks of MobileNetV1."""
    features = nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU6(),
        DepthwiseSeparable(width, 2 * width), DepthwiseSeparable(2 * width, 2 * width, stride=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    return Net(features, nn.Linear(2 * width, classes))


def vit(
    classes: int = 10, channels: int = 1, kind: type[VisionTransformer] = VisionTransformer, **options: Any
) -> VisionTransformer:
    """Two blocks over sixteen patches."""
    options = {"patch_size": 4, "dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0, **options}
    return kind(classes, channels, img_size=16, **options)


def weighted_layers(model: nn.Module) -> list[Any]:
    """Its convolutions and linear layers, in order."""
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def draw(model: nn.Module, std: float) -> Any:
    """All weights from N(0, std²), biases zero; returns the model."""
    for layer in weighted_layers(model):
        nn.init.normal_(layer.weight, std=std)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model


def kaiming(model: nn.Module, gain: float = 1.0, head: bool = False) -> Any:
    """Weights of the size that keeps ReLU activations as they are, times `gain` in all layers but the last."""
    layers = weighted_layers(model)
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for layer in layers if head else layers[:-1]:
            layer.weight *= gain
    return model


def steps_of(training: Training, steps: int, *, zero: bool = True, step: bool = True) -> Training:
    """Train in place for `steps` batches; zero=False forgets zero_grad, step=False only adds up gradients."""
    done = 0
    while done < steps:
        for x, y in training.loader:
            if zero:
                training.optimizer.zero_grad()
            training.loss_fn(training.model(x), y).backward()
            if step:
                training.optimizer.step()
            done += 1
            if done == steps:
                break
    return training
