"""Measure what the Trainer costs over the bare loop of chapter 3, on the same work: SimpleCNN, 32×32 images, batches of 64.

    python tests/training/overhead.py --rounds 21

Both train one epoch and evaluate, on the same images from the same kind of loader, and count loss and accuracy. They take
turns, so that a slow moment of the machine meets both. Prints each median, and the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dlcourse.models import create_model
from dlcourse.training import Trainer, TrainerConfig


def make_loaders(images: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(images, 3, 32, 32), torch.randint(0, 10, (images,)))
    return DataLoader(data, 64, shuffle=True), DataLoader(TensorDataset(*data[: images // 5]), 64)


def make_model() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = create_model("simple_cnn", num_classes=10)
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def bare_loop(train_loader: DataLoader[Any], val_loader: DataLoader[Any]) -> tuple[nn.Module, list[float]]:
    """The loop without a Trainer: one epoch and its evaluation, with the mean loss and accuracy of both."""
    model, optimizer = make_model()
    torch.manual_seed(0)
    results: list[float] = []
    for loader in (train_loader, val_loader):
        training = loader is train_loader
        model.train(training)
        loss_sum, correct, samples = 0.0, 0, 0
        with torch.set_grad_enabled(training):
            for images, labels in loader:
                logits = model(images)
                loss = F.cross_entropy(logits, labels)
                if training:
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                loss_sum += loss.item() * len(labels)
                correct += int((logits.argmax(dim=1) == labels).sum())
                samples += len(labels)
        results += [loss_sum / samples, correct / samples]
    return model, results


def with_trainer(train_loader: DataLoader[Any], val_loader: DataLoader[Any]) -> tuple[nn.Module, list[float]]:
    model, optimizer = make_model()
    history = Trainer(model, optimizer, F.cross_entropy, config=TrainerConfig(epochs=1), device="cpu").fit(
        train_loader, val_loader
    )
    return model, [history[name][0] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--images", type=int, default=1280)
    options = parser.parse_args()
    loaders = make_loaders(options.images)
    seconds: dict[str, list[float]] = {"bare loop": [], "Trainer": []}
    outcomes = {}
    for turn in range(options.rounds + 1):
        for name, run in (("bare loop", bare_loop), ("Trainer", with_trainer))[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            outcomes[name] = run(*loaders)
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - started)
    (bare, numbers), (trained, same_numbers) = outcomes["bare loop"], outcomes["Trainer"]
    weights = zip(bare.state_dict().values(), trained.state_dict().values(), strict=True)
    if numbers != same_numbers or not all(torch.equal(one, other) for one, other in weights):
        raise SystemExit("the two did not do the same work")
    for name, times in seconds.items():
        print(f"{name}: {statistics.median(times):.3f} s (median of {options.rounds}, {min(times):.3f} to {max(times):.3f})")
    ratios = [one / other for one, other in zip(seconds["Trainer"], seconds["bare loop"], strict=True)]
    print(f"ratio: {statistics.median(ratios):.3f} (median of {options.rounds} rounds)")


if __name__ == "__main__":
    main()
