"""Exercise on configs (chapter 20): the values of a YAML file into a typed, frozen dataclass, or a refusal that helps."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from typing import Any

from dlcourse.exercises.checking import Answer, Mistake, NotAttempted, describe
from dlcourse.exercises.registry import register


def typed_values(kind: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """The dataclass `kind` (fields of int, float, bool, str) with the values that PyYAML read; ValueError names what is wrong."""
    types = {part.name: part.type for part in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in types:
            nearest = get_close_matches(str(key), types, n=1, cutoff=0)
            raise ValueError(f"unknown key {key!r}; did you mean {nearest[0]!r}?")
    for part in fields(kind):  # type: ignore[arg-type]
        if part.default is MISSING and part.name not in values:
            raise ValueError(f"the key {part.name!r} is missing")
    return kind(**{key: _typed(key, types[key], value) for key, value in values.items()})


def _typed(key: str, wanted: Any, value: Any) -> Any:
    if wanted is float and type(value) in (int, float, str):  # PyYAML reads 1e-4 as a text
        with contextlib.suppress(ValueError):
            return float(value)
    if type(value) is not wanted:  # isinstance would let True through as an int
        raise ValueError(f"{key}={value!r} must be {wanted.__name__}, not {type(value).__name__}")
    return value


# Types, not their names: under `from __future__ import annotations` a field's type would be a text.
_PARTS: list[Any] = [
    ("epochs", int), ("lr", float, field(default=0.1)), ("model", str, field(default="simple_cnn")),
    ("nesterov", bool, field(default=False)), ("weight_decay", float, field(default=0.0)),
]  # fmt: skip
Training = make_dataclass("Training", _PARTS, frozen=True)
Split = make_dataclass("Split", [("folder", str), ("fraction", float), ("shuffle", bool, field(default=True))], frozen=True)


def check_typed_values(answer: Answer) -> str:
    for kind, values in _ACCEPTED:
        got, want, given = answer(kind, dict(values)), typed_values(kind, values), describe(kind, values)
        if not is_dataclass(got) or type(got) is not kind:
            raise Mistake(f"It returns {describe(got)}, where an instance of {kind.__name__} is asked for.")
        for part in fields(want):
            _check_value(part.name, getattr(got, part.name), getattr(want, part.name), given)
    for kind, values, key, why in _REFUSED:
        _check_refused(answer, kind, values, key, why)
    for kind, values, key, nearest in _UNKNOWN:
        text = _check_refused(answer, kind, values, key, "no field is called so")
        named = set(re.findall(r"\w+", text)) & {part.name for part in fields(kind)}
        if named != {nearest}:
            raise Mistake(
                f"It refuses the unknown key {key!r} without naming the nearest field alone, {nearest!r}: {text!r}. "
                "A typing error should cost the reader a second."
            )
    return "numbers written as 1e-4, whole numbers for floats, defaults, wrong types, missing keys, and unknown ones with the nearest"


_ACCEPTED: list[tuple[Any, dict[str, Any]]] = [
    (Training, {"epochs": 3}),
    (Training, {"epochs": 3, "lr": "1e-4"}),
    (Training, {"epochs": 3, "lr": 1}),
    (Training, {"weight_decay": "5E-2", "nesterov": True, "model": "resnet18", "epochs": 30, "lr": 0.5}),
    (Split, {"folder": "1e-4", "fraction": 0.2}),
    (Split, {"shuffle": False, "fraction": "1e-1", "folder": "photos"}),
]
_REFUSED: list[tuple[Any, dict[str, Any], str, str]] = [
    (Training, {"lr": 0.1}, "epochs", "it has no default"),
    (Split, {"folder": "photos"}, "fraction", "it has no default"),
    (Training, {"epochs": "3"}, "epochs", "an int may not come as a text"),
    (Training, {"epochs": 2.5}, "epochs", "an int may not come as a float"),
    (Training, {"epochs": True}, "epochs", "True is no number of epochs, though isinstance(True, int)"),
    (Training, {"epochs": 3, "lr": True}, "lr", "True is no number, though float(True) is 1.0"),
    (Training, {"epochs": 3, "lr": "fast"}, "lr", "this text is no number"),
    (Training, {"epochs": 3, "lr": None}, "lr", "an empty value is no number"),
    (Training, {"epochs": 3, "lr": [0.1]}, "lr", "a list is no number"),
    (Training, {"epochs": 3, "nesterov": "no"}, "nesterov", "a text is not yes or no: bool('no') is True"),
    (Training, {"epochs": 3, "nesterov": 1}, "nesterov", "1 is not yes or no"),
    (Training, {"epochs": 3, "model": False}, "model", "PyYAML reads the bare word off as False, which is no text"),
]
_UNKNOWN: list[tuple[Any, dict[str, Any], str, str]] = [
    (Training, {"epochs": 3, "weight_deacy": 0.1}, "weight_deacy", "weight_decay"),
    (Training, {"epoch": 3}, "epoch", "epochs"),
    (Split, {"folder": "photos", "fraction": 0.1, "shufle": True}, "shufle", "shuffle"),
]


def _check_value(name: str, got: Any, want: Any, given: str) -> None:
    if type(got) is type(want) and got == want:
        return
    wrong = ""
    if isinstance(want, float) and isinstance(got, str):
        wrong = "It leaves a number as the text that PyYAML made of it: an optimizer would stop with a TypeError. "
    elif isinstance(want, float) and type(got) is int:
        wrong = "It leaves a whole number in a float field as an int: the field says float. "
    elif isinstance(want, str) and not isinstance(got, str):
        wrong = "It turns a text into a number: the field says str. "
    elif got is None:
        wrong = "It loses a field's default. "
    raise Mistake(f"{wrong}Given {given}, {name} is {describe(got)} where {want!r} ({type(want).__name__}) is expected.")


def _check_refused(answer: Answer, kind: Any, values: dict[str, Any], key: str, why: str) -> str:
    """The message with which the answer refuses; a Mistake when it does not, or with another error, or without the key."""
    given = describe(kind, values)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = answer.value(kind, dict(values))
    except NotImplementedError:
        raise NotAttempted from None
    except ValueError as error:
        if key not in str(error):
            raise Mistake(f"Its ValueError for {given} does not name the key {key!r}: {str(error)!r}. Say which line to mend.") from None
        return str(error)
    except (Exception, SystemExit) as error:
        raise Mistake(f"It raises {type(error).__name__} for {given} ({why}): raise a ValueError that names {key!r}.") from None
    shown = f"; {key} becomes {getattr(result, key)!r}" if hasattr(result, key) else ""
    raise Mistake(f"It lets {given} through{shown}. Refuse it with a ValueError: {why}.")


register(
    "config.typed_values",
    typed_values,
    check_typed_values,
    difficulty=3,
    importance=5,
    minutes=20,
    hints=(
        "dataclasses.fields(kind) gives each field's name, type and default (MISSING when there is none). Go through the keys "
        "first, then the fields without a default, then the values.",
        "Only a float field converts: int, float and text become float(value), and a ValueError of float() becomes one of yours "
        "that names the key. For every other field type(value) must be the field's type: isinstance lets True through as an int.",
        "difflib.get_close_matches(key, names, n=1, cutoff=0)[0] is the nearest field; at the end kind(**checked).",
    ),
)
