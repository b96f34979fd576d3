"""How answers are planted for the tests: wrong ones with what the check must say, right ones in other styles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

planted: list[PlantedMistake] = []
right_answers: list[RightAnswer] = []


@dataclass(frozen=True)
class PlantedMistake:
    exercise: str
    says: str  # a regular expression that the verdict's message must match
    answer: Any

    @property
    def id(self) -> str:
        return f"{self.exercise}:{getattr(self.answer, '__name__', repr(self.answer))}"


@dataclass(frozen=True)
class RightAnswer:
    exercise: str
    answer: Any

    @property
    def id(self) -> str:
        return f"{self.exercise}:{self.answer.__name__}"


def mistake(exercise: str, says: str) -> Callable[[Any], Any]:
    """Plant the decorated function or class as a wrong answer to `exercise`."""

    def plant(answer: Any) -> Any:
        planted.append(PlantedMistake(exercise, says, answer))
        return answer

    return plant


def right_answer(exercise: str) -> Callable[[Any], Any]:
    """Plant the decorated function or class as a right answer to `exercise`, written otherwise than the reference."""

    def plant(answer: Any) -> Any:
        right_answers.append(RightAnswer(exercise, answer))
        return answer

    return plant
