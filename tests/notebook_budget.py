"""Each notebook's seconds and peak memory, reported at the end of a test run and held to the course's promise."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
from nbval.plugin import IPyNbFile

SECONDS = float(os.environ.get("DLCOURSE_NOTEBOOK_SECONDS", 90))  # on 2 cores; raise it on a slower machine
MEGABYTES = 2000


class NotebookBudget:
    """A pytest plugin: fails the run when a notebook takes longer or more memory than a learner was promised."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.megabytes: dict[str, float] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        notebook = item.parent
        last = nextitem is None or nextitem.parent is not notebook
        if isinstance(notebook, IPyNbFile) and notebook.kernel is not None and last:  # its kernel is about to stop
            self.megabytes[notebook.path.name] = peak_memory(notebook.kernel.km.provisioner.pid) / 1e6

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        path = report.nodeid.partition("::")[0]
        if path.endswith(".ipynb") and report.when != "teardown":
            self.seconds[Path(path).name] += report.duration

    def over(self) -> list[str]:
        slow = [f"{name} took {s:.0f} s of {SECONDS:.0f}" for name, s in self.seconds.items() if s > SECONDS]
        large = [f"{name} took {m:.0f} MB of {MEGABYTES}" for name, m in self.megabytes.items() if m > MEGABYTES]
        return slow + large

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.over() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.seconds:
            return
        terminalreporter.section(f"notebooks (at most {SECONDS:.0f} s and {MEGABYTES} MB each)")
        for name, seconds in sorted(self.seconds.items()):
            terminalreporter.line(f"{seconds:6.1f} s {self.megabytes.get(name, float('nan')):6.0f} MB  {name}")
        for line in self.over():
            terminalreporter.line(f"OVER BUDGET: {line}", red=True)


def peak_memory(pid: int) -> float:
    """The most memory a process has held, in bytes: exact on Linux, elsewhere what it holds now."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        kilobytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kilobytes) * 1024
    return psutil.Process(pid).memory_info().rss
