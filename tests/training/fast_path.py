"""Measure the fast path against the plain loop: steps a second of ResNet-18 (CIFAR stem), and the accuracy both end with.

    python tests/training/fast_path.py --rounds 5 --steps 4                    # speed
    python tests/training/fast_path.py --epochs 6 --seeds 3 --images 3000      # accuracy, with SimpleCNN, which is quick

The plain loop is a tutorial's: per-image PIL transforms (crop, flip, ToTensor, Normalize) in a DataLoader, float32, images
in the ordinary format. The fast path is BatchLoader and the setting that compare_settings finds. They take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dlcourse.data import BatchAugmentation, BatchLoader, load_dataset
from dlcourse.data.datasets import ImageArrays
from dlcourse.diagnostics import Setting, compare_settings
from dlcourse.models import create_model
from dlcourse.training import Trainer, TrainerConfig, make_scheduler


class Pictures(Dataset[Any]):
    """The images as a tutorial has them: PIL pictures, transformed one at a time."""

    def __init__(self, images: ImageArrays, train: bool) -> None:
        from torchvision import transforms

        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if train else []
        normalize = transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.transform = transforms.Compose([*steps, transforms.ToTensor(), normalize])
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.images]
        self.targets = images.targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.pictures[index]), self.targets[index]


def first(images: ImageArrays, count: int) -> ImageArrays:
    return ImageArrays(images.images[:count], images.targets[:count], classes=images.classes)


def loaders(fast: bool, train: ImageArrays, test: ImageArrays, batch: int, workers: int, seed: int) -> tuple[Any, Any]:
    if fast:
        augment = BatchAugmentation(padding=4)
        return BatchLoader(train, batch, augment, train=True, seed=seed), BatchLoader(test, 250, BatchAugmentation(flip="none"))
    generator = torch.Generator().manual_seed(seed)
    train_loader = DataLoader(Pictures(train, True), batch, shuffle=True, num_workers=workers, generator=generator)
    return train_loader, DataLoader(Pictures(test, False), 250)


def endless(loader: Any) -> Iterator[Any]:
    return chain.from_iterable(repeat(loader))


def speed(given: argparse.Namespace, data: ImageArrays) -> None:
    model = create_model("resnet18", 10, stem="cifar")
    batch = next(iter(loaders(True, data, data, given.batch, 0, 0)[0]))
    settings = [Setting(amp, last, compiled) for compiled in (False, True) if given.compile or not compiled
                for amp in ("off", "bf16") for last in (False, True)]  # fmt: skip
    found = compare_settings(model, batch, nn.functional.cross_entropy, settings, rounds=3)
    for each in found:
        print(f"  {each.setting!s:40} {each.seconds:6.2f} s a step, {each.speedup:.2f} x")
    best, seconds = found[0].setting, {}
    print(f"fast path: BatchLoader, {best}")
    kinds = {"plain": (False, Setting()), "fast loader only": (True, Setting()), "fast path": (True, best)}
    runs = {name: Steps(model, given, data, *kind) for name, kind in kinds.items()}
    seconds = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, run in runs.items():
            seconds[name].append(run.seconds(given.steps))
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["plain"], times, strict=True))
        print(f"{name:18} {given.steps / statistics.median(times):.3f} steps/s, {ratio:.2f} x the plain loop")


class Steps:
    """A training that can be asked for its next steps."""

    def __init__(self, model: nn.Module, given: argparse.Namespace, data: ImageArrays, fast: bool, setting: Setting) -> None:
        import copy

        self.model, self.amp = copy.deepcopy(model), setting.amp
        if setting.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if setting.compiled:
            self.model.compile()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, fused=fast or None)
        self.batches = endless(loaders(fast, data, data, given.batch, given.workers, 0)[0])
        self.seconds(1)

    def seconds(self, steps: int) -> float:
        from dlcourse.training import train_step
        from dlcourse.training.batches import Means

        started = time.perf_counter()
        for _ in range(steps):
            train_step(self.model, [next(self.batches)], nn.functional.cross_entropy, self.optimizer, Means(), amp=self.amp)
        return time.perf_counter() - started


def accuracy(given: argparse.Namespace, train: ImageArrays, test: ImageArrays) -> None:
    found: dict[str, list[float]] = {"plain": [], "fast": []}
    for seed in range(given.seeds):
        for name in found:
            torch.manual_seed(seed)
            fast = name == "fast"
            model = create_model(given.model, 10)
            train_loader, test_loader = loaders(fast, train, test, given.batch, given.workers, seed)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=fast or None)
            schedule = make_scheduler("one_cycle", optimizer, total_steps=given.epochs * len(train_loader))
            config = TrainerConfig(given.epochs, channels_last=fast, seed=seed, restore_best=False)
            trainer = Trainer(model, optimizer, nn.functional.cross_entropy, schedule, config=config)
            started = time.perf_counter()
            history = trainer.fit(train_loader, test_loader)
            found[name].append(history.epochs[-1]["val_accuracy"])
            print(f"seed {seed}, {name:5}: {found[name][-1]:.4f} in {time.perf_counter() - started:.0f} s")
    gains = [b - a for a, b in zip(found["plain"], found["fast"], strict=True)]
    spread = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    print(f"fast minus plain: {statistics.mean(gains):+.4f}, standard error {spread:.4f}, {len(gains)} seeds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mini")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0, help="of the plain loop's DataLoader")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="a round")
    parser.add_argument("--compile", action="store_true", help="try model.compile() too")
    parser.add_argument("--epochs", type=int, help="compare the final accuracy after so many epochs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5400)
    parser.add_argument("--model", default="simple_cnn", help="of the comparison of accuracy")
    given = parser.parse_args()
    train = first(load_dataset(given.data, "train"), given.images)
    if given.epochs:
        accuracy(given, train, load_dataset(given.data, "test"))
    else:
        speed(given, train)


if __name__ == "__main__":
    main()
