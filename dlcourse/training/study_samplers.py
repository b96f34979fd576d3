"""Optuna's samplers, made fit for a study in a file: stopped and opened again, or shared by several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState


class SeededByTrial:
    """A sampler for Optuna's Study that is made anew for each trial, with a seed from (seed, the trial's number).

    Optuna seeds a sampler once a process: opened again with the same seed it draws the first process's numbers again,
    and so does every other process. `make(seed=…)` is an Optuna sampler.
    """

    def __init__(self, make: Callable[..., BaseSampler], seed: int) -> None:
        self.make, self.seed = make, seed
        self._number, self._sampler = -1, make(seed=seed)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number != self._number:
            seed = np.random.SeedSequence((self.seed, trial.number)).generate_state(1)[0]
            self._number, self._sampler = trial.number, self.make(seed=int(seed))
        return self._sampler

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Nothing: of the samplers used here only the grid's does something, `Study.stop`, an error outside `optimize`."""

    def is_exhausted(self, study: Study) -> bool:
        """Whether nothing is left to try, as at the end of a grid."""
        return hasattr(self._sampler, "is_exhausted") and bool(self._sampler.is_exhausted(study))
