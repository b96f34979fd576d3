"""The mechanism of the exercises: register one, check an answer, give hints, show the solution.

A topic module defines a reference, a check and hints, and registers them:

    def standardize(images): ...                     # the reference; `solution` prints its source

    def check_standardize(answer: Answer) -> str:    # raises Mistake, or returns what it verified
        ...

    register("tensors.standardize", standardize, check_standardize, difficulty=2, importance=4, minutes=10, hints=(...))
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
import torch

from dlcourse.exercises.checking import Answer, Mistake, NotAttempted, first_line

_MACHINERY = {"registry", "checking"}
_SEED = 271_828  # none that an answer would choose, so that one that seeds is seen
_registered: dict[str, Exercise] = {}
_hints_given: dict[str, int] = {}


@dataclass(frozen=True)
class Exercise:
    """One exercise. `difficulty` and `importance` run from 1 to 5; `verify` raises Mistake or says what it verified."""

    name: str
    reference: Callable[..., Any]
    verify: Callable[[Answer], str]
    difficulty: int
    importance: int
    minutes: int
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What a check found. `message` is written for the learner."""

    status: Literal["right", "wrong", "not attempted"]
    message: str


def register(
    name: str,
    reference: Callable[..., Any],
    verify: Callable[[Answer], str],
    *,
    difficulty: int,
    importance: int,
    minutes: int,
    hints: tuple[str, ...],
) -> None:
    """Add an exercise under "topic.name", where topic is the module that defines it. Needs at least two hints.

    A module that is run again (a reload) registers the same exercise again; another one under a taken name is an error.
    """
    taken = _registered.get(name)
    if taken and _origin(taken.verify) != _origin(verify):
        raise ValueError(f"exercise {name!r} is registered twice")
    if not (1 <= difficulty <= 5 and 1 <= importance <= 5):
        raise ValueError(f"{name}: difficulty={difficulty} and importance={importance} must lie in 1 … 5")
    if len(hints) < 2:
        raise ValueError(f"{name}: {len(hints)} hint(s); graded hints are at least two, the vaguest first")
    _registered[name] = Exercise(name, reference, verify, difficulty, importance, minutes, hints)


def _origin(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def topics() -> list[str]:
    """The topic modules of this package; a name that begins with "_" is what checks of several exercises share."""
    package = importlib.import_module("dlcourse.exercises")
    names = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return sorted(name for name in names - _MACHINERY if not name.startswith("_"))


def all_exercises() -> dict[str, Exercise]:
    """Every exercise of the course by name, topic by topic, each in the order in which its module registers it."""
    for topic in topics():
        importlib.import_module(f"dlcourse.exercises.{topic}")
    return dict(sorted(_registered.items(), key=lambda item: item[0].partition(".")[0]))


def find(name: str) -> Exercise:
    """The exercise "topic.name". Raises ValueError, with the nearest names, when there is none."""
    topic = name.partition(".")[0]
    if topic in topics():
        importlib.import_module(f"dlcourse.exercises.{topic}")
    if name not in _registered:
        known = list(all_exercises())
        nearest = get_close_matches(name, known, n=3, cutoff=0.5) or known
        raise ValueError(f"there is no exercise {name!r}; did you mean {' or '.join(map(repr, nearest))}?")
    return _registered[name]


def examine(name: str, answer: Any) -> Verdict:
    """Check an answer and return the verdict. Never raises for anything the answer does; leaves the seeds as they were."""
    exercise = find(name)
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(_SEED)
        try:
            verified = exercise.verify(Answer(answer))
        except NotAttempted:
            return Verdict("not attempted", f'not attempted yet: hint("{name}")')
        except Mistake as mistake:
            return Verdict("wrong", f"not yet. {mistake}")
        except Exception as error:  # an answer of a kind that no check foresaw must not end in the checker's traceback
            return Verdict("wrong", f"not yet. The answer cannot be used as asked: {type(error).__name__}: {first_line(error)}")
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
    return Verdict("right", f"right. Verified: {verified}")


def check(name: str, answer: Any) -> None:
    """Check an answer and print the verdict: not attempted yet, what was verified, or the likely mistake."""
    # A page wraps long lines inside words; lines of our own keep them whole.
    print(textwrap.fill(f"{name}: {examine(name, answer).message}", 100, break_long_words=False, break_on_hyphens=False))


def hint(name: str, level: int | None = None) -> None:
    """Print the next hint of an exercise, the vaguest first; `level` (from 1) asks for a certain one."""
    hints = find(name).hints
    if level is None:
        level = min(_hints_given.get(name, 0) + 1, len(hints))
    if not 1 <= level <= len(hints):
        raise ValueError(f"{name} has hints 1 to {len(hints)}, not {level}")
    _hints_given[name] = level
    after = f'next: hint("{name}")' if level < len(hints) else f'after this: solution("{name}")'
    print(f"Hint {level} of {len(hints)}: {hints[level - 1]}\n({after})")


def solution(name: str) -> None:
    """Print the source of the reference solution, the very function that the tests run."""
    print(inspect.getsource(find(name).reference).rstrip())
