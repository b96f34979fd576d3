"""Tuning hyper-parameters with Optuna (Akiba et al. 2019, arXiv:1907.10902): a study in a file, for the Trainer.

    SPACE = {"lr": FloatDistribution(1e-4, 1e-1, log=True), "weight_decay": FloatDistribution(1e-6, 1e-2, log=True)}

    def objective(params, report):                       # `report` is a Trainer callback: it can end a hopeless trial
        …
        history = Trainer(…, callbacks=[report]).fit(train_loader, val_loader)
        return max(history["val_accuracy"])

    study = open_study("study.log", SPACE, direction="maximize", sampler="tpe", pruner="median")
    run_trials(study, objective, SPACE, trials=30)

The file is a journal to which every process that opens it may append: run the same script a second time, at once or
later, and the trials share one budget. A trial that a kill cut short does not count.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlcourse.runtime import progress
from dlcourse.training.callbacks import Callback
from dlcourse.training.engine import NonFiniteLoss

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

    from dlcourse.training.trainer import Trainer

Space = Mapping[str, "BaseDistribution"]
SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("none", "median", "halving")


class ReportTrial(Callback):
    """Tells the study each epoch's metric, and ends the trial when the study's pruner says that it is hopeless."""

    def __init__(self, trial: optuna.Trial, *, monitor: str | None = None) -> None:
        self.trial, self.monitor = trial, monitor

    def on_fit_start(self, trainer: Trainer) -> None:
        self.monitor = self.monitor or trainer.config.monitor
        better, wanted = ("lower", "MINIMIZE") if "loss" in self.monitor else ("higher", "MAXIMIZE")
        if self.trial.study.direction.name != wanted:
            raise ValueError(f"{self.monitor} is better the {better} it is: open the study with direction={wanted.lower()!r}")

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        import optuna

        self.trial.report(record[str(self.monitor)], step=int(record["epoch"]))
        if self.trial.should_prune():
            raise optuna.TrialPruned


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
             values of each parameter
    pruner   "median" ends a trial below the median of the earlier ones at the same epoch, after five whole trials and not
             in the first epoch; "halving" keeps the best third of the trials at epochs 1, 3, 9, …; "none"
    seed     of the sampler; several processes on one file need different ones, or they try the same values

    Raises ValueError for an unknown sampler or pruner (with the nearest), a grid that does not fit the space, and a file
    whose study has another search space or direction.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=None if path is None else _journal(Path(path)),
        study_name="dlcourse",
        load_if_exists=True,
        direction=direction,
        sampler=_sampler(sampler, space, grid, seed),
        pruner=_pruner(pruner),
    )
    described = {name: repr(distribution) for name, distribution in sorted(space.items())}
    known = study.user_attrs.get("space")
    if known is None:
        study.set_user_attr("space", described)
    elif known != described:
        differing = sorted(name for name in {*known, *described} if known.get(name) != described.get(name))
        lines = "; ".join(f"{n}: {known.get(n, 'absent')} there, {described.get(n, 'absent')} here" for n in differing)
        raise ValueError(f"{path} holds a study of another search space ({lines}). Use another file, or that space.")
    return study


def run_trials(study: optuna.Study, objective: Objective, space: Space, *, trials: int) -> None:
    """Run trials until the study holds `trials` that ended (complete, pruned or failed), those of other processes included.

    A training that diverges (NonFiniteLoss) is a failed trial, not the end of the study; any other error is raised.
    Processes that run at once may together end a few trials more than asked for, at most one each.
    """
    import optuna
    from optuna.trial import TrialState

    if trials < 1:
        raise ValueError(f"trials={trials} must be at least 1")
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

    def asked() -> Iterator[optuna.Trial]:
        while len(study.get_trials(deepcopy=False, states=ended)) < trials:
            yield study.ask(dict(space))

    for trial in progress(asked(), "trials", trials):
        try:
            value = objective(dict(trial.params), ReportTrial(trial))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except NonFiniteLoss as error:
            trial.set_user_attr("error", str(error))
            study.tell(trial, state=TrialState.FAIL)
        except BaseException:
            study.tell(trial, state=TrialState.FAIL)
            raise
        else:
            study.tell(trial, value)


def _journal(path: Path) -> optuna.storages.BaseStorage:
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(str(path)) if os.name == "nt" else None  # Windows makes no symbolic links for a lock
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a study's file ({type(error).__name__}); use another path") from error


def _sampler(
    name: str, space: Space, grid: Mapping[str, Sequence[Any]] | None, seed: int
) -> optuna.samplers.BaseSampler:
    from optuna import samplers

    _one_of("sampler", name, SAMPLERS)
    if name != "grid":
        if grid is not None:
            raise ValueError(f"grid=… is for sampler='grid', not for sampler={name!r}")
        return samplers.TPESampler(seed=seed) if name == "tpe" else samplers.RandomSampler(seed=seed)
    if grid is None or grid.keys() != space.keys():
        raise ValueError(f"sampler='grid' needs grid={{…}} with the values of each of {', '.join(space)}")
    for parameter, values in grid.items():
        for value in values:
            if not space[parameter]._contains(space[parameter].to_internal_repr(value)):
                raise ValueError(f"grid: {parameter}={value!r} lies outside {space[parameter]}")
    return samplers.GridSampler(grid, seed=seed)


def _pruner(name: str) -> optuna.pruners.BasePruner:
    from optuna import pruners

    _one_of("pruner", name, PRUNERS)
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    if name == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return pruners.NopPruner()


def _one_of(argument: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        nearest = get_close_matches(str(name), known, n=1) or known
        raise ValueError(f"{argument}={name!r} is unknown; did you mean {' or '.join(map(repr, nearest))}?")
