"""The budget plugin sees the seconds and the memory of a notebook, and fails a run that exceeds them."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from notebook_budget import MEGABYTES, SECONDS, NotebookBudget, peak_memory


def report(seconds, when="call", path="notebooks/03_x.ipynb"):
    return SimpleNamespace(nodeid=f"{path}::Cell 0", when=when, duration=seconds)


def finished(budget):
    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    budget.pytest_sessionfinish(session)
    return session.exitstatus


def test_seconds_of_all_cells_are_added_and_held_to_the_limit():
    budget = NotebookBudget()
    for _ in range(3):
        budget.pytest_runtest_logreport(report(SECONDS / 3 - 1))
    budget.pytest_runtest_logreport(report(1000, when="teardown"))
    budget.pytest_runtest_logreport(report(1000, path="tests/test_x.py"))
    assert budget.over() == []
    assert finished(budget) == pytest.ExitCode.OK
    budget.pytest_runtest_logreport(report(10))
    assert budget.over() == [f"03_x.ipynb took {SECONDS + 7:.0f} s of {SECONDS:.0f}"]
    assert finished(budget) == pytest.ExitCode.TESTS_FAILED


def test_memory_is_held_to_the_limit():
    budget = NotebookBudget()
    budget.megabytes["03_x.ipynb"] = MEGABYTES + 1
    assert finished(budget) == pytest.ExitCode.TESTS_FAILED


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the exact peak is read from /proc")
def test_the_peak_of_a_process_counts_what_it_has_freed():
    code = "x = bytearray(300_000_000); del x; print('freed', flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        assert 300e6 < peak_memory(process.pid) < 400e6
    finally:
        process.kill()
        process.wait()
