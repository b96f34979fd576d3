"""Mixing images and their labels: Mixup and CutMix, on a whole batch at once.

Mixup (Zhang et al. 2017, arXiv:1710.09412) blends two images, CutMix (Yun et al. 2019, arXiv:1905.04899) pastes a box of
one into the other; the label becomes the same mixture, a vector of K shares that sum to 1. As in torchvision's
`v2.MixUp` and `v2.CutMix`, each image is mixed with the one before it in the batch (the first with the last), and one
share is drawn for the batch; from the same state of torch's generator the results are equal. Nothing is written into
the batch that comes in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate


def mixup(
    images: Tensor, labels: Tensor, num_classes: int, alpha: float = 0.2, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """λ·image + (1 − λ)·the one before it, λ from Beta(alpha, alpha): float (B, …) and integer (B,) -> (B, …), (B, K).

    A small alpha gives mixtures close to one of the two images, alpha = 1 every share alike. Raises ValueError for
    alpha ≤ 0, images that are not float, labels that are not (B,) integers in 0 … K − 1, and a generator of a GPU.
    """
    targets = one_hot_labels(images, labels, num_classes)
    with drawing_from(generator):
        share = draw_share(alpha)
    return blend(images, share), blend(targets, share)


def cutmix(
    images: Tensor, labels: Tensor, num_classes: int, alpha: float = 1.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A box of the neighbour pasted in, 1 − λ of the area: float (B, C, H, W) and integer (B,) -> same and (B, K).

    A box that sticks out of the image is cut off, and the label's share is that of the pixels really pasted. Errors as
    in `mixup`.
    """
    targets = one_hot_labels(images, labels, num_classes)
    if images.ndim != 4:
        raise ValueError(f"images must be (B, C, H, W), not {tuple(images.shape)}")
    height, width = images.shape[2:]
    with drawing_from(generator):
        share = draw_share(alpha)
        top, bottom, left, right = draw_box(height, width, share)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.roll(1, 0)[:, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, blend(targets, share)


class MixingCollate:
    """Makes mixed batches in a loader: `make_loader(dataset, 64, train=True, collate_fn=MixingCollate(10, mixup=0.2))`.

    `mixup` and `cutmix` are the alphas, None leaves one out; when both are given, a coin chooses for each batch. With
    probability 1 − `p` a batch stays as it is. The labels are always vectors (B, K), for a loss that takes them, such as
    `nn.CrossEntropyLoss`. It draws from torch's global random numbers (in a worker: the worker's).
    """

    def __init__(
        self, num_classes: int, *, mixup: float | None = None, cutmix: float | None = None, p: float = 1.0
    ) -> None:
        if mixup is None and cutmix is None:
            raise ValueError("nothing to mix with: give mixup=0.2, cutmix=1.0, or both")
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if alpha is not None:
                check_alpha(name, alpha)
        if not 0 <= p <= 1:
            raise ValueError(f"p={p} is not a probability between 0 and 1")
        self.num_classes, self.mixup, self.cutmix, self.p = num_classes, mixup, cutmix, p

    def __call__(self, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        images, labels = default_collate(list(samples))
        if torch.rand(()) >= self.p:
            return images, one_hot_labels(images, labels, self.num_classes)
        choices = [(mix, alpha) for mix, alpha in ((mixup, self.mixup), (cutmix, self.cutmix)) if alpha is not None]
        mix, alpha = choices[int(torch.randint(len(choices), ()))]
        return mix(images, labels, self.num_classes, alpha)


def blend(batch: Tensor, share: float) -> Tensor:
    """share · each sample + (1 − share) · the one before it (the first with the last): a new (B, …)."""
    return share * batch + (1 - share) * batch.roll(1, 0)


def draw_share(alpha: float) -> float:
    check_alpha("alpha", alpha)
    concentration = torch.tensor([float(alpha)])
    return float(torch.distributions.Beta(concentration, concentration).sample())


def draw_box(height: int, width: int, share: float) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a box with the image's proportions and 1 − share of its area, centred anywhere."""
    x, y = int(torch.randint(width, (1,))), int(torch.randint(height, (1,)))
    half = 0.5 * math.sqrt(1 - share)
    half_width, half_height = int(half * width), int(half * height)
    top, bottom = max(y - half_height, 0), min(y + half_height, height)
    return top, bottom, max(x - half_width, 0), min(x + half_width, width)


def one_hot_labels(images: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; mixing needs float images: make them so first")
    integers = not labels.is_floating_point() and labels.dtype != torch.bool
    if labels.ndim != 1 or not integers or len(labels) != len(images):
        raise ValueError(
            f"labels must be integers of shape ({len(images)},), but are {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, outside 0 … {num_classes - 1} "
            f"(num_classes={num_classes})"
        )
    return nn.functional.one_hot(labels.long(), num_classes).to(images.dtype)


def check_alpha(name: str, alpha: float) -> None:
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"{name}={alpha} must be a positive number (to switch mixing off, leave it out)")


@contextmanager
def drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Inside the block torch's global generator continues the stream of `generator`, which is moved on with it."""
    if generator is None:
        yield
        return
    if generator.device.type != "cpu":
        raise ValueError(f"generator is one of {generator.device}; the share is drawn on the CPU: give a CPU generator")
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        yield
        generator.set_state(torch.get_rng_state())
