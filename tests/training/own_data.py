"""The course's code on data that the course does not ship: an epoch on an image folder or on CIFAR-10.

    python tests/training/own_data.py --folder path/to/set     # folders train, validation or val, test; then classes
    python tests/training/own_data.py --cifar10 path/to/root   # as torchvision keeps it

A script to run by hand: it prints the accuracy on the test split, beside that of always naming the largest class.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import torch

import dlcourse
from dlcourse.data import (
    channel_statistics,
    class_weights,
    eval_transform,
    image_folder,
    load_dataset,
    make_loader,
    train_transform,
)
from dlcourse.evaluation import accuracy, classification_summary, predict_all
from dlcourse.models import create_model
from dlcourse.training import Trainer, TrainerConfig


def folder_splits(root: Path, size: int):
    val_name = "val" if (root / "val").is_dir() else "validation"
    mean, std = channel_statistics(image_folder(root / "train", eval_transform(size, mean=(0, 0, 0), std=(1, 1, 1))))
    training, evaluation = train_transform(size, mean=mean, std=std), eval_transform(size, mean=mean, std=std)
    train = image_folder(root / "train", training)
    return train, *(image_folder(root / name, evaluation, classes=train.classes) for name in (val_name, "test"))


def cifar_splits(root: Path):
    return [
        load_dataset("cifar10", split, train_transform(32) if split == "train" else eval_transform(32), root=root)
        for split in ("train", "val", "test")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--folder", type=Path)
    source.add_argument("--cifar10", type=Path)
    parser.add_argument("--size", type=int, default=64, help="pixels along a side, for a folder (default 64)")
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()

    dlcourse.seed_everything(0)
    started = time.perf_counter()
    train, val, test = folder_splits(args.folder, args.size) if args.folder else cifar_splits(args.cifar10)
    print(f"{len(train)} train, {len(val)} validation, {len(test)} test images, {len(train.classes)} classes")

    model = create_model("simple_cnn", num_classes=len(train.classes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss_fn = torch.nn.CrossEntropyLoss(weight=class_weights(train.targets).float())
    trainer = Trainer(model, optimizer, loss_fn, config=TrainerConfig(epochs=args.epochs))
    trainer.fit(make_loader(train, 64, train=True), make_loader(val, 256))
    predictions = predict_all(model, make_loader(test, 256))
    print(classification_summary(predictions.labels, predictions.predicted, test.classes).round(3))
    largest = max(Counter(test.targets).values()) / len(test)
    print(f"test accuracy {accuracy(predictions.predicted, predictions.labels):.3f}, largest class {largest:.3f}")
    print(f"{time.perf_counter() - started:.0f} s for {args.epochs} epoch(s)")


if __name__ == "__main__":
    main()
