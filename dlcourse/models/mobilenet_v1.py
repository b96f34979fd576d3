"""MobileNetV1: Howard et al. 2017, MobileNets (arXiv:1704.04861).

Every 3×3 convolution becomes two: a depthwise one that looks around within each channel, and a pointwise one (1×1) that
mixes the channels. Names and shapes are those of timm's `mobilenetv1_100`; like it, ReLU6 stands where the paper has ReLU.
"""

from __future__ import annotations

import torch
from torch import nn

from dlcourse.models.layers import check_images, initialize
from dlcourse.models.registry import register_model

# Table 1 of the paper after the stem: (channels, blocks, stride of the first block).
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


class DepthwiseSeparable(nn.Module):
    """Look around, then mix: (B, in_channels, H, W) -> (B, out_channels, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU6()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.bn1(self.conv_dw(x)))
        return self.act(self.bn2(self.conv_pw(x)))


class MobileNetV1(nn.Module):
    """Images to logits: (B, in_channels, H, W) -> (B, num_classes)."""

    def __init__(self, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        channels = 32
        self.conv_stem = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act = nn.ReLU6()
        stages = []
        for out_channels, blocks, stride in STAGES:
            first = DepthwiseSeparable(channels, out_channels, stride=stride)
            rest = [DepthwiseSeparable(out_channels, out_channels) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *rest))
            channels = out_channels
        self.blocks = nn.Sequential(*stages)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_images(x, self.conv_stem.in_channels, training=self.training)
        x = self.act(self.bn1(self.conv_stem(x)))  # (B, C, H, W) -> (B, 32, H/2, W/2)
        x = self.blocks(x)  # -> (B, 1024, H/32, W/32)
        return self.classifier(self.global_pool(x).flatten(1))  # -> (B, 1024) -> (B, num_classes)


@register_model
def mobilenet_v1(num_classes: int = 1000, in_channels: int = 3) -> MobileNetV1:
    """MobileNetV1 of width 1: 4.2 M parameters with 1000 classes."""
    return MobileNetV1(num_classes, in_channels)
