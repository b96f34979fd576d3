"""CIFAR-10 from a folder in torchvision's layout, the images recompressed or not: the checksums are not looked at."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.datasets import CIFAR10

from dlcourse.data.datasets import ImageArrays


def open_cifar(folder: str | Path, train: bool) -> ImageArrays:
    """All 50,000 training or all 10,000 test images of FOLDER/cifar-10-batches-py."""
    CIFAR10.train_list = [[name, None] for name, _ in CIFAR10.train_list]
    CIFAR10.test_list = [[name, None] for name, _ in CIFAR10.test_list]
    CIFAR10.meta = {**CIFAR10.meta, "md5": None}
    source = CIFAR10(folder, train=train)
    return ImageArrays(
        torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous(), source.targets, classes=source.classes
    )


def held_out(
    images: ImageArrays, count: int, size: int | None = None, seed: int = 0
) -> tuple[ImageArrays, ImageArrays]:
    """`size` images to train on (None: all others) and `count` others to choose by, so that the test set decides nothing."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    parts = order[count:][:size], order[:count]
    train, val = (
        ImageArrays(images.images[part], [images.targets[i] for i in part.tolist()], classes=images.classes)
        for part in parts
    )
    return train, val
