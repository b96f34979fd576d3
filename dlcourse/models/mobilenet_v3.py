"""MobileNetV3: Howard et al. 2019, Searching for MobileNetV3 (arXiv:1905.02244); squeeze-and-excitation: Hu et al. 2017
(1709.01507).

The inverted residual of V2 with two additions: squeeze-and-excitation, which lets a global look at the channels decide
how much each of them counts, and hard-swish, x · relu6(x + 3) / 6. The gate is a hard sigmoid, relu6(x + 3) / 6. Names
and shapes are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from dlcourse.models.layers import check_images, initialize
from dlcourse.models.mobilenet_v2 import conv_norm_act
from dlcourse.models.registry import register_model

Activation = Callable[[], nn.Module]
Norm = Callable[[int], nn.Module]

SLOW_NORM: Norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)  # running statistics over about 100 batches

# Tables 1 and 2 of the paper: (kernel, expanded channels, channels, squeeze and excite, activation, stride).
RE, HS = nn.ReLU, nn.Hardswish
LARGE = (
    (3, 16, 16, False, RE, 1),
    (3, 64, 24, False, RE, 2),
    (3, 72, 24, False, RE, 1),
    (5, 72, 40, True, RE, 2),
    (5, 120, 40, True, RE, 1),
    (5, 120, 40, True, RE, 1),
    (3, 240, 80, False, HS, 2),
    (3, 200, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 480, 112, True, HS, 1),
    (3, 672, 112, True, HS, 1),
    (5, 672, 160, True, HS, 2),
    (5, 960, 160, True, HS, 1),
    (5, 960, 160, True, HS, 1),
)
SMALL = (
    (3, 16, 16, True, RE, 2),
    (3, 72, 24, False, RE, 2),
    (3, 88, 24, False, RE, 1),
    (5, 96, 40, True, HS, 2),
    (5, 240, 40, True, HS, 1),
    (5, 240, 40, True, HS, 1),
    (5, 120, 48, True, HS, 1),
    (5, 144, 48, True, HS, 1),
    (5, 288, 96, True, HS, 2),
    (5, 576, 96, True, HS, 1),
    (5, 576, 96, True, HS, 1),
)
BlockRow = tuple[int, int, int, bool, Activation, int]


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, at least `divisor`, and never more than a tenth below `value`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate in [0, 1] that a small network computes from all channel means.

    (B, C, H, W) -> (B, C, H, W); the gate goes C -> squeeze -> C.
    """

    def __init__(
        self, channels: int, squeeze: int, *, activation: Activation = nn.ReLU, gate: Activation = nn.Hardsigmoid
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeeze, 1)
        self.activation = activation()
        self.fc2 = nn.Conv2d(squeeze, channels, 1)
        self.scale_activation = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.fc2(self.activation(self.fc1(self.avgpool(x))))  # (B, C, H, W) -> (B, C, 1, 1)
        return x * self.scale_activation(gate)


class InvertedResidual(nn.Module):
    """Expand, look around, (squeeze and excite,) project: (B, in_channels, H, W) -> (B, out_channels, H/s, W/s)."""

    def __init__(
        self, in_channels: int, kernel_size: int, hidden: int, out_channels: int, squeeze: bool, activation: Activation,
        stride: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.has_shortcut = stride == 1 and in_channels == out_channels
        conv = partial(conv_norm_act, norm=SLOW_NORM, activation=activation)
        layers: list[nn.Module] = [conv(in_channels, hidden, 1)] if hidden != in_channels else []
        layers.append(conv(hidden, hidden, kernel_size, stride=stride, groups=hidden))
        if squeeze:
            layers.append(SqueezeExcitation(hidden, make_divisible(hidden // 4)))
        layers.append(conv(hidden, out_channels, 1, activation=None))
        self.block = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.has_shortcut else self.block(x)


class MobileNetV3(nn.Module):
    """Images to logits: (B, in_channels, H, W) -> (B, num_classes); `rows` are the blocks of the paper's table."""

    def __init__(
        self,
        rows: tuple[BlockRow, ...],
        last_channels: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        conv = partial(conv_norm_act, norm=SLOW_NORM, activation=nn.Hardswish)
        channels = 16
        features: list[nn.Module] = [conv(in_channels, channels, stride=2)]
        for kernel_size, hidden, out_channels, squeeze, activation, stride in rows:
            features.append(
                InvertedResidual(channels, kernel_size, hidden, out_channels, squeeze, activation, stride)
            )
            channels = out_channels
        self.features = nn.Sequential(*features, conv(channels, 6 * channels, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(6 * channels, last_channels), nn.Hardswish(), nn.Dropout(dropout),
            nn.Linear(last_channels, num_classes),
        )  # fmt: skip
        self.in_channels = in_channels
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_images(x, self.in_channels, training=self.training)
        x = self.avgpool(self.features(x))  # (B, C, H, W) -> (B, 6·c, H/32, W/32) -> (B, 6·c, 1, 1)
        return self.classifier(x.flatten(1))  # -> (B, 6·c) -> (B, num_classes)


@register_model
def mobilenet_v3_large(num_classes: int = 1000, in_channels: int = 3, *, dropout: float = 0.2) -> MobileNetV3:
    """MobileNetV3-Large: 5.5 M parameters with 1000 classes."""
    return MobileNetV3(LARGE, 1280, num_classes, in_channels, dropout=dropout)


@register_model
def mobilenet_v3_small(num_classes: int = 1000, in_channels: int = 3, *, dropout: float = 0.2) -> MobileNetV3:
    """MobileNetV3-Small: 2.5 M parameters with 1000 classes."""
    return MobileNetV3(SMALL, 1024, num_classes, in_channels, dropout=dropout)
