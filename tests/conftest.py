"""For all tests: figures off screen, and the seeds, default dtype and determinism of torch restored after each."""

import random

import matplotlib
import numpy as np
import pytest
import torch
from notebook_budget import NotebookBudget
from real_browser import browser  # noqa: F401 - a fixture of the browser tests

# Not through MPLBACKEND: the notebooks' kernels would inherit that and draw no figure.
matplotlib.use("agg")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(NotebookBudget(), "notebook-budget")


@pytest.fixture(autouse=True)
def _restore_global_state():
    dtype, deterministic = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.use_deterministic_algorithms(deterministic)
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    random.setstate(states[2])
