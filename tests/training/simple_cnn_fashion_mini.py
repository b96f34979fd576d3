"""How well SimpleCNN does on fashion-mini, and how fast: a measurement, not a test.

    python tests/training/simple_cnn_fashion_mini.py [--seeds 0 1 2 3 4]

Prints the test accuracy and the seconds of each seed, and their means. The recipe was chosen on the validation images;
the test images are looked at once a run, at the end.
"""

import argparse
import time

import torch
from torch import nn

import dlcourse
from dlcourse.data import eval_transform, load_dataset, make_loader
from dlcourse.evaluation import accuracy, predict_all
from dlcourse.models import simple_cnn
from dlcourse.training import Trainer, TrainerConfig

DATA, EPOCHS, LEARNING_RATE = "fashion-mini", 16, 6e-3
STATISTICS = {"mean": (0.22,) * 3, "std": (0.32,) * 3}  # of the training images


class ShiftAndFlip(nn.Module):
    """Move the image by at most one pixel each way, and mirror half of them: the images are already centred."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        top, left = torch.randint(3, (2,)).tolist()
        image = nn.functional.pad(image, [1, 1, 1, 1])[:, top : top + 32, left : left + 32]
        return image.flip(-1) if torch.rand(()) < 0.5 else image


def run(seed: int) -> tuple[float, float, float]:
    """Train once; returns the accuracies in validation and test, and the seconds of the training."""
    dlcourse.seed_everything(seed)
    plain = eval_transform(32, **STATISTICS)
    train = make_loader(load_dataset(DATA, "train", nn.Sequential(ShiftAndFlip(), plain)), 128, train=True, seed=seed)
    val, test = (make_loader(load_dataset(DATA, split, plain), 500) for split in ("val", "test"))
    model = simple_cnn(num_classes=10, dropout=0.4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    steps = EPOCHS * len(train)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2)
    config = TrainerConfig(
        epochs=EPOCHS, seed=seed, scheduler_interval="step", channels_last=True, restore_best=False
    )
    started = time.perf_counter()
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    history = Trainer(model, optimizer, loss_fn, scheduler, config=config).fit(train, val)
    seconds = time.perf_counter() - started
    predictions = predict_all(model, test)
    return history["val_accuracy"][-1], accuracy(predictions.predicted, predictions.labels), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    results = []
    for seed in parser.parse_args().seeds:
        results.append(run(seed))
        val, test, seconds = results[-1]
        print(f"seed {seed}: validation {val:.3f}, test {test:.3f}, {seconds:.1f} s", flush=True)
    val, test, seconds = (sum(column) / len(results) for column in zip(*results, strict=True))
    print(f"mean of {len(results)}: validation {val:.4f}, test {test:.4f}, {seconds:.1f} s")


if __name__ == "__main__":
    main()
