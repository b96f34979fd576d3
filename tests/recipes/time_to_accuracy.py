"""Measure seconds to a test accuracy on CIFAR-10: the fast recipe, and what others are trained with, on the same machine.

    python tests/recipes/time_to_accuracy.py recipe   --cifar FOLDER --epochs 8 --seeds 3
    python tests/recipes/time_to_accuracy.py resnet18 --cifar FOLDER --epochs 2
    python tests/recipes/time_to_accuracy.py tutorial --cifar FOLDER --epochs 2

FOLDER holds cifar-10-batches-py. `recipe` trains FastRecipe(epochs, widths=…, …) and prints after how many seconds of training
each accuracy was passed. `resnet18` trains the ordinary ResNet-18 recipe (CIFAR stem, batches of 128, float32, crop and flip of
PIL pictures, SGD 0.1 with Nesterov's momentum) for a few epochs and multiplies: the epochs that it needs are not trained here.
`tutorial` trains the network of PyTorch's CIFAR-10 tutorial as the tutorial does: batches of 4, SGD 0.001, momentum 0.9.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from cifar import open_cifar
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from dlcourse.data.datasets import ImageArrays
from dlcourse.models import create_model
from dlcourse.recipes import FastRecipe, train_fast

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from fast_path import Pictures

GOALS = (0.90, 0.92, 0.93, 0.94)


def recipe(given: argparse.Namespace, train: ImageArrays, test: ImageArrays) -> None:
    fields = ("batch_size", "muon_lr", "padding", "cutout", "small_until")
    how = FastRecipe(given.epochs, widths=tuple(given.widths), **{name: getattr(given, name) for name in fields})
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        _, epochs = train_fast(how, train, test, seed=seed, verbose=True)
        passed = {goal: next((e.seconds for e in epochs if (e.accuracy or 0) >= goal), None) for goal in GOALS}
        said = ", ".join(f"{goal:.0%} {'not' if s is None else f'after {s:.0f} s'}" for goal, s in passed.items())
        print(f"seed {seed}: {epochs[-1].accuracy:.2%} after {epochs[-1].seconds:.0f} s; {said}", flush=True)


def resnet18(given: argparse.Namespace, train: ImageArrays, test: ImageArrays) -> None:
    torch.manual_seed(0)
    model = create_model("resnet18", 10, stem="cifar")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    loader = DataLoader(Pictures(train, train=True), 128, shuffle=True, num_workers=given.workers)
    seconds = train_plainly("ResNet-18", model, optimizer, loader, test, given.epochs)
    for epochs in (30, 200):
        print(f"  {epochs} epochs would take {epochs * seconds / given.epochs / 3600:.1f} hours")


def tutorial(given: argparse.Namespace, train: ImageArrays, test: ImageArrays) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    loader = DataLoader(Pictures(train, train=False), 4, shuffle=True, num_workers=given.workers)
    train_plainly("tutorial's network", model, optimizer, loader, test, given.epochs)


def train_plainly(
    name: str, model: nn.Module, optimizer: torch.optim.Optimizer, loader: Any, test: ImageArrays, epochs: int
) -> float:
    """Train whole epochs in float32, say each one's seconds and test accuracy, and return all seconds of training."""
    total = 0.0
    for epoch in range(epochs):
        model.train()
        started = time.perf_counter()
        for images, labels in loader:
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        seconds = time.perf_counter() - started
        total += seconds
        a_step = f"{seconds / len(loader):.3f} s a step, {seconds:.0f} s"
        print(f"{name}, epoch {epoch + 1}: {a_step}, accuracy {share_right(model, test):.2%}", flush=True)
    return total


@torch.no_grad()
def share_right(model: nn.Module, test: ImageArrays) -> float:
    model.eval()
    loader: Any = DataLoader(Pictures(test, train=False), 500)
    right = [(model(images).argmax(1) == labels).float() for images, labels in loader]
    return float(torch.cat(right).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("recipe", "resnet18", "tutorial"))
    parser.add_argument("--cifar", required=True, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--epochs", type=int, default=FastRecipe.epochs)
    parser.add_argument("--widths", type=int, nargs=3, default=FastRecipe.widths)
    parser.add_argument("--batch-size", type=int, default=FastRecipe.batch_size)
    parser.add_argument("--muon-lr", type=float, default=FastRecipe.muon_lr)
    parser.add_argument("--padding", type=int, default=FastRecipe.padding)
    parser.add_argument("--cutout", type=int, default=FastRecipe.cutout)
    parser.add_argument("--small-until", type=float, default=FastRecipe.small_until)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    {"recipe": recipe, "resnet18": resnet18, "tutorial": tutorial}[given.what](
        given, *(open_cifar(given.cifar, train=part) for part in (True, False))
    )


if __name__ == "__main__":
    main()
