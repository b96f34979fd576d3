"""Exercises that check themselves: `check("topic.name", answer)`, `hint("topic.name")`, `solution("topic.name")`.

One module a topic holds its exercises: the reference, the check and the hints, side by side. `registry` is the
mechanism, `checking` the tools a check is written with.
"""

from dlcourse.exercises.registry import check, examine, hint, solution

__all__ = ["check", "examine", "hint", "solution"]
