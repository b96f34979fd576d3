"""Measure how many images a second each way to load and augment gives: 32×32 RGB in memory, batches of 128.

    python tests/data/augmentation_speed.py --rounds 7

A whole epoch is timed, the start of worker processes with it. The policies are those of `train_transform`, one image at a
time in this process, "basic" also in 1 and 2 workers; "PIL" is crop, flip, ToTensor and Normalize on PIL pictures, as
tutorials have it; BatchLoader augments whole batches. They take turns, so that a slow moment of the machine meets all.
Prints each median of images a second, the range over the rounds, and the median of the rounds' ratios to "basic".
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from dlcourse.data import BatchAugmentation, BatchLoader, load_dataset, train_transform
from dlcourse.data.datasets import ImageArrays
from dlcourse.data.transforms import POLICIES

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from fast_path import Pictures

BATCH = 128


def ways_to_load(images: ImageArrays) -> dict[str, Any]:
    """A loader of the same images for each way."""

    def one_by_one(policy: str, workers: int = 0) -> DataLoader[Any]:
        data = ImageArrays(images.images, images.targets, classes=images.classes, transform=train_transform(32, policy))
        return DataLoader(data, BATCH, shuffle=True, num_workers=workers)

    ways: dict[str, Any] = {"basic": one_by_one("basic")}
    ways |= {policy: one_by_one(policy) for policy in POLICIES if policy != "basic"}
    ways |= {f"basic, {workers} workers": one_by_one("basic", workers) for workers in (1, 2)}
    pictures = Pictures(images, train=True)
    ways |= {f"PIL, {workers} workers": DataLoader(pictures, BATCH, shuffle=True, num_workers=workers) for workers in (0, 1, 2)}
    batched = {
        "basic": BatchAugmentation(padding=4),
        "basic, cutout": BatchAugmentation(padding=4, cutout=8),
        "basic, colour": BatchAugmentation(padding=4, brightness=0.4, contrast=0.4, saturation=0.4),
    }
    return ways | {f"BatchLoader: {name}": BatchLoader(images, BATCH, how, train=True) for name, how in batched.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mini")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    images = load_dataset(options.data, "train")
    ways = ways_to_load(images)
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds + 1):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            count = sum(len(labels) for _, labels in ways[name])
            if turn:  # the first turn warms up
                speeds[name].append(count / (time.perf_counter() - started))
    print(f"{'':28} {'images a second':>16} {'from':>9} {'to':>9} {'x basic':>9}")
    for name, speed in speeds.items():
        ratio = statistics.median(own / base for base, own in zip(speeds["basic"], speed, strict=True))
        print(f"{name:28} {statistics.median(speed):16,.0f} {min(speed):9,.0f} {max(speed):9,.0f} {ratio:9.2f}")


if __name__ == "__main__":
    main()
