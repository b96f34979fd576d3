"""Every metric on random cases against scikit-learn's and SciPy's."""

import warnings

import numpy as np
import pytest
from metric_references import BOUND, BOUND_OF_P_VALUES, METRICS, random_case

CASES = [random_case(seed) for seed in range(40)]


@pytest.mark.parametrize("name", METRICS)
def test_the_metric_is_the_references(name):
    bound = BOUND_OF_P_VALUES if "p-value" in name else BOUND
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert max(map(METRICS[name], CASES)) <= bound


def test_the_cases_hold_what_they_are_for():
    classes = {probabilities.shape[1] for _, probabilities in CASES}
    assert min(classes) == 2
    assert max(classes) == 20
    assert sum(len(np.unique(p[:, 0])) < len(p) / 2 for _, p in CASES) >= 10  # ties
    assert sum(len(np.unique(p.argmax(1))) < p.shape[1] for _, p in CASES) >= 5  # classes never predicted
    assert sum(np.bincount(labels).max() > 5 * np.bincount(labels).min() for labels, _ in CASES) >= 10  # skewed
