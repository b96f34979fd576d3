"""Optuna's samplers, made fit for a study in a file: stopped and opened again, or shared by several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GridSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class SeededByTrial(BaseSampler):
    """A sampler that is made anew for each trial, with a seed from (seed, the trial's number).

    Optuna seeds a sampler once a process: opened again with the same seed it draws the first session's numbers again,
    and so does every other process.
    """

    def __init__(self, make: Callable[..., BaseSampler], seed: int) -> None:
        self.make, self.seed = make, seed
        self._number, self._sampler = -1, make(seed=seed)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number != self._number:
            seed = np.random.SeedSequence((self.seed, trial.number)).generate_state(1)[0]
            self._number, self._sampler = trial.number, self.make(seed=int(seed))
        return self._sampler

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._of(trial).before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._of(trial).after_trial(study, trial, state, values)


class SharedGrid(GridSampler):
    """A grid in one order for all processes, for `ask` and `tell`.

    Optuna shuffles by the seed and notes only the place in that order, so that another seed loses combinations. And its
    grid calls `Study.stop` when it is exhausted, an error outside `Study.optimize`; `run_trials` asks `is_exhausted`.
    """

    def __init__(self, grid: Mapping[str, Sequence[Any]]) -> None:
        super().__init__(grid, seed=0)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        pass
