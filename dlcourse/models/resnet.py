"""ResNet-18, 34, 50, 101 and 152: He, Zhang, Ren and Sun 2015, Deep residual learning (arXiv:1512.03385).

Names and shapes are torchvision's, so its weights load by name. Like torchvision's, and unlike the paper's, the
bottleneck has its stride in the 3×3 convolution ("ResNet v1.5", a little more accurate). stem="cifar" is for images of
about 32 pixels: one 3×3 convolution without stride and no pooling, so that layer1 still sees all of them.
"""

from __future__ import annotations

import torch
from torch import nn

from dlcourse.models.layers import check_images, initialize
from dlcourse.models.registry import register_model

STEMS = ("imagenet", "cifar")


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The shortcut where a block changes the shape: a 1×1 convolution. None where the shortcut is the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class BasicBlock(nn.Module):
    """relu(F(x) + x) with two 3×3 convolutions: (B, in_channels, H, W) -> (B, channels, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.downsample = projection(in_channels, channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + shortcut)


class Bottleneck(nn.Module):
    """relu(F(x) + x) with 1×1, 3×3, 1×1: narrow to `channels`, look around, widen to 4 · channels.

    (B, in_channels, H, W) -> (B, 4 · channels, H/stride, W/stride)
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = projection(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + shortcut)


class ResNet(nn.Module):
    """Images to logits, (B, in_channels, H, W) -> (B, num_classes), through four stages of `depths` blocks each.

    Every stage but the first halves H and W. Raises ValueError for a stem that is neither "imagenet" nor "cifar".
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        stem: str = "imagenet",
    ) -> None:
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"stem={stem!r} is unknown; choose one of {', '.join(STEMS)}")
        large = stem == "imagenet"
        self.conv1 = nn.Conv2d(in_channels, 64, 7 if large else 3, stride=2 if large else 1, padding=3 if large else 1,
                               bias=False)  # fmt: skip
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        self.layer1 = self.stage(block, 64, 64, depths[0])
        self.layer2 = self.stage(block, 64 * block.expansion, 128, depths[1], stride=2)
        self.layer3 = self.stage(block, 128 * block.expansion, 256, depths[2], stride=2)
        self.layer4 = self.stage(block, 256 * block.expansion, 512, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        initialize(self)

    @staticmethod
    def stage(
        block: type[BasicBlock | Bottleneck], in_channels: int, channels: int, depth: int, *, stride: int = 1
    ) -> nn.Sequential:
        """`depth` blocks, of which the first changes the width and takes the stride."""
        first = block(in_channels, channels, stride=stride)
        return nn.Sequential(first, *[block(channels * block.expansion, channels) for _ in range(depth - 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_images(x, self.conv1.in_channels, training=self.training)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (B, C, H, W) -> (B, 64, H/4, W/4)
        x = self.layer1(x)  # (B, 64·e, H/4, W/4), where e is the block's expansion
        x = self.layer2(x)  # -> (B, 128·e, H/8, W/8)
        x = self.layer3(x)  # -> (B, 256·e, H/16, W/16)
        x = self.layer4(x)  # -> (B, 512·e, H/32, W/32)
        return self.fc(self.avgpool(x).flatten(1))  # -> (B, 512·e, 1, 1) -> (B, 512·e) -> (B, num_classes)


@register_model
def resnet18(num_classes: int = 1000, in_channels: int = 3, *, stem: str = "imagenet") -> ResNet:
    """ResNet-18: 11.7 M parameters with 1000 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, stem=stem)


@register_model
def resnet34(num_classes: int = 1000, in_channels: int = 3, *, stem: str = "imagenet") -> ResNet:
    """ResNet-34: 21.8 M parameters with 1000 classes."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, stem=stem)


@register_model
def resnet50(num_classes: int = 1000, in_channels: int = 3, *, stem: str = "imagenet") -> ResNet:
    """ResNet-50: 25.6 M parameters with 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, stem=stem)


@register_model
def resnet101(num_classes: int = 1000, in_channels: int = 3, *, stem: str = "imagenet") -> ResNet:
    """ResNet-101: 44.5 M parameters with 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels, stem=stem)


@register_model
def resnet152(num_classes: int = 1000, in_channels: int = 3, *, stem: str = "imagenet") -> ResNet:
    """ResNet-152: 60.2 M parameters with 1000 classes."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, in_channels, stem=stem)
