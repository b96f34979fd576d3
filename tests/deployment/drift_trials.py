"""Is planted drift found within one window, and is the monitor silent where there is none? A measurement, not a test.

    python tests/deployment/drift_trials.py [--trials 100] [--silent 1000] [--window 200] [--rate 0.01] [--epochs 4]

Trains SimpleCNN on fashion-mini, exports it, and lets the exported file answer to the 1,600 held-out images (600 for
validation, 1,000 for test), as they are and with each kind of drift planted. Every trial deals these images out anew, 600
to the reference and a window of the other 1,000: the two differ by chance as two samples of one world do, and no image is
in both. A reference and a test set that stay the same for all trials would share one difference by chance, and 1,000
windows of the same 1,000 images would count it 1,000 times; what that does is printed below the table.

The strengths are small changes of which one would like to know. That of the class mix (one class at 30 % in place of 10)
was set after trials: a class that only doubles is found in less than half of the windows of 200.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy.stats import beta

import dlcourse
from dlcourse.data import eval_transform, load_dataset, make_loader, train_transform
from dlcourse.deployment import ModelCard, Prediction, Predictor, export_onnx
from dlcourse.deployment.drift import DriftReport, Reference, detect_drift
from dlcourse.deployment.observing import Observation, observe
from dlcourse.models import simple_cnn
from dlcourse.training import Trainer, TrainerConfig

DATA, REFERENCE = "fashion-mini", 600
RANDOM = np.random.default_rng(0)

Picture = np.ndarray


def scaled(factor: float) -> Callable[[Picture], Picture]:
    return lambda picture: np.rint(picture * factor).clip(0, 255).astype(np.uint8)


def blurred(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1)))


def noisy(picture: Picture) -> Picture:
    noise = RANDOM.normal(0, 0.05 * 255, picture.shape)
    return np.rint(picture + noise).clip(0, 255).astype(np.uint8)


PIXELS = {
    "brighter by 15 %": scaled(1.15),
    "darker by 15 %": scaled(0.85),
    "blurred, σ = 1 pixel": blurred,
    "noise, σ = 0.05": noisy,
}
ANSWERS = {"confidence: logits halved": 2.0, "confidence: logits doubled": 0.5}
MIX = "one class three times as often (30 %)"
COLLAPSE = "a quarter of the answers is one class, at 0.97"
NONE = "none"


def trained_predictor(epochs: int, folder: Path) -> Predictor:
    dlcourse.seed_everything(0)
    loaders = [
        make_loader(load_dataset(DATA, split, transform), 128, train=split == "train")
        for split, transform in (("train", train_transform(32)), ("val", eval_transform(32)))
    ]
    model = simple_cnn(num_classes=10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.05)
    steps = epochs * len(loaders[0])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps, pct_start=0.2)
    config = TrainerConfig(epochs=epochs, scheduler_interval="step")
    Trainer(model, optimizer, torch.nn.CrossEntropyLoss(), scheduler, config=config).fit(*loaders)
    card = ModelCard(load_dataset(DATA, "val").classes, eval_transform(32), name="drift trials")
    return Predictor(export_onnx(model, folder / "model.onnx", card))


def held_out() -> tuple[list[Picture], np.ndarray]:
    """The pictures that no training has seen, uint8 (32, 32, 3), and their labels."""
    pictures, labels = [], []
    for split in ("val", "test"):
        for image, label in load_dataset(DATA, split):
            pictures.append((image * 255).round().byte().permute(1, 2, 0).numpy())
            labels.append(label)
    return pictures, np.array(labels)


def observations(
    predictor: Predictor, pictures: Sequence[Picture], *, temperature: float = 1.0
) -> list[Observation]:
    images = np.stack([predictor.prepare(picture) for picture in pictures])
    logits = torch.from_numpy(predictor.logits(images)).double() / temperature
    probabilities = logits.softmax(1).numpy()
    predictions = [Prediction(predictor.card.classes, row) for row in probabilities]
    return list(map(observe, predictions, images))


def collapsed(seen: Sequence[Observation]) -> list[Observation]:
    """A quarter of them is given to class 0, with high confidence, as by a head of which one weight is broken."""
    return [
        Observation(0, {**each.values, "confidence": 0.97}) if RANDOM.random() < 0.25 else each for each in seen
    ]


def deal(labels: np.ndarray, window: int, tripled: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images are the reference, and which the window."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    reference, rest = order[:REFERENCE], order[REFERENCE:]
    if tripled is None:
        return reference, rest[:window]
    chosen = labels[rest] == tripled  # of ten classes with a tenth each
    weights = np.where(chosen, 0.3 / chosen.sum(), 0.7 / (~chosen).sum())
    return reference, generator.choice(rest, window, p=weights)  # with replacement: there are not enough of the one


def judge(
    classes: Sequence[str], normal: list[Observation], planted: list[Observation], indices: Sequence[np.ndarray], rate: float
) -> DriftReport:
    reference, window = indices
    return detect_drift(
        Reference.from_observations(classes, [normal[i] for i in reference]),
        Reference.from_observations(classes, [planted[i] for i in window]),
        false_alarm_rate=rate,
    )


def upper_bound(alarms: int, trials: int) -> float:
    """What the true rate lies below, at 95 % confidence (Clopper and Pearson)."""
    return 1.0 if alarms == trials else float(beta.ppf(0.95, alarms + 1, trials - alarms))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, help="of each kind of drift")
    parser.add_argument("--silent", type=int, default=1000, help="trials without drift")
    parser.add_argument("--window", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0.01, help="the stated false-alarm rate of a window")
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        predictor = trained_predictor(options.epochs, Path(folder))
        pictures, labels = held_out()
        normal = observations(predictor, pictures)
        seen = {kind: observations(predictor, [change(p) for p in pictures]) for kind, change in PIXELS.items()}
        seen |= {kind: observations(predictor, pictures, temperature=t) for kind, t in ANSWERS.items()}
    seen |= {COLLAPSE: collapsed(normal), MIX: normal, NONE: normal}
    right = np.mean([each.index == label for each, label in zip(normal, labels, strict=True)])
    print(f"SimpleCNN, {options.epochs} epochs: accuracy {right:.3f} on the {len(labels):,} held-out images")
    print(f"reference {REFERENCE}, window {options.window}, stated false-alarm rate {options.rate:g} a window\n")
    print(f"{'planted':<48} {'alarms':>13}  found by (alarms that name it)")
    classes = predictor.card.classes
    for kind, planted in seen.items():
        trials = options.silent if kind == NONE else options.trials
        named: Counter[str] = Counter()
        alarms = 0
        for seed in range(trials):
            indices = deal(labels, options.window, seed % len(classes) if kind == MIX else None, seed)
            report = judge(classes, normal, planted, indices, options.rate)
            alarms += report.alarm
            named.update(report.drifted)
        names = ", ".join(f"{name} {count}" for name, count in named.most_common(4))
        print(f"{kind:<48} {alarms:>5} of {trials:<5}  {names}", flush=True)
    print(f"\nno drift: {alarms / trials:.2%} alarms, the true rate at most {upper_bound(alarms, trials):.2%} (95 %)")
    fixed = np.arange(REFERENCE)
    rest = np.arange(REFERENCE, len(labels))
    windows = [np.random.default_rng(seed).choice(rest, options.window, replace=False) for seed in range(options.silent)]
    rung = sum(judge(classes, normal, normal, (fixed, window), options.rate).alarm for window in windows)
    print(f"one reference (the validation images), {len(windows):,} windows of the test images: {rung} alarms")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
