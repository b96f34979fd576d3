"""SimpleCNN: three convolutions and two linear layers, the first network of the course that sees an image as one.

553,514 parameters with three channels and ten classes, 95 % of them in the first linear layer. The plan is that of
LeNet-5 (LeCun et al. 1998, Gradient-based learning applied to document recognition), with ReLU and max pooling.
"""

from __future__ import annotations

import torch
from torch import nn

from dlcourse.models.layers import check_images, initialize
from dlcourse.models.registry import register_model


class SimpleCNN(nn.Module):
    """Images of 8×8 pixels or more to logits: (B, in_channels, H, W) -> (B, num_classes).

    The adaptive pool makes the feature map 4×4 whatever came in; from 32×32 it is that already.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # 32×32 -> 16×16
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # 16×16 -> 8×8
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # 8×8 -> 4×4
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(64 * 4 * 4, 512), nn.ReLU(), nn.Linear(512, num_classes)
        )
        self.in_channels = in_channels
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_images(x, self.in_channels, training=self.training)
        if min(x.shape[2:]) < 8:
            raise ValueError(f"SimpleCNN takes H and W of at least 8, not {x.shape[2]}×{x.shape[3]}")
        x = self.pool(self.features(x))  # (B, C, H, W) -> (B, 64, 4, 4)
        return self.classifier(x.flatten(1))  # (B, 64, 4, 4) -> (B, 1024) -> (B, num_classes)


@register_model
def simple_cnn(num_classes: int = 10, in_channels: int = 3, *, dropout: float = 0.0) -> SimpleCNN:
    """SimpleCNN with a first loss of ln(num_classes); `dropout` acts before the first linear layer."""
    return SimpleCNN(num_classes, in_channels, dropout=dropout)
