"""What happens to an image between the data set and the network: augmentation for training, none for evaluation.

A transform takes a uint8 tensor (3, H, W) and returns a normalised float32 tensor (3, size, size). They are built from
torchvision.transforms.v2 and draw from torch's random numbers alone, so that torch's seed decides them, in worker
processes too. The policies: RandomCrop and flip as in He et al. 2015 (arXiv:1512.03385, section 4.2), AutoAugment
(Cubuk et al. 2018, arXiv:1805.09501), RandAugment (Cubuk et al. 2019, arXiv:1909.13719), TrivialAugment (Müller and
Hutter 2021, arXiv:2103.10158), albumentations (Buslaev et al. 2018, arXiv:1809.06839).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torchvision.transforms import v2

POLICIES = ("none", "basic", "autoaugment", "randaugment", "trivialaugment", "albumentations")
HALF = (0.5, 0.5, 0.5)

Transform = Callable[[torch.Tensor], torch.Tensor]


def train_transform(
    size: int, policy: str = "basic", *, mean: Sequence[float] = HALF, std: Sequence[float] = HALF
) -> Transform:
    """The transform for training: uint8 (3, H, W) -> float32 (3, size, size).

    policy  "none"            what `eval_transform` does
            "basic"           pad by size // 8, crop at random, flip left to right half of the time
            "autoaugment"     basic, then the policy that AutoAugment found for CIFAR-10
            "randaugment"     basic, then two random operations of magnitude 9
            "trivialaugment"  basic, then one random operation of a random magnitude
            "albumentations"  flip, shift and scale and rotate, brightness and contrast, by albumentations
    mean, std  of each channel, for pixels in [0, 1]; the default maps [0, 1] to [−1, 1]. `channel_statistics` computes
               those of a data set; a pretrained model needs those it was trained with.

    Raises ValueError for a size below 2, another policy (with the nearest) and a mean or std that is not three numbers.
    """
    if policy not in POLICIES:
        nearest = get_close_matches(str(policy), POLICIES, n=1) or POLICIES
        raise ValueError(f"policy={policy!r} is unknown; did you mean {' or '.join(map(repr, nearest))}?")
    steps: list[nn.Module] = [_Resize(size, one_image=True)]  # what is drawn at random is drawn for one image
    if policy == "albumentations":
        steps.append(_Albumentations())
    elif policy != "none":
        steps.append(_CropAndFlip(size))
    if policy == "autoaugment":
        steps.append(v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10))
    elif policy == "randaugment":
        steps.append(v2.RandAugment())
    elif policy == "trivialaugment":
        steps.append(v2.TrivialAugmentWide())
    return nn.Sequential(*steps, Normalize(mean, std))


@dataclass(frozen=True)
class Preprocessing:
    """What a trained network expects of an image, as values that can be written into its file.

    Called with uint8 (…, 3, H, W) it returns float32 (…, 3, size, size); nothing in it is random. Raises ValueError as
    `train_transform` does, and for a `resize` below `size`.
    """

    size: int
    """Height and width that go into the network, in pixels."""
    resize: int | None = None
    """The shorter side before the central crop, in pixels; None brings the image to exactly (size, size) instead."""
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    """Of each channel, for pixels in [0, 1]."""
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"resize={self.resize} is less than size={self.size}, the crop that is taken of it")
        if self.interpolation not in (known := [mode.value for mode in v2.InterpolationMode]):
            raise ValueError(f"interpolation={self.interpolation!r} is unknown; choose one of {', '.join(known)}")
        self._steps  # noqa: B018  (complains of values that do not fit)

    @cached_property
    def _steps(self) -> nn.Module:
        resize = _Resize(self.size, self.resize, self.interpolation)
        return nn.Sequential(resize, Normalize(self.mean, self.std))

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return self._steps(image)


def eval_transform(size: int, *, mean: Sequence[float] = HALF, std: Sequence[float] = HALF) -> Preprocessing:
    """The transform for evaluation: uint8 (3, H, W) -> float32 (3, size, size), nothing random in it.

    Resizes to exactly (size, size), so that images of any shape stack into a batch. `mean`, `std` and errors as in
    `train_transform`.
    """
    return Preprocessing(size, mean=tuple(mean), std=tuple(std))


class _Resize(nn.Module):
    """To exactly (size, size), antialiased; an image that has this size passes unchanged. Checks what every step needs.

    With `shorter` the shorter side is brought to that length, and the middle (size, size) cut out.
    """

    def __init__(
        self, size: int, shorter: int | None = None, interpolation: str = "bilinear", *, one_image: bool = False
    ) -> None:
        super().__init__()
        if not isinstance(size, int) or size < 2:  # torch 2.14 cannot resize uint8 to 1×1
            raise ValueError(f"size={size!r} must be a whole number of pixels, at least 2")
        self.size, self.shorter, self.one_image = [size, size], shorter, one_image
        self.interpolation = v2.InterpolationMode(interpolation)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.dtype != torch.uint8 or image.ndim < 3 or image.shape[-3] != 3 or (self.one_image and image.ndim > 3):
            wanted = "(3, H, W)" if self.one_image else "(…, 3, H, W)"
            raise ValueError(f"image is {image.dtype} of shape {tuple(image.shape)}; needs torch.uint8 of shape {wanted}")
        if list(image.shape[-2:]) == (self.size if self.shorter is None else [self.shorter] * 2):
            resized = image
        else:
            target = self.size if self.shorter is None else [self.shorter]
            resized = v2.functional.resize(image, target, self.interpolation, antialias=True)
        return resized if self.shorter is None else v2.functional.center_crop(resized, self.size)


class _CropAndFlip(nn.Module):
    """Pad with zeros by size // 8, crop (size, size) at random, flip left to right half of the time.

    The same as v2.RandomCrop(size, padding=size // 8) and v2.RandomHorizontalFlip(), in a fifth of their time on a
    32×32 image, where choosing a kernel for each kind of input costs more than the pixels do.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.padding = size // 8

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        top, left = torch.randint(2 * self.padding + 1, (2,)).tolist()
        padded = nn.functional.pad(image, [self.padding] * 4)
        crop = padded[:, top : top + self.size, left : left + self.size]
        return crop.flip(-1) if torch.rand(()) < 0.5 else crop


class Normalize(nn.Module):
    """(image / 255 − mean) / std for uint8 (…, 3, H, W), in one multiplication and one addition."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != 3:
                raise ValueError(f"{name}={values} must be three numbers, one a channel")
        if min(std) <= 0:
            raise ValueError(f"std={std} must be positive")
        deviation = torch.tensor(std, dtype=torch.float64)[:, None, None]
        self.scale = (1 / (255 * deviation)).float()
        self.shift = (-torch.tensor(mean, dtype=torch.float64)[:, None, None] / deviation).float()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.scale.to(image.device) + self.shift.to(image.device)


class _Albumentations(nn.Module):
    """albumentations on an (H, W, 3) array, seeded from torch: its own generator would be the same in every worker."""

    def __init__(self) -> None:
        super().__init__()
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for a newer version when it is imported
        import albumentations

        self.augment: Any = albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=0.5),
                albumentations.Affine(scale=(0.9, 1.1), translate_percent=(-0.1, 0.1), rotate=(-10, 10), p=0.8),
                albumentations.RandomBrightnessContrast(p=0.5),
            ]
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.augment.set_random_seed(int(torch.randint(2**31, ())))
        array = self.augment(image=image.permute(1, 2, 0).contiguous().numpy())["image"]
        return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def channel_statistics(dataset: Iterable[tuple[torch.Tensor, Any]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels of all images, for pixels in [0, 1].

    The data set gives images (3, H, W), float in [0, 1] or uint8, of any sizes, one at a time: nothing is kept but
    sums, in float64. The deviation is that of all pixels together, not the mean of the images' own deviations, which
    leaves out how the images differ from one another. Raises ValueError for a data set without images.
    """
    count, total, squares = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for image, _ in dataset:
        pixels = image.double().flatten(1)  # (3, H, W) -> (3, H*W)
        if image.dtype == torch.uint8:
            pixels = pixels / 255
        count += pixels.shape[1]
        total += pixels.sum(1)
        squares += pixels.square().sum(1)
    if count == 0:
        raise ValueError("dataset is empty: there are no pixels to take the statistics of")
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())
