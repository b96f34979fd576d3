"""The check of precision.round_to_bf16."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dlcourse.exercises.checking import Answer, Mistake, compare


class _Watch(TorchDispatchMode):
    """Sees whether anything of type bfloat16 is made."""

    def __init__(self) -> None:
        super().__init__()
        self.used = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.bfloat16:
            self.used = True
        return result


def _bits(*patterns: int) -> Tensor:
    """float32 numbers of these 32 bits."""
    return torch.tensor([p - 2**32 if p >= 2**31 else p for p in patterns], dtype=torch.int32).view(torch.float32)


def check(answer: Answer) -> str:
    step = 2.0**-7  # of bf16 between 1 and 2
    one_by_one = (
        1.0, 1 + 0.75 * step, 1 + 0.25 * step, 1 + 0.5 * step, 1 + 1.5 * step, -1 - 0.75 * step, -1 - 0.25 * step,
        -1 - 0.5 * step, 3e38, 3.4e38, -3.4e38, 1e5, 1e-7, 1e-39, float("inf"), -float("inf"), 0.0, -0.0, float("nan"),
    )  # fmt: skip
    for value in one_by_one:
        _compare_one(answer, torch.tensor([value]), f"{value:.7g}")
    for pattern in (0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF):
        _compare_one(answer, _bits(pattern), f"a NaN of bits {pattern:#X}")
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(1000, generator=generator) * 10.0 ** torch.randint(-30, 30, (1000,), generator=generator)
    patterns = torch.randint(-(2**31), 2**31, (2000,), generator=generator).to(torch.int32).view(torch.float32)
    for x, text in (
        (torch.tensor(1.004), "a tensor without axes"),
        (numbers.reshape(20, 50).T, "a transposed tensor of random numbers"),
        (numbers[::3], "every third of random numbers"),
        (torch.empty(0, 3), "an empty tensor of shape (0, 3)"),
        (patterns, "numbers of random bits"),
    ):
        _compare_one(answer, x, text)
    return (
        "the nearest bf16 and ties to even, of both signs, subnormal and huge numbers, infinities, zeros and NaN, any shape, "
        "by bits and without bfloat16"
    )


def _compare_one(answer: Answer, x: Tensor, given: str) -> None:
    with _Watch() as watch:
        got = answer(x)
    want = x.bfloat16().float()
    if not (isinstance(got, Tensor) and got.dtype == want.dtype and torch.equal(got.nan_to_num(7.0), want.nan_to_num(7.0))):
        compare(got, want, given=given, mistakes=dict.fromkeys(_names(answer, x), got), rtol=0, atol=0)
    if not torch.equal(got.signbit() & ~x.isnan(), want.signbit() & ~x.isnan()):
        raise Mistake(f"It loses the sign of a zero. Given {given}, the result is 0.0 where -0.0 is expected.")
    if watch.used:
        raise Mistake(f"It makes a tensor of type torch.bfloat16 (given {given}): round by the bits of x.view(torch.int32).")


def _names(answer: Answer, x: Tensor) -> list[str]:
    """The mistakes that explain what the answer does to numbers that tell them apart, at most one."""
    if bool(x.isnan().all()) and x.numel() == 1:
        return ["turns a NaN into something else: the carry runs into exponent or sign"]
    step = 2.0**-7
    parts = torch.tensor([0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9]) * step
    sizes = torch.tensor([1.0, 1 + step, 1.5, 1.5 + step, -1.0, -1 - step])
    probe = torch.cat([
        (sizes[:, None] + sizes.sign()[:, None] * parts).flatten(), torch.tensor([1e-39, 300.7, 1e5, 3.4e38, -3.4e38]),
    ])  # fmt: skip
    with contextlib.suppress(Mistake):
        got = answer(probe)
        if not isinstance(got, Tensor) or got.shape != probe.shape:
            return []
        for name, wrong in _MISTAKES.items():
            want = wrong(probe)
            if got.dtype == want.dtype and torch.equal(got, want):
                return [name]
    return []


def _rounded(x: Tensor, add: int | Tensor, drop: int = 16) -> Tensor:
    return ((x.view(torch.int32) + add) & -(1 << drop)).view(torch.float32)


def _even(x: Tensor, drop: int = 16) -> Tensor:
    """The nearest number whose last `drop` bits are zero, ties to even, NaN apart."""
    rounded = _rounded(x, (1 << (drop - 1)) - 1 + ((x.view(torch.int32) >> drop) & 1), drop)
    return torch.where(x.isnan(), x, rounded)


_MISTAKES: dict[str, Callable[[Tensor], Any]] = {
    "returns a tensor of type bfloat16: float32 is asked for, with the values of bf16": lambda x: x.bfloat16(),
    "returns the bits as whole numbers: look at them as .view(torch.float32)": lambda x: _even(x).view(torch.int32),
    "keeps the upper half of the bits as a small whole number": lambda x: x.view(torch.int32) >> 16,
    "returns what it was given": lambda x: x,
    "cuts the lower bits off, which rounds towards zero": lambda x: _rounded(x, 0),
    "rounds a tie away from zero: half a step goes to the even end": lambda x: _rounded(x, 0x8000),
    "rounds every tie towards zero: half a step goes to the even end": lambda x: _rounded(x, 0x7FFF),
    "rounds away from zero whenever a lower bit is set": lambda x: _rounded(x, 0xFFFF),
    "turns the tie rule round: it rounds to the odd end": lambda x: _rounded(x, 0x8000 - ((x.view(torch.int32) >> 16) & 1)),
    "rounds negative numbers the wrong way: the bits hold sign and size apart": lambda x: torch.where(
        x.bfloat16().float() > x, _rounded(x, 0), _rounded(x, 0xFFFF)
    ),
    "loses the sign": lambda x: _even(x).abs(),
    "rounds to fp16, which has other bits and ends at 65504": lambda x: x.half().float(),
    "keeps 10 bits of the fraction as fp16 does: bf16 keeps 7": lambda x: _even(x, 13),
    "keeps 8 bits of the fraction: bf16 keeps 7, the sign and 8 of the exponent": lambda x: _even(x, 15),
    "keeps 6 bits of the fraction: bf16 keeps 7": lambda x: _even(x, 17),
    "clears 8 bits where 16 are dropped": lambda x: _even(x, 8),
    "stops at the largest finite number: what is nearer to the next power of two becomes infinite": lambda x: _even(x).clamp(
        -torch.finfo(torch.bfloat16).max, torch.finfo(torch.bfloat16).max
    ),
    "rounds to steps of 1/128 at every size: the step grows with the number": lambda x: (x * 128).round() / 128,
    "sets subnormal numbers to zero: bf16 has them": lambda x: torch.where(
        x.abs() < torch.finfo(torch.float32).tiny, 0 * x, _even(x)
    ),
}
