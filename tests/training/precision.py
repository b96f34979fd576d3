"""bf16 with channels_last against fp32 on ResNet-18 (CIFAR stem), batches of 64 images of 32×32.

    python tests/training/precision.py                 # training steps a second, in turns, and their ratio
    python tests/training/precision.py --accuracy      # also the test accuracy after 3 epochs of fashion-mini, 3 seeds
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.data import Subset

import dlcourse
from dlcourse.data import eval_transform, load_dataset, make_loader, train_transform
from dlcourse.evaluation import predict_all
from dlcourse.models import create_model
from dlcourse.runtime import progress
from dlcourse.training import Trainer, TrainerConfig, make_scheduler, train_step
from dlcourse.training.batches import Means

SETTINGS = {  # precision, channels_last
    "fp32": ("off", False),
    "fp32 channels_last": ("off", True),
    "bf16": ("bf16", False),
    "bf16 channels_last": ("bf16", True),
}


def stepper(amp: str, channels_last: bool) -> Callable[[], None]:
    """One training step, on the same batch each time."""
    torch.manual_seed(0)
    model = create_model("resnet18", num_classes=10, stem="cifar").train()
    images, labels = torch.rand(64, 3, 32, 32), torch.arange(64) % 10
    if channels_last:
        model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return lambda: train_step(model, [(images, labels)], F.cross_entropy, optimizer, Means(), amp=amp)


def speed(rounds: int) -> None:
    steps = {name: stepper(*setting) for name, setting in SETTINGS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in progress(range(rounds + 1), "rounds"):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["fp32"], times, strict=True))
        print(f"{name:20} {1 / statistics.median(times):6.2f} steps a second, {ratio:.2f} × fp32")


def accuracy(seeds: int, images: int | None, epochs: int = 3) -> None:
    train, val, test = (
        load_dataset("fashion-mini", split, train_transform(32) if split == "train" else eval_transform(32))
        for split in ("train", "val", "test")
    )
    if images is not None:
        train = Subset(train, range(images))
    print(f"{epochs} epochs of {len(train):,} images")
    for name in ("fp32", "bf16 channels_last"):
        amp, channels_last = SETTINGS[name]
        results = []
        for seed in range(seeds):
            dlcourse.seed_everything(seed)
            model = create_model("resnet18", num_classes=10, stem="cifar")
            loader = make_loader(train, 64, train=True, seed=seed)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
            schedule = make_scheduler("one_cycle", optimizer, total_steps=epochs * len(loader))
            config = TrainerConfig(epochs=epochs, amp=amp, channels_last=channels_last, seed=seed, restore_best=False)
            Trainer(model, optimizer, F.cross_entropy, schedule, config=config).fit(loader, make_loader(val, 256))
            found = predict_all(model, make_loader(test, 256))
            results.append(float((found.predicted == found.labels).float().mean()))
            print(f"{name:20} seed {seed}: test accuracy {results[-1]:.3f}", flush=True)
        print(f"{name:20} mean {statistics.mean(results):.3f}, standard deviation {statistics.stdev(results):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--accuracy", action="store_true", help="train too (some minutes)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=None, help="train on the first so many only")
    args = parser.parse_args()
    speed(args.rounds)
    if args.accuracy:
        accuracy(args.seeds, args.images)


if __name__ == "__main__":
    main()
