"""How a wrong answer is planted: a function or class, the exercise it answers, and what the check must say about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

planted: list[PlantedMistake] = []


@dataclass(frozen=True)
class PlantedMistake:
    exercise: str
    says: str  # a regular expression that the verdict's message must match
    answer: Any

    @property
    def id(self) -> str:
        return f"{self.exercise}:{getattr(self.answer, '__name__', repr(self.answer))}"


def mistake(exercise: str, says: str) -> Callable[[Any], Any]:
    """Plant the decorated function or class as a wrong answer to `exercise`."""

    def plant(answer: Any) -> Any:
        planted.append(PlantedMistake(exercise, says, answer))
        return answer

    return plant
