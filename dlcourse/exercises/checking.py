"""The tools a check is written with: an answer that is called safely, and a comparison that names the mistake.

A check goes from the smallest input to larger ones, so that what it reports is the smallest input that fails:

    def check_double(answer: Answer) -> str:
        for x in (torch.tensor([3.0]), torch.randn(2, 5)):
            compare(answer(x), 2 * x, given=describe(x), mistakes={"adds 2 instead of multiplying": x + 2})
        return "values on two shapes, the input left as it was"
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn


class Mistake(Exception):
    """What is wrong with an answer, said to the learner."""


class NotAttempted(Exception):
    """The answer is still the stub."""


class Answer:
    """A learner's answer, callable like the original, that turns whatever goes wrong into a Mistake.

    Prints are swallowed, an exception is reported with the arguments, a result of None and a changed input are
    mistakes. A module that the answer returns or builds is wrapped again; `value` is what was given.

    A stub is `raise NotImplementedError` in a function or class, and `...` for a value.
    """

    def __init__(self, value: Any) -> None:
        if value is ...:
            raise NotAttempted
        self.value = value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not callable(self.value):
            raise Mistake(f"the answer is {describe(self.value)}, where a function or class is asked for.")
        before = _snapshot((args, kwargs))
        given = describe(*args, **kwargs)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                result = self.value(*args, **kwargs)
        except NotImplementedError as error:
            if str(error):  # torch raises this too, with a text, for an operation it lacks
                raise Mistake(f"It raises NotImplementedError for {given}: {error}") from None
            raise NotAttempted from None
        except (Exception, SystemExit) as error:
            raise Mistake(f"It raises {type(error).__name__} for {given}: {_first_line(error)}") from None
        if result is ...:
            raise NotAttempted
        if result is None:
            raise Mistake(f"It returns None for {given}. Is a `return` missing?")
        if not _unchanged(before, (args, kwargs)):
            raise Mistake(f"It changes its input ({given}): work on a new tensor, not in place.")
        return Answer(result) if isinstance(result, nn.Module) and result is not self.value else result

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self.value, name)
        except AttributeError:
            raise Mistake(f"The answer has no `{name}`.") from None


def compare(
    got: Any,
    want: Any,
    *,
    given: str,
    mistakes: Mapping[str, Any | Callable[[], Any]] | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    what: str = "the result",
) -> None:
    """Raise Mistake unless `got` equals `want` in type, shape, dtype and value.

    `mistakes` maps a sentence part that names a mistake to the value it leads to (or a function that computes it); the
    first that matches is named. `given` says what the answer was given, `what` which part of its answer this is.
    """
    if isinstance(want, (bool, str)) or want is None:
        right = isinstance(got, type(want)) and got == want
    elif isinstance(want, (torch.Tensor, np.ndarray)) and type(got) is not type(want) and not isinstance(got, type(want)):
        raise Mistake(_name(got, mistakes, rtol, atol) or f"Given {given}, {what} is {describe(got)}, not a {type(want).__name__}.")
    else:
        right = _equal(got, want, rtol, atol)
    if not right:
        named = _name(got, mistakes, rtol, atol)
        raise Mistake(f"{named} " * bool(named) + f"Given {given}, {what} {_difference(got, want, rtol, atol)}")


def describe(*args: Any, **kwargs: Any) -> str:
    """Arguments in words: small tensors by value, larger ones by shape and dtype."""
    parts = [_describe_one(value) for value in args]
    parts += [f"{key}={_describe_one(value)}" for key, value in kwargs.items()]
    return ", ".join(parts) or "no arguments"


def _describe_one(value: Any) -> str:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        dtype = str(value.dtype).removeprefix("torch.")
        size = int(np.prod(tuple(value.shape)))
        if size <= 12 and value.dtype != torch.bfloat16:
            return f"{kind} {_rounded(value.tolist())} ({dtype})"
        return f"a {dtype} {kind} of shape {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__} module"
    if callable(value):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    text = repr(_rounded(value))
    return text if len(text) <= 80 else text[:77] + "..."


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, (list, tuple)):
        return type(value)(map(_rounded, value)) if type(value) in (list, tuple) else value
    return value


def _equal(got: Any, want: Any, rtol: float, atol: float) -> bool:
    """Equal in shape, dtype and value; numbers may be Python's, NumPy's or one-element tensors."""
    if isinstance(want, (tuple, list)):
        return (
            isinstance(got, (tuple, list)) and len(got) == len(want)
            and all(_equal(g, w, rtol, atol) for g, w in zip(got, want, strict=True))
        )
    if isinstance(want, Mapping):
        return isinstance(got, Mapping) and got.keys() == want.keys() and all(
            _equal(got[key], want[key], rtol, atol) for key in want
        )
    if isinstance(want, (torch.Tensor, np.ndarray)):
        if type(got) is not type(want) and not isinstance(got, type(want)):
            return False
        if got.shape != want.shape or got.dtype != want.dtype:
            return False
        return _close(got, want, rtol, atol)
    if isinstance(want, (int, float, np.number)) and not isinstance(want, bool):
        number = _number(got)
        return number is not None and bool(np.isclose(number, float(want), rtol=rtol, atol=atol, equal_nan=True))
    return type(got) is type(want) and bool(got == want)


def _close(got: Any, want: Any, rtol: float, atol: float) -> bool:
    with torch.no_grad():
        a, b = torch.as_tensor(got), torch.as_tensor(want)
        return bool(torch.isclose(a.double(), b.double(), rtol=rtol, atol=atol, equal_nan=True).all())


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _name(got: Any, mistakes: Mapping[str, Any] | None, rtol: float, atol: float) -> str | None:
    for sentence, wrong in (mistakes or {}).items():
        value = wrong() if callable(wrong) else wrong
        if _equal(got, value, rtol, atol):
            return f"It {sentence}."
    return None


def _difference(got: Any, want: Any, rtol: float, atol: float) -> str:
    if isinstance(want, (torch.Tensor, np.ndarray)):
        if got.shape != want.shape:
            return f"has shape {tuple(got.shape)} where {tuple(want.shape)} is expected."
        if got.dtype != want.dtype:
            return f"has dtype {got.dtype} where {want.dtype} is expected."
        a, b = torch.as_tensor(got).detach().double(), torch.as_tensor(want).detach().double()
        off = ~torch.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
        index = tuple(int(i) for i in off.nonzero()[0])
        at = f" at {list(index)}" if index else ""
        return f"is {a[index].item():.4g}{at} where {b[index].item():.4g} is expected."
    return f"is {describe(got)} where {describe(want)} is expected."


def _snapshot(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, (list, tuple)):
        return [_snapshot(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _snapshot(item) for key, item in value.items()}
    return copy.deepcopy(value) if isinstance(value, np.ndarray) else value


def _unchanged(before: Any, after: Any) -> bool:
    if isinstance(after, torch.Tensor):
        return before.shape == after.shape and torch.equal(before.nan_to_num(), after.detach().nan_to_num())
    if isinstance(after, np.ndarray):
        return bool(np.array_equal(before, after))
    if isinstance(after, (list, tuple)):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    if isinstance(after, Mapping):
        return before.keys() == after.keys() and all(_unchanged(before[key], after[key]) for key in after)
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["(no message)"])[0]
