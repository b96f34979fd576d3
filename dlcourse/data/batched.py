"""Augmentation of whole batches: what is drawn for each image anew, but computed for all of them in a few calls.

An image of 32×32 pixels costs a per-image transform more in calls than in pixels. For images that are in memory as one
tensor, `BatchLoader` cuts a batch out of it, augments the batch as a tensor, and needs no worker process.

All randomness of an epoch is one table of numbers, drawn from the seed and the epoch: a row an image. So an image's view
depends on the seed, the epoch and the image alone, not on the batch it is in, nor on how many processes share the
epoch, and a run that stopped goes on with the views that it would have had.

Sources: crop and flip, He et al. 2015 (arXiv:1512.03385, section 4.2); cutout, DeVries and Taylor 2017
(arXiv:1708.04552); colour, torchvision's ColorJitter; the flip that alternates, Jordan 2024 (arXiv:2404.00498).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler

from dlcourse.data.datasets import ImageArrays
from dlcourse.data.loaders import EpochSampler
from dlcourse.data.transforms import HALF, Normalize

NUMBERS = 11
"""Random numbers that a view of an image takes: 2 crop, 1 flip, 2 cutout, 3 colour factors, 3 for their order."""
FLIPS = ("none", "random", "alternating")
GREY = (0.2989, 0.587, 0.114)  # of red, green and blue in a grey value, as torchvision has them (ITU-R 601)


@dataclass(frozen=True)
class BatchAugmentation:
    """Random views of a batch of images: uint8 (B, 3, H, W) -> float32 (B, 3, H, W), normalised.

        augment = BatchAugmentation(padding=4, cutout=8)
        views = augment(images, torch.rand(len(images), NUMBERS))

    Raises ValueError naming an argument that does not fit.
    """

    _: KW_ONLY
    padding: int = 0
    """Zeros around the image, of which a random window of the image's size is kept; 4 is common for 32×32 pixels."""
    flip: str = "random"
    """Left to right: "none"; "random", each image with probability 1/2; "alternating", each image in every second epoch."""
    cutout: int = 0
    """Side of a square around a random pixel that is set to the mean colour; what reaches beyond the image is cut off."""
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    """Of ColorJitter: a factor between 1 − x and 1 + x for each; the three follow one another in a random order."""
    mean: Sequence[float] = HALF
    std: Sequence[float] = HALF
    """Of each channel, for pixels in [0, 1]."""

    def __post_init__(self) -> None:
        if self.flip not in FLIPS:
            raise ValueError(f"flip={self.flip!r} is unknown; choose one of {', '.join(FLIPS)}")
        for name in ("padding", "cutout"):
            if not isinstance(value := getattr(self, name), int) or value < 0:
                raise ValueError(f"{name}={value!r} must be a whole number of pixels, 0 or more")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= (strength := getattr(self, name)) <= 1:
                raise ValueError(f"{name}={strength} must lie between 0 and 1")
        self._normalize  # noqa: B018  (complains of a mean or std that does not fit)

    @cached_property
    def _normalize(self) -> nn.Module:
        return Normalize(self.mean, self.std)

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        """The views that `numbers` (B, 11), uniform in [0, 1), decide on; the images are left as they are."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images is {images.dtype} of shape {tuple(images.shape)}; needs torch.uint8 of shape (B, 3, H, W)")
        if numbers.shape != (len(images), NUMBERS):
            raise ValueError(f"numbers has the shape {tuple(numbers.shape)}; needs {(len(images), NUMBERS)}")
        if self.padding:
            images = random_crop(images, numbers[:, :2], self.padding)
        if self.flip != "none":
            images = flip_where(images, numbers[:, 2] < 0.5)
        jitter = (self.brightness, self.contrast, self.saturation)
        views = color_jitter(images / 255, numbers[:, 5:8], numbers[:, 8:], jitter) * 255 if any(jitter) else images
        views = self._normalize(views)
        return cutout(views, numbers[:, 3:5], self.cutout) if self.cutout else views


def random_crop(images: Tensor, numbers: Tensor, padding: int) -> Tensor:
    """Pad (B, C, H, W) with zeros on all sides, and cut out of each image a window (H, W), where `numbers` (B, 2) say."""
    height, width = images.shape[2:]
    padded = nn.functional.pad(images, [padding] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view (B, C, 2p + 1, 2p + 1, H, W)
    top, left = (numbers * (2 * padding + 1)).long().unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def flip_where(images: Tensor, flipped: Tensor) -> Tensor:
    """The images (B, C, H, W), left to right where `flipped` (B,) is True."""
    return torch.where(flipped[:, None, None, None], images.flip(3), images)


def cutout(images: Tensor, numbers: Tensor, side: int) -> Tensor:
    """Zero a square of `side` pixels around the pixel that `numbers` (B, 2) name; of an even side its upper left middle."""
    hidden = []
    for size, number in zip(images.shape[2:], numbers.unbind(1), strict=True):
        first = (number * size).long() - (side - 1) // 2
        place = torch.arange(size, device=images.device)
        hidden.append((place >= first[:, None]) & (place < first[:, None] + side))  # (B, size)
    rows, columns = hidden
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def color_jitter(images: Tensor, numbers: Tensor, order: Tensor, strengths: Sequence[float]) -> Tensor:
    """Brightness, contrast and saturation of float images (B, 3, H, W) in [0, 1], in the order of the numbers `order`.

    An image is blended with black, with its mean grey, or with its grey values, in the proportion of a factor between
    1 − strength and 1 + strength, which `numbers` (B, 3) choose.
    """
    factors = 1 + (2 * numbers - 1) * torch.tensor(strengths, device=numbers.device)  # (B, 3)
    weights = images.new_tensor(GREY)[:, None, None]
    turns = order.argsort(dim=1)  # which of the three comes first, second, third
    for turn in turns.unbind(1):
        grey = (images * weights).sum(1, keepdim=True)  # (B, 1, H, W)
        kinds = (torch.zeros_like(grey), grey.mean((2, 3), keepdim=True).expand_as(grey), grey)
        other = torch.stack(kinds)[turn, torch.arange(len(images), device=images.device)]
        factor = factors.gather(1, turn[:, None])[:, :, None, None]
        images = (factor * images + (1 - factor) * other).clamp(0, 1)
    return images


class BatchLoader:
    """Batches (images (B, 3, H, W), labels (B,)) of a data set in memory, each batch transformed as one tensor.

        loader = BatchLoader(load_dataset("fashion-mini", "train"), 128, BatchAugmentation(padding=4), train=True)

    transform   a BatchAugmentation, or any function of uint8 images (B, 3, H, W), such as `eval_transform(32)`
    train       shuffles with an `EpochSampler`: call `loader.sampler.set_epoch(epoch)` before each epoch
    sampler     takes the place of that order, e.g. a DistributedSampler: each process has its part of every batch
    drop_last   leaves out the last batch when it is smaller
    device      keeps all images there, so that a GPU augments them itself; None leaves them where they are

    The data set's own transform is not used. Raises ValueError for an empty data set and a batch_size below 1.
    """

    def __init__(
        self,
        dataset: ImageArrays,
        batch_size: int,
        transform: BatchAugmentation | Callable[[Tensor], Tensor],
        *,
        train: bool = False,
        sampler: Sampler[int] | None = None,
        seed: int = 0,
        drop_last: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        if not isinstance(dataset, ImageArrays):
            raise ValueError(f"dataset is a {type(dataset).__name__}; needs images in memory (ImageArrays, load_dataset)")
        if len(dataset) == 0:
            raise ValueError("dataset is empty: there is nothing to load")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.dataset, self.batch_size, self.transform, self.drop_last = dataset, batch_size, transform, drop_last
        self.images = dataset.images.to(device)
        self.targets = torch.tensor(dataset.targets, device=self.images.device)
        self.seed = seed
        default = EpochSampler(len(dataset), seed) if train else SequentialSampler(dataset)
        self.sampler: Sampler[int] = default if sampler is None else sampler

    def __len__(self) -> int:
        size = len(self.sampler)  # type: ignore[arg-type]
        return size // self.batch_size if self.drop_last else math.ceil(size / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        numbers = self._numbers(getattr(self.sampler, "epoch", 0))
        order = torch.tensor(list(self.sampler), device=self.images.device)
        for chosen in order.split(self.batch_size)[: len(self)]:
            images = self.images[chosen]
            if isinstance(self.transform, BatchAugmentation):
                views = self.transform(images, numbers[chosen])
            else:
                views = self.transform(images)
            yield views, self.targets[chosen]

    def _numbers(self, epoch: int) -> Tensor:
        """The random numbers (N, 11) of an epoch, a row an image."""
        numbers = torch.rand(len(self.images), NUMBERS, generator=_generator(self.seed, epoch))
        if isinstance(self.transform, BatchAugmentation) and self.transform.flip == "alternating":
            flipped = torch.rand(len(self.images), generator=_generator(self.seed, -1)) < 0.5  # in epoch 0
            numbers[:, 2] = (flipped == bool(epoch % 2)).float()  # 0 flips, 1 does not
        return numbers.to(self.images.device)


def _generator(seed: int, epoch: int) -> torch.Generator:
    """Another stream for each pair: seed + epoch would give epoch 1 of seed 0 the numbers of epoch 0 of seed 1."""
    return torch.Generator().manual_seed((seed << 24) + epoch + 1)
