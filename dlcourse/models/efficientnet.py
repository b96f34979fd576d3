"""EfficientNet-B0 to B7: Tan and Le 2019, Rethinking model scaling for convolutional neural networks (arXiv:1905.11946).

MBConv is the inverted residual of MobileNetV2 with squeeze-and-excitation and SiLU. B0 was found by search; B1 to B7 are
B0 with more channels (width), more blocks (depth) and larger images (resolution). The factors are those of the released
models; the paper's formula, depth α^φ, width β^φ, resolution γ^φ, gives slightly others. Names and shapes are
torchvision's, and so are the deviations from the paper: padding is symmetric, and B5 to B7 alone have a batch norm with
eps 0.001 and momentum 0.01.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from dlcourse.models.layers import DropPath, check_images, initialize
from dlcourse.models.mobilenet_v2 import conv_norm_act
from dlcourse.models.mobilenet_v3 import SLOW_NORM, Norm, SqueezeExcitation, make_divisible
from dlcourse.models.registry import register_model


class Scale(NamedTuple):
    """How a variant is scaled from B0: factors of width and depth, pixels a side it was trained on, dropout."""

    width: float
    depth: float
    resolution: int
    dropout: float
    norm: Norm = nn.BatchNorm2d


# Table 1 of the paper, the stages of B0: (expansion, channels, blocks, stride of the first block, kernel).
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
SCALES = {
    "b0": Scale(1.0, 1.0, 224, 0.2),
    "b1": Scale(1.0, 1.1, 240, 0.2),
    "b2": Scale(1.1, 1.2, 260, 0.3),
    "b3": Scale(1.2, 1.4, 300, 0.3),
    "b4": Scale(1.4, 1.8, 380, 0.4),
    "b5": Scale(1.6, 2.2, 456, 0.4, SLOW_NORM),
    "b6": Scale(1.8, 2.6, 528, 0.5, SLOW_NORM),
    "b7": Scale(2.0, 3.1, 600, 0.5, SLOW_NORM),
}


class MBConv(nn.Module):
    """Expand, look around, squeeze and excite, project: (B, in_channels, H, W) -> (B, out_channels, H/s, W/s).

    The squeeze is a quarter of `in_channels`. Where there is a shortcut, `drop_path` drops the branch by sample.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        kernel_size: int,
        stride: int,
        norm: Norm = nn.BatchNorm2d,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.has_shortcut = stride == 1 and in_channels == out_channels
        conv = partial(conv_norm_act, norm=norm, activation=nn.SiLU)
        hidden = make_divisible(in_channels * expansion)
        self.block = nn.Sequential(
            *([conv(in_channels, hidden, 1)] if expansion != 1 else []),
            conv(hidden, hidden, kernel_size, stride=stride, groups=hidden),
            SqueezeExcitation(hidden, max(1, in_channels // 4), activation=nn.SiLU, gate=nn.Sigmoid),
            conv(hidden, out_channels, 1, activation=None),
        )
        self.stochastic_depth = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.stochastic_depth(self.block(x)) if self.has_shortcut else self.block(x)


class EfficientNet(nn.Module):
    """Images to logits: (B, in_channels, H, W) -> (B, num_classes). `drop_path` grows linearly with the depth."""

    def __init__(
        self,
        scale: Scale,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        dropout: float | None = None,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        conv = partial(conv_norm_act, norm=scale.norm, activation=nn.SiLU)
        depths = [math.ceil(blocks * scale.depth) for _, _, blocks, _, _ in STAGES]
        channels = make_divisible(32 * scale.width)
        stages: list[nn.Module] = [conv(in_channels, channels, stride=2)]
        built = 0
        for depth, (expansion, base, _, stride, kernel_size) in zip(depths, STAGES, strict=True):
            out_channels, blocks = make_divisible(base * scale.width), []
            for i in range(depth):
                blocks.append(
                    MBConv(
                        channels, out_channels, expansion=expansion, kernel_size=kernel_size,
                        stride=stride if i == 0 else 1, norm=scale.norm, drop_path=drop_path * built / sum(depths),
                    )
                )  # fmt: skip
                channels, built = out_channels, built + 1
            stages.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*stages, conv(channels, 4 * channels, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        p = scale.dropout if dropout is None else dropout
        self.classifier = nn.Sequential(nn.Dropout(p), nn.Linear(4 * channels, num_classes))
        self.in_channels = in_channels
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_images(x, self.in_channels, training=self.training)
        x = self.avgpool(self.features(x))  # (B, C, H, W) -> (B, 4·c, H/32, W/32) -> (B, 4·c, 1, 1)
        return self.classifier(x.flatten(1))  # -> (B, 4·c) -> (B, num_classes)


@register_model
def efficientnet_b0(
    num_classes: int = 1000, in_channels: int = 3, *, dropout: float | None = None, drop_path: float = 0.2
) -> EfficientNet:
    """EfficientNet-B0: 5.3 M parameters with 1000 classes; trained on images of 224 pixels."""
    return EfficientNet(SCALES["b0"], num_classes, in_channels, dropout=dropout, drop_path=drop_path)


@register_model
def efficientnet_b1(
    num_classes: int = 1000, in_channels: int = 3, *, dropout: float | None = None, drop_path: float = 0.2
) -> EfficientNet:
    """EfficientNet-B1: 7.8 M parameters with 1000 classes; trained on images of 240 pixels."""
    return EfficientNet(SCALES["b1"], num_classes, in_channels, dropout=dropout, drop_path=drop_path)


@register_model
def efficientnet_b2(
    num_classes: int = 1000, in_channels: int = 3, *, dropout: float | None = None, drop_path: float = 0.2
) -> EfficientNet:
    """EfficientNet-B2: 9.1 M parameters with 1000 classes; trained on images of 260 pixels."""
    return EfficientNet(SCALES["b2"], num_classes, in_channels, dropout=dropout, drop_path=drop_path)


@register_model
def efficientnet_b3(
    num_classes: int = 1000, in_channels: int = 3, *, dropout: float | None = None, drop_path: float = 0.2
) -> EfficientNet:
    """EfficientNet-B3: 12.2 M parameters with 1000 classes; trained on images of 300 pixels."""
    return EfficientNet(SCALES["b3"], num_classes, in_channels, dropout=dropout, drop_path=drop_path)


@register_model
def efficientnet_b4(
    num_classes: int = 1000, in_channels: int = 3, *, dropout: float | None = None, drop_path: float = 0.2
) -> EfficientNet:
    """EfficientNet-B4: 19.3 M parameters with 1000 classes; trained on images of 380 pixels."""
    return EfficientNet(SCALES["b4"], num_classes, in_channels, dropout=dropout, drop_path=drop_path)


@register_model
def efficientnet_b5(
    num_classes: int = 1000, in_channels: int = 3, *, dropout: float | None = None, drop_path: float = 0.2
) -> EfficientNet:
    """EfficientNet-B5: 30.4 M parameters with 1000 classes; trained on images of 456 pixels."""
    return EfficientNet(SCALES["b5"], num_classes, in_channels, dropout=dropout, drop_path=drop_path)


@register_model
def efficientnet_b6(
    num_classes: int = 1000, in_channels: int = 3, *, dropout: float | None = None, drop_path: float = 0.2
) -> EfficientNet:
    """EfficientNet-B6: 43.0 M parameters with 1000 classes; trained on images of 528 pixels."""
    return EfficientNet(SCALES["b6"], num_classes, in_channels, dropout=dropout, drop_path=drop_path)


@register_model
def efficientnet_b7(
    num_classes: int = 1000, in_channels: int = 3, *, dropout: float | None = None, drop_path: float = 0.2
) -> EfficientNet:
    """EfficientNet-B7: 66.3 M parameters with 1000 classes; trained on images of 600 pixels."""
    return EfficientNet(SCALES["b7"], num_classes, in_channels, dropout=dropout, drop_path=drop_path)
