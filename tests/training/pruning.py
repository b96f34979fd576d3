"""Measure what pruning and a second process save in a study: a small CNN on fashion-mini, each process with one thread.

    python tests/training/pruning.py --trials 16 --seeds 0 1

First the same random configurations with the median pruner and without: the seconds until each study reaches the same
value (the lower of the two best ones), and the seconds and epochs of the whole study. Then the same number of trials by one
process and by two on one file, without a pruner: the seconds from the first trial's start to the last one's end (so
without the start of Python), and the best value.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlcourse.data import load_dataset
from dlcourse.training import Trainer, TrainerConfig
from dlcourse.training.tuning import ReportTrial, open_study, run_trials

SPACE = {
    "lr": FloatDistribution(1e-4, 0.5, log=True),
    "weight_decay": FloatDistribution(1e-6, 1e-2, log=True),
    "width": IntDistribution(4, 16, log=True),
}


def make_loader(split: str, images: int) -> DataLoader[Any]:
    data = load_dataset("fashion-mini", split)
    pixels = torch.stack([data[i][0] for i in range(images)])  # (N, 3, 32, 32)
    small = nn.functional.avg_pool2d(pixels, 2) * 2 - 0.6  # (N, 3, 16, 16)
    return DataLoader(TensorDataset(small, torch.tensor(data.targets[:images])), 64, shuffle=split == "train")


class Objective:
    """A training of a two-layer CNN on 16×16 images; returns its best validation accuracy."""

    def __init__(self, images: int, epochs: int) -> None:
        self.loaders = make_loader("train", images), make_loader("val", 300)
        self.epochs = epochs

    def __call__(self, params: dict[str, Any], report: ReportTrial) -> float:
        width = params["width"]
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * width, 10),
        )  # fmt: skip
        optimizer = torch.optim.SGD(model.parameters(), lr=params["lr"], momentum=0.9, weight_decay=params["weight_decay"])
        config = TrainerConfig(epochs=self.epochs, monitor="val_accuracy", restore_best=False)
        trainer = Trainer(model, optimizer, nn.functional.cross_entropy, config=config, callbacks=[report], device="cpu")
        return max(trainer.fit(*self.loaders)["val_accuracy"])


def study_at(path: Path | None, seed: int, pruner: str) -> optuna.Study:
    return open_study(path, SPACE, direction="maximize", sampler="random", pruner=pruner, seed=seed)


def seconds_of(study: optuna.Study) -> list[float]:
    """When each trial ended, in seconds after the first one began, sorted by that time."""
    begin = min(trial.datetime_start for trial in study.trials)
    return sorted((trial.datetime_complete - begin).total_seconds() for trial in study.trials if trial.state.is_finished())


def seconds_until(study: optuna.Study, value: float) -> float:
    """How long the study took until a complete trial reached `value`."""
    begin = study.trials[0].datetime_start
    reached = [t.datetime_complete for t in study.trials if t.state.name == "COMPLETE" and t.value >= value]
    return (min(reached) - begin).total_seconds()


def pruned_or_not(objective: Objective, seed: int, trials: int) -> None:
    studies = {}
    for pruner in ("none", "median"):
        studies[pruner] = study_at(None, seed, pruner)
        run_trials(studies[pruner], objective, SPACE, trials=trials)
    value = min(study.best_value for study in studies.values())
    results = {}
    for pruner, study in studies.items():
        pruned = sum(trial.state.name == "PRUNED" for trial in study.trials)
        epochs = sum(trial.last_step or 0 for trial in study.trials)
        results[pruner] = seconds_until(study, value), seconds_of(study)[-1]
        until, whole = results[pruner]
        print(f"{seed:>4}  {pruner:<7} {until:>15.1f} {whole:>12.1f} {epochs:>7} {pruned:>7} {study.best_value:>7.3f}")
    ratios = [one / other for one, other in zip(results["median"], results["none"], strict=True)]
    print(f"{seed:>4}  {'ratio':<7} {ratios[0]:>15.2f} {ratios[1]:>12.2f}   (same value: {value:.3f})", flush=True)


def one_or_two(options: argparse.Namespace, seed: int, folder: Path) -> None:
    times = {}
    for count in (1, 2):
        path = folder / f"{seed}-{count}.log"
        command = [sys.executable, __file__, "--worker", str(path), "--seeds", str(seed), "--trials", str(options.trials)]
        command += ["--images", str(options.images), "--epochs", str(options.epochs), "--processes", str(count)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        workers = [subprocess.Popen([*command, "--me", str(me)], env=environment) for me in range(count)]
        codes = [worker.wait() for worker in workers]  # of all, before anything else
        if any(codes):
            raise SystemExit("a worker failed")
        study = study_at(path, seed, "none")
        times[count] = seconds_of(study)[-1]
        done = [sum(trial.user_attrs.get("worker") == me for trial in study.trials) for me in range(count)]
        print(f"{seed:>4}  {count:<9} {times[count]:>8.1f}   {' + '.join(map(str, done)):<9} {study.best_value:>7.3f}")
    print(f"{seed:>4}  {'ratio':<9} {times[2] / times[1]:>8.2f}", flush=True)


def work(options: argparse.Namespace) -> None:
    objective = Objective(options.images, options.epochs)
    options.worker.with_suffix(f".ready-{options.me}").touch()
    while not all(options.worker.with_suffix(f".ready-{me}").exists() for me in range(options.processes)):
        time.sleep(0.01)

    def noted(params: dict[str, Any], report: ReportTrial) -> float:
        report.trial.set_user_attr("worker", options.me)
        return objective(params, report)

    run_trials(study_at(options.worker, options.seeds[0], "none"), noted, SPACE, trials=options.trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--me", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        work(options)
        return
    objective = Objective(options.images, options.epochs)
    print(f"{options.trials} trials of {options.epochs} epochs on {options.images} images, one thread a process")
    print("seed  pruner   s to same value  s of all  epochs  pruned    best")
    for seed in options.seeds:
        pruned_or_not(objective, seed, options.trials)
    print("\nseed  processes  seconds   trials       best")
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            one_or_two(options, seed, Path(folder))


if __name__ == "__main__":
    main()
