"""Tuning hyper-parameters with Optuna (Akiba et al. 2019, arXiv:1907.10902): a study in a file, for the Trainer.

    SPACE = {"lr": FloatDistribution(1e-4, 1e-1, log=True), "weight_decay": FloatDistribution(1e-6, 1e-2, log=True)}

    def objective(params, report):                       # `report` is a Trainer callback: it can end a hopeless trial
        …
        history = Trainer(…, callbacks=[report]).fit(train_loader, val_loader)
        return max(history["val_accuracy"])

    study = open_study("study.log", SPACE, direction="maximize", sampler="tpe", pruner="median")
    run_trials(study, objective, SPACE, trials=30)

The file is a journal to which every process that opens it may append: run the same script a second time, at once or
later, and the trials share one budget. A trial that a kill or an error cut short does not count. Each trial draws its
random numbers by the seed and its own number: a study that was stopped between two trials and opened again tries what
the study left alone would have tried, and processes that run at once try different values.
"""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlcourse.runtime import progress
from dlcourse.training.callbacks import Callback
from dlcourse.training.engine import NonFiniteLoss
from dlcourse.training.study_samplers import SeededByTrial

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

    from dlcourse.training.trainer import Trainer


class _Optuna:
    """`optuna`, imported at its first use: it is slow to import, and only tuning needs it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("optuna"), name)


if not TYPE_CHECKING:
    optuna = _Optuna()

Space = Mapping[str, "BaseDistribution"]
DIRECTIONS = ("minimize", "maximize")
SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("none", "median", "halving")


class ReportTrial(Callback):
    """Tells the study each epoch's metric, and ends the trial when the study's pruner says that it is hopeless.

    It watches the Trainer's `monitor`, or the metric named here. The last epoch ends no trial: nothing is left to save.
    Raises ValueError when the metric does not fit the study's direction, or is not measured.
    """

    def __init__(self, trial: optuna.Trial, *, monitor: str | None = None) -> None:
        self.trial, self.monitor = trial, monitor
        self.interrupted = False

    def on_fit_start(self, trainer: Trainer) -> None:
        self.monitor = self.monitor or trainer.config.monitor
        better, wanted = ("lower", "minimize") if "loss" in self.monitor else ("higher", "maximize")
        if self.trial.study.direction.name.lower() != wanted:
            raise ValueError(f"{self.monitor} is better the {better} it is: open the study with direction={wanted!r}")

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        if self.monitor not in record:
            raise ValueError(f"monitor={self.monitor!r} is not measured; choose one of {', '.join(record)}")
        self.trial.report(record[self.monitor], step=int(record["epoch"]))
        if record["epoch"] < trainer.config.epochs and self.trial.should_prune():
            raise optuna.TrialPruned

    def on_fit_end(self, trainer: Trainer) -> None:
        self.interrupted = trainer.history.interrupted  # by Ctrl-C, which ends the whole study then


Objective = Callable[[dict[str, Any], ReportTrial], float]


def open_study(
    path: str | os.PathLike[str] | None,
    space: Space,
    *,
    direction: Literal["minimize", "maximize"],
    sampler: str = "tpe",
    pruner: str = "median",
    grid: Mapping[str, Sequence[Any]] | None = None,
    seed: int = 0,
) -> optuna.Study:
    """Begin a study in the file `path`, or go on with the one that is there; None keeps it in memory.

    sampler  "tpe" models what went well, after ten random trials; "random"; "grid" tries all combinations of `grid`, the
             values of each parameter, in an order that is the same for every seed
    pruner   "median" ends a trial whose best value so far is worse than the median of the complete trials at the same
             epoch, after five complete trials and not in the first epoch; "halving" lets the best third of the trials go
             on after epochs 1, 3, 9, …; "none"
    seed     of the sampler

    Raises ValueError for an unknown sampler or pruner (with the nearest), a grid that does not fit the space, a file that
    is no study's, and a study with another search space or direction.
    """
    _one_of("direction", direction, DIRECTIONS)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=_sampler(sampler, space, grid, seed),  # type: ignore[arg-type]  # before the file: a wrong name must leave none behind
        pruner=_pruner(pruner),
        storage=None if path is None else _journal(Path(path)),
        study_name="dlcourse",
        load_if_exists=True,
        direction=direction,
    )
    there, here = study.user_attrs.get("space"), {name: repr(value) for name, value in space.items()}
    if study.direction.name.lower() != direction:
        raise ValueError(f"{path} holds a study with direction={study.direction.name.lower()!r}, not {direction!r}")
    if there is None:
        study.set_user_attr("space", here)
    elif there != here:
        differing = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
        lines = "; ".join(f"{n}: {there.get(n, 'absent')} there, {here.get(n, 'absent')} here" for n in differing)
        raise ValueError(f"{path} holds a study of another search space ({lines}). Use another file, or that space.")
    return study


def run_trials(study: optuna.Study, objective: Objective, space: Space, *, trials: int) -> None:
    """Run trials until the study holds `trials` that ended (complete, pruned or failed), those of other processes included.

    A grid ends the run earlier, once each of its combinations has ended: it tries none twice, however large `trials` is.
    A training that diverges (NonFiniteLoss, or NaN as the objective's value) is a failed trial with the attribute
    "error", and the next one follows. Any other error is raised, Ctrl-C too; that trial stays "running" and does not
    count. Processes that run at once may together end a few trials more than asked for, at most one for each other
    process.
    """
    if trials < 1:
        raise ValueError(f"trials={trials} must be at least 1")
    states = optuna.trial.TrialState
    exhausted = getattr(study.sampler, "is_exhausted", lambda study: False)  # a grid knows its end

    def asked() -> Iterator[optuna.Trial]:
        ended = (states.COMPLETE, states.PRUNED, states.FAIL)
        while len(study.get_trials(deepcopy=False, states=ended)) < trials and not exhausted(study):
            yield study.ask(dict(space))

    for trial in progress(asked(), "trials", trials):
        report = ReportTrial(trial)
        try:
            value = objective(dict(trial.params), report)
            if report.interrupted:
                raise KeyboardInterrupt
            if math.isnan(value):
                raise NonFiniteLoss("the objective returned NaN")
        except optuna.TrialPruned:
            study.tell(trial, state=states.PRUNED)
        except NonFiniteLoss as error:
            trial.set_user_attr("error", str(error))
            study.tell(trial, state=states.FAIL)
        else:
            study.tell(trial, value)


def _journal(path: Path) -> optuna.storages.JournalStorage:
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(str(path)) if os.name == "nt" else None  # Windows makes no symbolic links for a lock
    try:
        with path.open("ab+") as file:  # Optuna would take a file of one line of text, and write into it
            file.seek(0)
            first = file.readline()
        if first:
            json.loads(first)["op_code"]
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a study's file ({type(error).__name__}); use another path") from error


def _sampler(name: str, space: Space, grid: Mapping[str, Sequence[Any]] | None, seed: int) -> SeededByTrial:
    from optuna.samplers import GridSampler, RandomSampler, TPESampler

    _one_of("sampler", name, SAMPLERS)
    if name != "grid":
        if grid is not None:
            raise ValueError(f"grid=… is for sampler='grid', not for sampler={name!r}")
        return SeededByTrial(TPESampler if name == "tpe" else RandomSampler, seed)
    if grid is None or grid.keys() != space.keys():
        raise ValueError(f"sampler='grid' needs grid={{…}} with the values of each of {', '.join(space)}")
    for parameter, values in grid.items():
        for value in values:
            if not space[parameter]._contains(space[parameter].to_internal_repr(value)):
                raise ValueError(f"grid: {parameter}={value!r} lies outside {space[parameter]}")
    # Optuna shuffles a grid by its seed and notes in the file only the place in that order: one order for all processes.
    return SeededByTrial(lambda seed: GridSampler(grid, seed=0), seed)


def _pruner(name: str) -> optuna.pruners.BasePruner:
    from optuna import pruners

    _one_of("pruner", name, PRUNERS)
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)  # epochs count from 1
    if name == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return pruners.NopPruner()


def _one_of(argument: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        nearest = get_close_matches(str(name), known, n=1) or known
        raise ValueError(f"{argument}={name!r} is unknown; did you mean {' or '.join(map(repr, nearest))}?")
