"""Profiles, seeds, devices, what `expect` accepts and prints, and who sees a progress bar."""

import importlib
import io
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import dlcourse
from dlcourse import runtime


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in (
        "DLCOURSE_PROFILE",
        "DLCOURSE_DEVICE",
        "JPY_SESSION_NAME",
        "CUBLAS_WORKSPACE_CONFIG",
        "KINETO_LOG_LEVEL",
    ):
        monkeypatch.setenv(name, "")  # so that whatever a test or `setup` sets is taken back after it
        monkeypatch.delenv(name)


# setup and profiles


def test_the_reduced_profile_is_the_default():
    profile = dlcourse.setup(seed=3)
    assert (profile.name, profile.seed, profile.dataset) == ("reduced", 3, "fashion-mini")
    assert profile.device == dlcourse.get_device()
    assert profile.pick(reduced=2, full=30) == 2


def test_the_environment_chooses_the_full_profile(monkeypatch):
    monkeypatch.setenv("DLCOURSE_PROFILE", "full")
    profile = dlcourse.setup()
    assert (profile.name, profile.seed, profile.dataset) == ("full", 0, "cifar10")
    assert profile.pick(reduced=2, full=30) == 30


@pytest.mark.parametrize("name", ["", "Full", "tiny"])
def test_an_unknown_profile_is_named_with_the_known_ones(monkeypatch, name):
    monkeypatch.setenv("DLCOURSE_PROFILE", name)
    with pytest.raises(ValueError, match=f"DLCOURSE_PROFILE='{name}' is not a profile; choose one of reduced, full"):
        dlcourse.setup()


def test_setup_asks_for_deterministic_kernels():
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    dlcourse.setup()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_setup_respects_what_the_user_set(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    dlcourse.setup()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize(
    ("quota", "bound", "cores"),
    [("max 100000", 8, 8), ("200000 100000", 8, 2), ("50000 100000", 8, 1), ("800000 100000", 3, 3), ("", 5, 5)],
)
def test_a_container_s_quota_counts_as_cores(monkeypatch, quota, bound, cores):
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: range(bound), raising=False)
    monkeypatch.setattr(runtime.Path, "read_text", lambda path, encoding: quota)
    assert runtime.usable_cores() == cores


def test_without_a_list_of_cores_all_are_counted(monkeypatch):
    monkeypatch.delattr(runtime.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(runtime.os, "cpu_count", lambda: 6)
    monkeypatch.setattr(runtime.Path, "read_text", lambda path, encoding: "max 100000")
    assert runtime.usable_cores() == 6


def test_setup_gives_torch_no_more_threads_than_cores(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runtime, "usable_cores", lambda: 1)
    try:
        torch.set_num_threads(3)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        dlcourse.setup()
        assert torch.get_num_threads() == 3  # who set it knows best
        monkeypatch.delenv("OMP_NUM_THREADS")
        dlcourse.setup()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_after_setup_the_profiler_writes_nothing_of_its_own():
    code = "import dlcourse, torch; dlcourse.setup()\nwith torch.profiler.profile(): torch.ones(2) + 1"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


# seeds


def draws():
    return random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist()  # noqa: NPY002


@pytest.mark.parametrize("seeding", [dlcourse.seed_everything, dlcourse.setup])
def test_the_same_seed_gives_the_same_draws_from_python_numpy_and_torch(seeding):
    seeding(7)
    first = draws()
    seeding(7)
    assert draws() == first
    seeding(8)
    assert all(again != before for again, before in zip(draws(), first, strict=True))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_whole_range_of_seeds_is_taken(seed):
    dlcourse.seed_everything(seed)
    assert torch.initial_seed() == seed


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_outside_the_range_is_named(seed):
    before = draws_state()
    with pytest.raises(ValueError, match=f"seed={seed} is outside 0 … 4294967295"):
        dlcourse.seed_everything(seed)
    assert draws_state() == before


def draws_state():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


# device


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_fastest_device_is_chosen(monkeypatch, cuda, mps, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert dlcourse.get_device() == torch.device(device)


def test_the_environment_overrides_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("DLCOURSE_DEVICE", "cpu")
    assert dlcourse.get_device() == torch.device("cpu")


def test_a_device_that_torch_does_not_know_is_named(monkeypatch):
    monkeypatch.setenv("DLCOURSE_DEVICE", "toaster")
    with pytest.raises(ValueError, match="DLCOURSE_DEVICE='toaster'"):
        dlcourse.get_device()


# expect and show


@pytest.mark.parametrize(
    ("value", "low", "high", "line"),
    [
        (0.9134, 0.88, 0.95, "name ≈ 0.913 (expected 0.88 to 0.95)"),
        (torch.tensor([[2.5]], requires_grad=True), 2, 3, "name ≈ 2.5 (expected 2 to 3)"),
        (np.float32(1e-9), None, 1e-6, "name ≈ 1e-09 (expected at most 1e-06)"),
        (7, 7, None, "name ≈ 7 (expected at least 7)"),
        (553_514.2, 500_000, 600_000, "name ≈ 553,514 (expected 500000 to 600000)"),
        (-2000.0, -2000, -2000, "name ≈ -2,000 (expected -2000 to -2000)"),
        (True, 1, 1, "name ≈ 1 (expected 1 to 1)"),
    ],
)
def test_expect_prints_the_number_and_its_bounds(capsys, value, low, high, line):
    dlcourse.expect("name", value, low, high)
    assert capsys.readouterr() == (line + "\n", "")


def test_expect_prints_the_unit(capsys):
    dlcourse.expect("pause", 1.5, 1, 2, unit="s")
    assert capsys.readouterr().out == "pause ≈ 1.5 s (expected 1 to 2)\n"


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (0.87, 0.88, 0.95),
        (0.96, 0.88, 0.95),
        (1.1, None, 1),
        (0.9, 1, None),
        (float("nan"), 0, 1),
        (float("nan"), None, 1),
        (float("inf"), 0, None),
        (float("-inf"), None, 0),
        (torch.tensor(float("nan")), 0, None),
    ],
)
def test_expect_fails_outside_the_bounds_and_prints_nothing(capsys, value, low, high):
    with pytest.raises(AssertionError, match=r"^name = \S+ \(expected .+\)$"):
        dlcourse.expect("name", value, low, high)
    assert capsys.readouterr().out == ""


def test_a_failure_shows_enough_digits_to_see_it():
    with pytest.raises(AssertionError, match=re.escape("name = 0.949996 (expected at least 0.95)")):
        dlcourse.expect("name", 0.949996, 0.95)


def test_expect_without_a_bound_or_with_impossible_ones_is_an_error():
    with pytest.raises(ValueError, match=r"expect\('name', …\) needs low, high or both"):
        dlcourse.expect("name", 1)
    with pytest.raises(ValueError, match=r"low=2 is greater than high=1"):
        dlcourse.expect("name", 1.5, 2, 1)


@pytest.mark.parametrize(
    ("value", "unit", "line"),
    [
        (2, "", "fact ≈ 2"),
        (0.123456, "s", "fact ≈ 0.123 s"),
        ("3.11.7", "", "fact ≈ 3.11.7"),
        (25_282.7, "MB", "fact ≈ 25,283 MB"),
        (torch.device("cpu"), "", "fact ≈ cpu"),
        (np.float32(0.123456), "", "fact ≈ 0.123"),
        (torch.tensor(0.123456), "", "fact ≈ 0.123"),
    ],
)
def test_show_prints_a_fact(capsys, value, unit, line):
    dlcourse.show("fact", value, unit)
    assert capsys.readouterr().out == line + "\n"


# progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def walk(monkeypatch, stream, iterable=(1, 2, 3), **options):
    monkeypatch.setattr(sys, "stderr", stream)
    return list(dlcourse.progress(iterable, "walking", **options))


@pytest.mark.parametrize("stream", [io.StringIO(), None], ids=["a file", "no stderr"])
def test_where_nobody_watches_there_is_no_bar(monkeypatch, stream):
    assert walk(monkeypatch, stream) == [1, 2, 3]
    assert stream is None or stream.getvalue() == ""


def test_a_terminal_shows_a_bar_and_is_left_clean(monkeypatch):
    terminal = Terminal()
    assert walk(monkeypatch, terminal) == [1, 2, 3]
    shown = terminal.getvalue()
    assert re.search(r"walking: +0%.*0/3", shown)
    assert shown.endswith("\r")
    assert shown.split("\r")[-2].strip() == ""


def test_a_generator_gets_a_bar_with_the_total_that_is_given(monkeypatch):
    terminal = Terminal()
    assert walk(monkeypatch, terminal, (n for n in range(4)), total=4) == [0, 1, 2, 3]
    assert "0/4" in terminal.getvalue()
    terminal = Terminal()
    assert walk(monkeypatch, terminal, (n for n in range(4))) == [0, 1, 2, 3]
    assert "0it" in terminal.getvalue()


def test_progress_takes_items_only_when_asked(monkeypatch):
    taken = []
    steps = dlcourse.progress(taken.append(n) or n for n in range(5))
    assert taken == []
    assert next(steps) == 0
    assert taken == [0]


def test_an_error_passes_through(monkeypatch):
    def failing():
        yield 1
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        walk(monkeypatch, Terminal(), failing())


@pytest.fixture
def page(monkeypatch):
    """A JupyterLab that keeps what is displayed: each display and update as (what, data)."""
    seen = []

    class Handle:
        def update(self, data, raw=False):
            seen.append(("update", data, raw))

    def display(thing, display_id):
        seen.append(("display", thing, display_id))
        return Handle()

    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    importlib.import_module("ipykernel")
    monkeypatch.setattr("IPython.display.display", display)
    return seen


def test_a_live_notebook_shows_a_widget_and_then_nothing(page, capsys):
    for step in dlcourse.progress(range(3), "walking"):
        assert len(page) == 1
        _, bar, display_id = page[0]
        assert display_id
        assert "walking" in bar.children[0].value
        assert bar.children[1].max == 3
        assert step in range(3)
    assert page[1:] == [("update", {}, True)]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("end", ["break", "error"])
def test_a_loop_that_ends_early_leaves_no_bar_either(page, end):
    def loop():
        for _ in dlcourse.progress(range(3)):
            if end == "break":
                break
            raise RuntimeError(end)

    if end == "break":
        loop()
    else:
        with pytest.raises(RuntimeError):
            loop()
    assert page[1:] == [("update", {}, True)]


@pytest.mark.parametrize("missing", ["JPY_SESSION_NAME", "ipykernel"])
def test_a_kernel_without_a_front_end_shows_no_widget(page, monkeypatch, missing):
    monkeypatch.delenv("JPY_SESSION_NAME") if missing.isupper() else monkeypatch.delitem(sys.modules, "ipykernel")
    assert walk(monkeypatch, io.StringIO()) == [1, 2, 3]
    assert page == []


def test_the_package_exports_what_runtime_defines():
    assert {name for name in dlcourse.__all__ if name != "__version__"} <= set(vars(runtime))
