"""`train`: an experiment becomes a run in a folder, and goes on there after whatever stopped it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

import dlcourse
from dlcourse.experiment.build import (
    find_device,
    make_loss,
    make_model,
    make_optimizer,
    make_schedule,
    make_train_transform,
)
from dlcourse.experiment.config import ConfigError, Experiment
from dlcourse.experiment.environment import environment
from dlcourse.experiment.run import Run, newest_run
from dlcourse.training import BestCheckpoint, Callback, EarlyStopping, History, NonFiniteLoss, Trainer, save_checkpoint
from dlcourse.training.config import MONITORS
from dlcourse.training.distributed import from_main, is_main, rank, world_size

if TYPE_CHECKING:
    from dlcourse.experiment.data import Images


def train(
    experiment: Experiment,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    verbose: bool = False,
) -> Run:
    """Train, and leave everything in the run's folder (see `Run`); None is the next free runs/<name>-<n>.

        run = train(load_config("fashion-mini"))
        run = train(run.experiment, run.folder, resume=True)      # after a kill, a power cut, Ctrl-C

    resume     go on with the run in `folder` (None: the newest one). It ends with the weights, bit for bit, of a run that
               nothing stopped. The experiment must be the run's own; only its epochs may grow.
    overwrite  delete the run that is in `folder`
    download   fetch a data set of that name, where it is missing
    verbose    print a line an epoch

    On several processes (see `training.distributed`) each takes its share of every batch of `batch_size`, and the main one
    writes. A run goes on on any number of them, bit for bit on the same number.

    Ctrl-C ends it after the step in progress; `run.interrupted` says so then. Raises ConfigError, ValueError and OSError,
    before anything is written, for what cannot be built, and FileExistsError for a folder that is in use.
    """
    from dlcourse.experiment.data import open_images  # with torchvision, which `dlcourse --help` need not wait for

    if experiment.batch_size % world_size():
        raise ConfigError(f"batch_size={experiment.batch_size} must be a multiple of the {world_size()} processes that share it")
    old = Run(from_main(newest_run() if folder is None else folder)) if resume else None
    if old is not None:
        check_same(old, experiment)
    device = find_device(experiment.device)
    split = None if old is None else old.folder / "split.csv"
    images = open_images(experiment.data, seed=experiment.seed, split=split, download=download)
    if old is not None:
        old.check_images(images)
    dlcourse.seed_everything(experiment.seed)
    model, preprocessing = make_model(experiment, len(images.classes))
    loader = images.loader(
        "train", make_train_transform(experiment, preprocessing), experiment.batch_size, train=True, seed=experiment.seed
    )
    val_loader = images.loader("val", preprocessing, experiment.batch_size)
    optimizer = make_optimizer(experiment.optimizer, model.to(device))
    training = experiment.training
    schedule = make_schedule(
        experiment.schedule, optimizer, training.epochs * math.ceil(len(loader) / training.accumulate)
    )
    if old is None:
        made = Run.create(experiment, folder, overwrite=overwrite).folder if is_main() else None
        run = Run(cast(Path, from_main(made)))
    else:
        run = old
    if is_main():
        _write_beginning(run, experiment, images, device)
    trainer = Trainer(
        model, optimizer, make_loss(experiment), schedule, device=device,
        config=training.trainer_config(seed=experiment.seed, folder=run.folder, verbose=verbose),
        callbacks=_stopping(experiment),
    )  # fmt: skip
    card = _card(experiment, images, preprocessing)
    trainer.callbacks = [KeepRun(run, card), *(each for each in trainer.callbacks if not isinstance(each, BestCheckpoint))]
    if (run.folder / "last.pt").exists():
        trainer.resume(run.folder / "last.pt")
    history = _fit(trainer, loader, val_loader, run)
    if history.epochs and is_main():
        run.write_figure("history.png", lambda: _figure(run))
    run.interrupted = history.interrupted
    return run


def _fit(trainer: Trainer, loader: Any, val_loader: Any, run: Run) -> History:
    try:
        return trainer.fit(loader, val_loader)
    except RuntimeError as error:
        if world_size() == 1 or isinstance(error, NonFiniteLoss):
            raise
        reason = re.sub(r"^\[[^]]*\] ", "", str(error)).split(". ")[0]  # gloo puts a line of its source before it
        raise RuntimeError(
            f"process {rank()} of {world_size()} had to stop, as when another one has ended ({reason}). "
            f"Go on with: dlcourse train --resume --run {run.folder}"
        ) from error


class KeepRun(Callback):
    """After each epoch: history.csv, and best.pt with the card when the epoch is the best so far."""

    main_only = True

    def __init__(self, run: Run, card: str) -> None:
        self.run, self.card = run, card

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        if trainer.history.best_epoch == record["epoch"]:
            save_checkpoint(self.run.folder / "best.pt", trainer.evaluated_model, card=self.card, metrics=record)
        self.run.write_history(trainer.history.epochs)


def check_same(run: Run, experiment: Experiment) -> None:
    """Raise ConfigError, naming the keys, unless the experiment is the run's own or has more epochs and differs in no other way."""
    then, now = (_flat(each.to_dict()) for each in (run.experiment, experiment))
    changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    if changed == ["training.epochs"] and now["training.epochs"] > then["training.epochs"]:
        return
    if changed:
        listed = ", ".join(f"{key}={then.get(key)}, not {now.get(key)}" for key in changed)
        raise ConfigError(f"{run.folder} was begun with {listed}: when a run goes on, only training.epochs may change, and grow")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _write_beginning(run: Run, experiment: Experiment, images: Images, device: torch.device) -> None:
    """The files that are there before the first step; a resumed run's are kept, its config takes the new epochs."""
    from dlcourse.experiment.data import write_split
    from dlcourse.training.checkpoint import write_atomically

    if run.experiment != experiment:
        write_atomically(run.folder / "config.yaml", experiment.to_yaml().encode())
    write_split(images, run.folder / "split.csv")
    run.write_json("data.json", images.facts())
    path = run.folder / "environment.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    run.write_json("environment.json", [*before, environment(experiment.seed, device)])


def _stopping(experiment: Experiment) -> list[Callback]:
    patience, monitor = experiment.training.patience, experiment.training.monitor
    return [] if patience is None else [EarlyStopping(patience, mode=MONITORS[monitor], monitor=monitor)]


def _card(experiment: Experiment, images: Images, preprocessing: Any) -> str:
    from dlcourse.deployment import ModelCard

    return ModelCard(tuple(images.classes), preprocessing, name=experiment.name).to_json()


def _figure(run: Run) -> Any:
    from dlcourse.plotting import plot_history

    history = run.history
    best = f", the best one {history.best_epoch}" if history.best_epoch else ""
    return plot_history(history, title=f"{run.experiment.name}: {len(history.epochs)} epochs{best}")[0]
