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
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn


class Mistake(Exception):
    """What is wrong with an answer, said to the learner."""


class MissingAttribute(Mistake, AttributeError):
    """An answer lacks an attribute; also an AttributeError, so that `hasattr(answer, name)` works."""


class NotAttempted(Exception):
    """The answer is still the stub."""


# What an answer may not leave changed, since it would change whatever runs next: how to read it, to set it, and what to do.
_GLOBALS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], str]] = {
    "torch.is_grad_enabled()": (torch.is_grad_enabled, torch.set_grad_enabled, "use `with torch.no_grad():`, which ends"),
    "torch.get_default_dtype()": (torch.get_default_dtype, torch.set_default_dtype, "give the dtype to each new tensor"),
    "torch.initial_seed()": (torch.initial_seed, torch.manual_seed, "leave the seed of the whole program to the caller"),
}


class Answer:
    """A learner's answer, callable like the original, that turns whatever goes wrong into a Mistake.

    Prints and warnings are swallowed. An exception is reported with the arguments; a result of None, a changed input and
    a global setting left changed (it is put back) are mistakes. A module that the answer returns or builds is wrapped
    again. Attributes are the answer's own (`answer.weight`); `value` is what was given.

    A stub is `raise NotImplementedError` in a function or class, and `...` for a value.
    """

    def __init__(self, value: Any) -> None:
        if value is ...:
            raise NotAttempted
        self.value = value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not callable(self.value):
            raise Mistake(f"the answer is {describe(self.value)}, where a function or class is asked for.")
        before, settings = _snapshot((args, kwargs)), {name: read() for name, (read, _, _) in _GLOBALS.items()}
        given = describe(*args, **kwargs)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = self.value(*args, **kwargs)
        except NotImplementedError as error:
            if str(error):  # torch raises this too, with a text, for an operation it lacks
                raise Mistake(f"It raises NotImplementedError for {given}: {error}") from None
            raise NotAttempted from None
        except (Exception, SystemExit) as error:
            raise Mistake(f"It raises {type(error).__name__} for {given}: {first_line(error)}") from None
        finally:
            left = _put_back(settings)
        if result is ...:
            raise NotAttempted
        if result is None:
            raise Mistake(f"It returns None for {given}. Is a `return` missing?")
        if not _unchanged(before, (args, kwargs)):
            raise Mistake(f"It changes its input ({given}): work on a new tensor, not in place.")
        if left:
            raise Mistake(left)
        return Answer(result) if isinstance(result, nn.Module) and result is not self.value else result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask for these before `value` exists
            raise AttributeError(name)
        try:
            return getattr(self.value, name)
        except AttributeError:
            raise MissingAttribute(f"The answer has no `{name}`.") from None


def _put_back(settings: Mapping[str, Any]) -> str:
    """Restore the global settings, and say which one was left changed ("" when none was)."""
    left = ""
    for name, (read, write, advice) in _GLOBALS.items():
        if read() != settings[name]:
            left = f"It leaves {name} at {read()} for whatever runs next; it was {settings[name]} before: {advice}."
            write(settings[name])
    return left


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

    `mistakes` maps a sentence part that names a mistake to the value it leads to; the first that matches is named. A
    function that computes the value is called only when it is needed, and may raise where the mistake cannot be made
    (an axis too many). `given` says what the answer was given, `what` which part of its answer this is.
    """
    if not _equal(got, want, rtol, atol):
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
        return f"{'an' if dtype.startswith('int') else 'a'} {dtype} {kind} of shape {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__} module"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    if isinstance(value, (tuple, list)) and any(isinstance(item, (torch.Tensor, np.ndarray)) for item in value):
        return f"{type(value).__name__} of ({describe(*value)})"
    if " at 0x" in repr(value) or "\n" in repr(value):  # a loader, an optimizer: their repr says nothing or too much
        return f"an object of type {type(value).__name__}"
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
        if not isinstance(got, type(want)) or got.shape != want.shape or got.dtype != want.dtype:
            return False
        return bool(_close(got, want, rtol, atol).all())
    if isinstance(want, bool):
        return isinstance(got, (bool, np.bool_)) and bool(got) == want
    if isinstance(want, (int, float, np.number)):
        number = _number(got)
        return number is not None and bool(np.isclose(number, float(want), rtol=rtol, atol=atol, equal_nan=True))
    return type(got) is type(want) and bool(got == want)


def _close(got: Any, want: Any, rtol: float, atol: float) -> torch.Tensor:
    return torch.isclose(_wide(got), _wide(want), rtol=rtol, atol=atol, equal_nan=True)


def _wide(value: Any) -> torch.Tensor:
    """Numbers of any dtype on any device, as float64 (or complex128) on the CPU."""
    tensor = torch.as_tensor(value).detach().cpu()
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _number(value: Any) -> float | None:
    try:
        if isinstance(value, torch.Tensor):
            value = value.detach()  # float() of a tensor that requires grad warns
        return None if isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _name(got: Any, mistakes: Mapping[str, Any] | None, rtol: float, atol: float) -> str | None:
    for sentence, wrong in (mistakes or {}).items():
        with contextlib.suppress(Exception):
            if _equal(got, wrong() if callable(wrong) else wrong, rtol, atol):
                return f"It {sentence}."
    return None


def _difference(got: Any, want: Any, rtol: float, atol: float) -> str:
    if isinstance(want, (torch.Tensor, np.ndarray)):
        if not isinstance(got, type(want)):
            return f"is {describe(got)}, not {'a Tensor' if isinstance(want, torch.Tensor) else 'an ndarray'}."
        if got.shape != want.shape:
            return f"has shape {tuple(got.shape)} where {tuple(want.shape)} is expected."
        if got.dtype != want.dtype:
            return f"has dtype {got.dtype} where {want.dtype} is expected."
        index = tuple((~_close(got, want, rtol, atol)).nonzero()[0].tolist())
        at = f" at {list(index)}" if index else ""
        numbers = _wide(got)[index].item(), _wide(want)[index].item()
        for digits in (4, 7, 17):  # as many as tell the two apart
            texts = [f"{number:.{digits}g}" for number in numbers]
            if texts[0] != texts[1]:
                break
        return f"is {texts[0]}{at} where {texts[1]} is expected."
    if isinstance(want, (tuple, list)) and isinstance(got, (tuple, list)):
        if len(got) != len(want):
            return f"has {len(got)} elements where {len(want)} are expected."
        keys: Any = range(len(want))
    elif isinstance(want, Mapping) and isinstance(got, Mapping):
        if got.keys() != want.keys():
            return f"has the keys {list(got)} where {list(want)} are expected."
        keys = want
    else:
        texts = [describe(got), describe(want)]
        if texts[0] == texts[1]:
            texts = [repr(got), repr(want)]
        return f"is {texts[0]} where {texts[1]} is expected."
    key = next(key for key in keys if not _equal(got[key], want[key], rtol, atol))
    return f"at [{key!r}] {_difference(got[key], want[key], rtol, atol)}"


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
        return isinstance(before, torch.Tensor) and before.shape == after.shape and bool(_close(before, after, 0, 0).all())
    if isinstance(after, np.ndarray):
        equal_nan = after.dtype.kind in "fc"
        return isinstance(before, np.ndarray) and bool(np.array_equal(before, after, equal_nan=equal_nan))
    if isinstance(after, (list, tuple)):
        return isinstance(before, list) and len(before) == len(after) and all(map(_unchanged, before, after))
    if isinstance(after, Mapping):
        return isinstance(before, dict) and before.keys() == after.keys() and all(_unchanged(before[k], after[k]) for k in after)
    return before is after or (isinstance(after, (bool, int, float, str)) and bool(before == after))


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["(no message)"])[0]
