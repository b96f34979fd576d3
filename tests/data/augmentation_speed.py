"""Measure how many images a second each augmentation makes on one core: 32×32 RGB, one image at a time and whole batches.

    python tests/data/augmentation_speed.py --rounds 15

The policies are those of `train_transform` (uint8 image -> normalised float32 tensor). Beside them stands crop and flip on
a whole batch of tensors, a crop and a coin of its own for each image. They take turns, so that a slow moment of the machine
meets all. Prints each median of images a second, the range over the rounds, and the median of the rounds' ratios to "none".
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dlcourse.data import train_transform
from dlcourse.data.transforms import POLICIES

SIZE = 32


def one_by_one(policy: str) -> Callable[[Tensor], Tensor]:
    transform = train_transform(SIZE, policy)
    return lambda images: torch.stack([transform(image) for image in images])


def crop_and_flip_of_a_batch(images: Tensor) -> Tensor:
    """What "basic" does, for all images at once: uint8 (B, 3, 32, 32) -> float32 of the same shape."""
    padding, size = SIZE // 8, len(images)
    padded = F.pad(images, [padding] * 4)  # (B, 3, 40, 40)
    top, left = torch.randint(2 * padding + 1, (2, size, 1, 1, 1))
    columns = torch.arange(SIZE).expand(size, 1, 1, SIZE)
    columns = torch.where(torch.rand(size, 1, 1, 1) < 0.5, columns.flip(3), columns)  # a flip reads them backwards
    samples, channels = torch.arange(size)[:, None, None, None], torch.arange(3)[:, None, None]
    crops = padded[samples, channels, top + torch.arange(SIZE)[:, None], left + columns]
    return crops / 127.5 - 1


def check_batched() -> None:
    """The batch holds shifted and flipped images and nothing else, or the comparison would be of different work."""
    images = torch.randint(256, (200, 3, SIZE, SIZE), dtype=torch.uint8)
    crops = crop_and_flip_of_a_batch(images)
    padded = F.pad(images, [4] * 4) / 127.5 - 1
    places = set()
    for image, crop in zip(padded, crops, strict=True):
        windows = image.unfold(1, SIZE, 1).unfold(2, SIZE, 1)  # (3, 9, 9, 32, 32)
        for flipped in (False, True):
            view = crop.flip(-1) if flipped else crop
            same = (windows == view[:, None, None]).flatten(3).all(3).all(0)  # (9, 9)
            places |= {(flipped, *place) for place in same.nonzero().tolist()}
    if len(places) < 100:  # of 162: 200 draws meet about 115
        raise SystemExit(f"the batched crop and flip gave {len(places)} different views of 162")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    check_batched()
    images = torch.randint(256, (options.images, 3, SIZE, SIZE), dtype=torch.uint8)
    ways: dict[str, Callable[[Tensor], Tensor]] = {policy: one_by_one(policy) for policy in POLICIES}
    ways["basic, whole batch"] = crop_and_flip_of_a_batch
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds + 1):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            ways[name](images)
            if turn:  # the first turn warms up
                speeds[name].append(len(images) / (time.perf_counter() - started))
    print(f"{'policy':20} {'images a second':>16} {'from':>9} {'to':>9} {'time / none':>12}")
    for name, speed in speeds.items():
        ratio = statistics.median(base / other for base, other in zip(speeds["none"], speed, strict=True))
        print(f"{name:20} {statistics.median(speed):16,.0f} {min(speed):9,.0f} {max(speed):9,.0f} {ratio:12.2f}")


if __name__ == "__main__":
    main()
