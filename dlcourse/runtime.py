"""What every notebook needs first: profile, seeds, device, progress bars, and printed numbers that hold on any machine.

`setup` is the second cell of each notebook. `expect` and `show` print what may differ between machines behind a "≈",
which the notebook tests mask (`tests/nbval_sanitize.cfg`); `expect` holds it to bounds, so that masking loses nothing.
"""

from __future__ import annotations

import math
import os
import random
import sys
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch

T = TypeVar("T")
PROFILES = ("reduced", "full")


@dataclass(frozen=True)
class Profile:
    """How large this run of the course is.

    reduced (the default): the embedded `fashion-mini`, small models, few epochs, no network.
    full (`DLCOURSE_PROFILE=full`): CIFAR-10 and the published widths and epochs.
    """

    name: Literal["reduced", "full"]
    seed: int
    device: torch.device

    @property
    def dataset(self) -> str:
        """The data set of this profile, by its name in `dlcourse.data.load_dataset`."""
        return self.pick(reduced="fashion-mini", full="cifar10")

    def pick(self, reduced: T, full: T) -> T:
        """The value for this profile: `epochs = profile.pick(reduced=2, full=30)`."""
        return reduced if self.name == "reduced" else full


def setup(seed: int = 0) -> Profile:
    """Seed everything, choose deterministic kernels, no more threads than cores and the plot style; returns the profile.

    The profile is read from the environment variable DLCOURSE_PROFILE (reduced or full).
    """
    name = os.environ.get("DLCOURSE_PROFILE", "reduced")
    if name not in PROFILES:
        raise ValueError(f"DLCOURSE_PROFILE={name!r} is not a profile; choose one of {', '.join(PROFILES)}")
    seed_everything(seed)
    # cuBLAS reads this when its first handle is made; without it matrix products on a GPU may differ between runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The profiler reads this at its first start; below this level it writes its own start and stop to stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time, hides nothing here
    from dlcourse.plotting import use_style  # matplotlib is imported only where plots are made

    use_style()
    if "OMP_NUM_THREADS" not in os.environ:  # who set it knows best
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    return Profile("full" if name == "full" else "reduced", seed, get_device())


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy (the global one) and torch (CPU and every GPU).

    Raises ValueError for a seed outside 0 … 2³²−1, the range that all three accept.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} is outside 0 … {2**32 - 1}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (libraries still draw from the global generator)
    torch.manual_seed(seed)


def get_device() -> torch.device:
    """The fastest device of this machine: CUDA, then Apple's MPS, then the CPU. DLCOURSE_DEVICE overrides the choice."""
    if chosen := os.environ.get("DLCOURSE_DEVICE"):
        try:
            return torch.device(chosen)
        except RuntimeError as error:
            raise ValueError(f"DLCOURSE_DEVICE={chosen!r} is not a device; cpu, cuda, cuda:1 and mps are") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def usable_cores() -> int:
    """How many cores this process may use: those it is bound to, or fewer where a container's quota allows less.

    torch counts neither: with more threads than cores they wait for one another, and everything takes several times as
    long. The quota is read as Linux has it in a container (cgroup v2).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def expect(name: str, value: Any, low: float | None = None, high: float | None = None, *, unit: str = "") -> None:
    """Print a number that may differ a little between machines, and insist on its bounds.

    >>> expect("accuracy", 0.9134, 0.88, 0.95)
    accuracy ≈ 0.913 (expected 0.88 to 0.95)

    `value` is anything `float()` takes, a tensor of one element included. Raises AssertionError when it lies outside
    the bounds or is not finite, ValueError when no bound is given: that could never fail, `show` is the honest name.
    """
    if low is None and high is None:
        raise ValueError(f"expect({name!r}, …) needs low, high or both; show() prints a value without a check")
    if low is not None and high is not None and low > high:
        raise ValueError(f"expect({name!r}, …): low={low} is greater than high={high}")
    number = float(value.detach() if isinstance(value, torch.Tensor) else value)  # torch warns about a graph otherwise
    if high is None:
        bounds = f"at least {low:g}"
    elif low is None:
        bounds = f"at most {high:g}"
    else:
        bounds = f"{low:g} to {high:g}"
    inside = math.isfinite(number) and (low is None or number >= low) and (high is None or number <= high)
    unit = f" {unit}" if unit else ""
    if not inside:  # with more digits: a value just outside must not look like its bound
        raise AssertionError(f"{name} = {number:.6g}{unit} (expected {bounds})")
    print(f"{name} ≈ {_short(number)}{unit} (expected {bounds})")


def show(name: str, value: Any, unit: str = "") -> None:
    """Print a fact of this machine (a version, a time, a size) that no bound can hold.

    >>> show("threads", 2)
    threads ≈ 2
    """
    if isinstance(value, (torch.Tensor, np.generic)) and value.ndim == 0:
        value = value.item()
    text = _short(value) if isinstance(value, float) else str(value)
    print(f"{name} ≈ {text}{' ' + unit if unit else ''}")


def progress(iterable: Iterable[T], description: str = "", total: int | None = None) -> Iterator[T]:
    """Iterate with a tqdm bar where somebody watches: in a live JupyterLab or a terminal.

    The bar is taken away when the loop ends, so that a saved notebook holds none of it; a notebook that runs without a
    front end (nbval, nbconvert) and a program whose stderr is a file show none.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if _in_live_notebook():
        yield from _notebook_progress(iterable, description, total)
    elif sys.stderr is not None and sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(iterable, description, total=total, leave=False)
    else:
        yield from iterable


def _notebook_progress(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    from IPython.display import display
    from tqdm.notebook import tqdm

    bar = tqdm(iterable, description, total=total, display=False)
    handle = display(bar.container, display_id=True)
    try:
        yield from bar
    finally:
        bar.close()
        # Closing the widget leaves its text in the cell's output; an empty bundle in its place leaves nothing to save.
        handle.update({}, raw=True)


def _in_live_notebook() -> bool:
    """Whether a front end shows this kernel's widgets: Jupyter's server names its session, a headless run has none."""
    return "ipykernel" in sys.modules and "JPY_SESSION_NAME" in os.environ


def _short(number: float) -> str:
    return f"{number:,.0f}" if 1000 <= abs(number) < 1e15 else f"{number:.3g}"
