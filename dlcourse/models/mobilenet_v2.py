"""MobileNetV2: Sandler et al. 2018, Inverted residuals and linear bottlenecks (arXiv:1801.04381).

A block is thin at both ends and wide in the middle: expand by 1×1, look around depthwise, project by 1×1 without an
activation (ReLU on few channels loses what it cuts off). Names and shapes are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dlcourse.models.layers import check_images, initialize
from dlcourse.models.registry import register_model

# Table 2 of the paper: (expansion t, channels c, blocks n, stride of the first block s).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    activation: Callable[[], nn.Module] | None = nn.ReLU6,
) -> nn.Sequential:
    """Convolution without bias, normalisation and (unless None) activation, H and W divided by the stride alone."""
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    layers = [conv, norm(out_channels)]
    return nn.Sequential(*layers, activation()) if activation else nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand, look around, project: (B, in_channels, H, W) -> (B, out_channels, H/stride, W/stride).

    The shortcut joins the thin ends, where the block keeps its shape.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        expand = [conv_norm_act(in_channels, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            conv_norm_act(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """Images to logits: (B, in_channels, H, W) -> (B, num_classes)."""

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, *, dropout: float = 0.2) -> None:
        super().__init__()
        channels = 32
        features: list[nn.Module] = [conv_norm_act(in_channels, channels, stride=2)]
        for expansion, out_channels, blocks, stride in STAGES:
            for i in range(blocks):
                step = stride if i == 0 else 1
                features.append(InvertedResidual(channels, out_channels, stride=step, expansion=expansion))
                channels = out_channels
        self.features = nn.Sequential(*features, conv_norm_act(channels, 1280, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(1280, num_classes))
        self.in_channels = in_channels
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_images(x, self.in_channels, training=self.training)
        x = self.avgpool(self.features(x))  # (B, C, H, W) -> (B, 1280, H/32, W/32) -> (B, 1280, 1, 1)
        return self.classifier(x.flatten(1))  # -> (B, 1280) -> (B, num_classes)


@register_model
def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3, *, dropout: float = 0.2) -> MobileNetV2:
    """MobileNetV2 of width 1: 3.5 M parameters with 1000 classes."""
    return MobileNetV2(num_classes, in_channels, dropout=dropout)
