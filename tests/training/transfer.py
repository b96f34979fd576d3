"""What ImageNet weights buy: the offline EfficientNet-Lite0 against training from scratch, and on a folder of pictures.

    python tests/training/transfer.py                             # fashion-mini: 10, 50 and 200 images a class, 5 seeds
    python tests/training/transfer.py --folder path/to/set        # folders train, validation or val, test; then classes

A script to run by hand. On a folder it fits a linear probe on the features, then fine-tunes the whole network from it
(Kumar et al. 2022, arXiv:2202.10054), and prints the accuracy of both on the test folder, with the seconds each took.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torchvision.transforms import v2

import dlcourse
from dlcourse.data import ImageArrays, eval_transform, image_folder, load_dataset, make_loader, train_transform
from dlcourse.evaluation import predict_all
from dlcourse.models import create_model, load_pretrained
from dlcourse.runtime import progress
from dlcourse.training import (
    Trainer,
    TrainerConfig,
    get_classifier,
    layerwise_param_groups,
    make_scheduler,
)


def seen_through(dataset: ImageArrays, transform, indices=slice(None)) -> ImageArrays:
    """Those images of a data set under another transform."""
    targets = np.asarray(dataset.targets)[indices]
    return ImageArrays(dataset.images[indices], targets, classes=dataset.classes, transform=transform)


def features_of(dataset, size: int, middle: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """What the network knows before its head: (N, 1280) features and (N,) labels, at `size` pixels.

    `middle` takes the 80 channels after the fourth of seven stages, averaged over the image, (N, 80): shapes and
    textures rather than ImageNet's own classes.
    """
    model, _ = load_pretrained("efficientnet_lite0")
    model.reset_classifier(0)
    if middle:
        model = nn.Sequential(model.conv_stem, model.bn1, model.blocks[:4], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.to(memory_format=torch.channels_last)
    found = predict_all(model, progress(make_loader(seen_through(dataset, eval_transform(size)), 64), "features"))
    return found.logits.numpy(), found.labels.numpy()


def probe(features: np.ndarray, labels: np.ndarray, strength: float = 0.01):
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500)).fit(features, labels)


def as_head(fitted) -> tuple[torch.Tensor, torch.Tensor]:
    """The probe as weight and bias of a linear layer on the raw features."""
    scaler, regression = fitted[0], fitted[1]
    weight = regression.coef_ / scaler.scale_
    bias = regression.intercept_ - weight @ scaler.mean_
    return torch.tensor(weight, dtype=torch.float32), torch.tensor(bias, dtype=torch.float32)


def from_scratch(train, val, test, seed: int) -> float:
    """SimpleCNN by the course's recipe on few images; as many steps for every size."""
    dlcourse.seed_everything(seed)
    model = create_model("simple_cnn", num_classes=10, dropout=0.3)
    loader = make_loader(train, 64, train=True, seed=seed)
    epochs = max(10, 1_200 // len(loader))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = make_scheduler("one_cycle", optimizer, total_steps=epochs * len(loader))
    config = TrainerConfig(epochs=epochs, seed=seed, channels_last=True, restore_best=False)
    Trainer(model, optimizer, nn.functional.cross_entropy, schedule, config=config).fit(loader, make_loader(val, 256))
    found = predict_all(model, make_loader(test, 256))
    return float((found.predicted == found.labels).float().mean())


def few_labels(size: int, seeds: int) -> None:
    train, val, test = (load_dataset("fashion-mini", split) for split in ("train", "val", "test"))
    started = time.perf_counter()
    last, middle = (
        [features_of(part, size, middle=middle) for part in (train, test)] for middle in (False, True)
    )
    labels = np.asarray(train.targets)
    seconds = time.perf_counter() - started
    print(f"both kinds of features of {len(train) + len(test):,} images at {size} px: {seconds:.0f} s")
    small_val = seen_through(val, eval_transform(32), slice(100))
    for count in (10, 50, 200):
        results = []
        for seed in range(seeds):
            random = np.random.default_rng(seed)
            chosen = np.concatenate([random.permutation(np.flatnonzero(labels == k))[:count] for k in range(10)])
            probes = [
                probe(known[chosen], labels[chosen], strength).score(*asked)
                for ((known, _), asked), strength in ((last, 0.01), (middle, 0.1))
            ]
            scratch = from_scratch(
                seen_through(train, train_transform(32), chosen), small_val, seen_through(test, eval_transform(32)), seed
            )  # fmt: skip
            results.append((*probes, scratch))
        means, deviations = np.mean(results, axis=0), np.std(results, axis=0, ddof=1)
        names = ("last features", "middle features", "from scratch")
        shown = ", ".join(f"{n} {m:.3f} ± {d:.3f}" for n, m, d in zip(names, means, deviations, strict=True))
        print(f"{count:4} images a class, {seeds} seeds (mean ± standard deviation): {shown}", flush=True)


def in_memory(folder, size: int) -> ImageArrays:
    """Every picture read once and kept at (size, size), so that an epoch spends its time on learning."""
    folder.transform = lambda image: v2.functional.resize(image, [size, size], antialias=True)
    images = torch.stack([image for image, _ in progress(folder, "reading")])
    return ImageArrays(images, folder.targets, classes=folder.classes)


def folder(root: Path, size: int, epochs: int, rate: float, policy: str) -> None:
    val_name = "val" if (root / "val").is_dir() else "validation"
    classes = image_folder(root / "train").classes
    train, val, test = (
        in_memory(image_folder(root / name, classes=classes), size) for name in ("train", val_name, "test")
    )
    print(f"{len(train):,} train, {len(val)} validation, {len(test)} test images, {len(classes)} classes, {size} px")
    started = time.perf_counter()
    features = {name: features_of(part, size) for name, part in (("train", train), ("val", val), ("test", test))}
    best = max((probe(*features["train"], c) for c in (0.001, 0.003, 0.01, 0.03)), key=lambda p: p.score(*features["val"]))
    seconds = time.perf_counter() - started
    print(f"linear probe:      test accuracy {best.score(*features['test']):.3f}, {seconds:.0f} s", flush=True)

    started = time.perf_counter()
    dlcourse.seed_everything(0)
    model, _ = load_pretrained("efficientnet_lite0", len(classes))
    head = get_classifier(model)[1]
    weight, bias = as_head(best)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    loader = make_loader(seen_through(train, train_transform(size, policy)), 32, train=True)
    optimizer = torch.optim.AdamW(layerwise_param_groups(model, rate, 0.8), weight_decay=0.05)
    steps = epochs * len(loader)
    schedule = make_scheduler("warmup_cosine", optimizer, warmup_steps=steps // 10, total_steps=steps)
    config = TrainerConfig(epochs=epochs, channels_last=True, monitor="val_accuracy", verbose=True, ema=0.99)
    trainer = Trainer(model, optimizer, nn.CrossEntropyLoss(label_smoothing=0.1), schedule, config=config)
    trainer.fit(loader, make_loader(seen_through(val, eval_transform(size)), 64))
    found = predict_all(model, make_loader(seen_through(test, eval_transform(size)), 64))
    seconds += time.perf_counter() - started
    accuracy = float((found.predicted == found.labels).float().mean())
    print(f"full fine-tuning:  test accuracy {accuracy:.3f}, {seconds:.0f} s with the probe, {epochs} epochs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a folder of pictures; without it, fashion-mini")
    parser.add_argument("--size", type=int, default=None, help="pixels along a side (default 160, fashion-mini 128)")
    parser.add_argument("--epochs", type=int, default=5, help="of fine-tuning")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of the head (layers below: less)")
    parser.add_argument("--policy", default="basic", help="augmentation for fine-tuning")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    if args.folder:
        folder(args.folder, args.size or 160, args.epochs, args.rate, args.policy)
    else:
        few_labels(args.size or 128, args.seeds)


if __name__ == "__main__":
    main()
