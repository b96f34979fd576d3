"""Exercises on what efficient networks cost and how they grow: a separable convolution's price, compound scaling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Costs = tuple[int, int, int, int]
Stages = list[tuple[int, int]]


def separable_cost(
    in_channels: int, out_channels: int, size: tuple[int, int], *, kernel_size: int = 3, stride: int = 1
) -> Costs:
    places = math.ceil(size[0] / stride) * math.ceil(size[1] / stride)  # of the output, whose padding keeps the size
    standard = kernel_size**2 * in_channels * out_channels
    separable = kernel_size**2 * in_channels + in_channels * out_channels
    return standard, standard * places, separable, separable * places


# What each of the four numbers may have become, by (M, N, height, width, D, stride); None where a mistake leaves it.
WRONG_COSTS: dict[str, Callable[[int, int, int, int, int, int], Sequence[int | float | None]]] = {
    "counts the places of the input; the stride leaves fewer of them":
        lambda m, n, h, w, d, s: (None, d * d * m * n * h * w, None, (d * d * m + m * n) * h * w),
    "rounds the places down; an odd side under stride 2 has one more":
        lambda m, n, h, w, d, s: (None, d * d * m * n * (h // s) * (w // s), None, (d * d * m + m * n) * (h // s) * (w // s)),
    "counts the depthwise convolution alone": lambda m, n, h, w, d, s: (None, None, d * d * m, None),
    "counts the pointwise convolution alone": lambda m, n, h, w, d, s: (None, None, m * n, None),
    "multiplies the two convolutions of the separable one; they follow each other: add":
        lambda m, n, h, w, d, s: (None, None, d * d * m * m * n, None),
    "gives the depthwise convolution the output's channels": lambda m, n, h, w, d, s: (None, None, d * d * n + m * n, None),
    "takes kernel_size for the kernel's area: a kernel has kernel_size² taps":
        lambda m, n, h, w, d, s: (d * m * n, None, None, None),
    "adds a bias for every output channel": lambda m, n, h, w, d, s: (d * d * m * n + n, None, None, None),
    "counts a multiplication and an addition as two; a MAC is both":
        lambda m, n, h, w, d, s: (None, 2 * d * d * m * n * -(-h // s) * -(-w // s), None, None),
    "gives the MACs of one place: every output pixel costs as much":
        lambda m, n, h, w, d, s: (None, d * d * m * n, None, d * d * m + m * n),
    "runs the depthwise convolution over all the places of the input; it has the stride":
        lambda m, n, h, w, d, s: (None, None, None, d * d * m * h * w + m * n * -(-h // s) * -(-w // s)),
    "runs the pointwise convolution over all the places of the input; the stride comes before it":
        lambda m, n, h, w, d, s: (None, None, None, d * d * m * -(-h // s) * -(-w // s) + m * n * h * w),
}  # fmt: skip


def check_separable_cost(answer: Answer) -> str:
    cases = [
        (m, n, size, d, s)
        for m, n in ((1, 1), (2, 3), (16, 5), (32, 64))
        for d, s, size in product((3, 5, 1), (1, 2), ((1, 1), (4, 4), (7, 5), (9, 14)))
    ]
    got = [answer(m, n, size, kernel_size=d, stride=s) for m, n, size, d, s in cases]
    for result, (m, n, size, d, s) in zip(got, cases, strict=True):
        if not isinstance(result, (tuple, list)) or len(result) != 4:
            raise Mistake(f"It returns {describe(result)}; four whole numbers are asked for.")
        if any(isinstance(number, bool) or not isinstance(number, int) for number in result):
            raise Mistake(f"It returns {describe(result)}, and a count is a whole number: use ints (`//`, math.ceil).")
        if tuple(result) == (want := separable_cost(m, n, size, kernel_size=d, stride=s)):
            continue
        given = describe(m, n, size, kernel_size=d, stride=s)
        if result[0] == want[1] and result[1] == want[0] and want[0] != want[1]:
            raise Mistake(f"It swaps parameters and MACs. Given {given}, it returns {describe(tuple(result))}.")
        if tuple(result) == (want[2], want[3], want[0], want[1]):
            raise Mistake(f"It gives the separable convolution first. Given {given}, it returns {describe(tuple(result))}.")
        _name_cost(got, cases)
        compare(tuple(result), want, given=given, what="the four counts", rtol=0, atol=0)
    if tuple(answer(8, 4, (6, 6))) != separable_cost(8, 4, (6, 6)):
        raise Mistake("Its defaults are not kernel_size=3 and stride=1.")
    return f"{len(cases)} combinations of channels, size, kernel and stride"


def _name_cost(got: list[Sequence[int]], cases: list[tuple[int, int, tuple[int, int], int, int]]) -> None:
    """Raise a Mistake when one of the wrong formulas explains a number in every case, and the right one does not."""
    for text, wrong in WRONG_COSTS.items():
        for i in range(4):
            values = [wrong(m, n, *size, d, s)[i] for m, n, size, d, s in cases]
            if None not in values and all(len(g) == 4 and g[i] == v for g, v in zip(got, values, strict=True)):
                m, n, size, d, s = next(
                    c for c, v in zip(cases, values, strict=True)
                    if v != separable_cost(c[0], c[1], c[2], kernel_size=c[3], stride=c[4])[i]
                )  # fmt: skip
                given = describe(m, n, size, kernel_size=d, stride=s)
                want = separable_cost(m, n, size, kernel_size=d, stride=s)[i]
                result = next(g for g, c in zip(got, cases, strict=True) if c == (m, n, size, d, s))[i]
                raise Mistake(f"It {text}. Given {given}, the count at [{i}] is {result} where {want} is expected.")


def scale_stages(stages: Stages, *, width: float, depth: float) -> Stages:
    scaled = []
    for channels, blocks in stages:
        wanted = channels * width
        rounded = max(8, int(wanted + 4) // 8 * 8)  # the nearest multiple of 8, halves upwards
        if rounded < 0.9 * wanted:
            rounded += 8
        scaled.append((rounded, math.ceil(blocks * depth)))
    return scaled


def _rounded(wanted: float) -> int:
    return scale_stages([(1, 1)], width=wanted, depth=1)[0][0]


# Wrong rules for the channels, from the base channels and the width factor, and for the blocks.
WRONG_CHANNELS: dict[str, Callable[[int, float], int | float]] = {
    "does not round the channels to a multiple of 8": lambda c, w: int(c * w),
    "rounds the channels to a whole number, not to a multiple of 8": lambda c, w: round(c * w),
    "leaves the channels a fraction": lambda c, w: c * w,
    "forgets the 10 % rule: where rounding takes more than a tenth away, add 8":
        lambda c, w: max(8, int(c * w + 4) // 8 * 8),
    "rounds the channels down to a multiple of 8; the nearest one is meant": lambda c, w: max(8, int(c * w) // 8 * 8),
    "rounds the channels down to a multiple of 8 and then applies the 10 % rule; the nearest one is meant":
        lambda c, w: (r := max(8, int(c * w) // 8 * 8)) + 8 * (r < 0.9 * c * w),
    "rounds the channels up to a multiple of 8; the nearest one is meant": lambda c, w: math.ceil(c * w / 8) * 8,
    "rounds halves to the even multiple (Python's round); half of 8 goes up":
        lambda c, w: (r := max(8, round(c * w / 8) * 8)) + 8 * (r < 0.9 * c * w),
    "applies the 10 % rule to the unscaled channels": lambda c, w: (r := max(8, int(c * w + 4) // 8 * 8)) + 8 * (r < 0.9 * c),
    "leaves the channels as they are": lambda c, w: c,
    "rounds a few channels to none at all; 8 is the least": lambda c, w: int(c * w + 4) // 8 * 8,
}  # fmt: skip
WRONG_BLOCKS: dict[str, Callable[[int, float], int | float]] = {
    "rounds the blocks to the nearest number; they are rounded up": lambda n, d: round(n * d),
    "rounds the blocks down; they are rounded up": lambda n, d: int(n * d),
    "leaves the number of blocks a fraction": lambda n, d: n * d,
    "leaves the blocks as they are": lambda n, d: n,
    "adds one block whatever the product is": lambda n, d: int(n * d) + 1,
}


def check_scale_stages(answer: Answer) -> str:
    from dlcourse.models.efficientnet import SCALES
    from dlcourse.models.efficientnet import STAGES as B0

    b0 = [(channels, blocks) for _, channels, blocks, _, _ in B0]
    small = [(16, 1), (24, 2), (40, 3)]
    cases: list[tuple[Stages, float, float]] = [
        ([(16, 1)], 1.0, 1.0), ([(16, 1)], 1.0, 1.1), ([(16, 1)], 1.2, 1.0), ([(24, 4)], 1.25, 1.0), (small, 1.0, 1.25),
        ([(20, 2), (52, 1), (4, 1)], 1.0, 1.5), ([(16, 2), (24, 4)], 0.25, 0.5), ([(6, 2)], 0.4, 2.0), (small, 1.4, 1.8),
        *((b0, scale.width, scale.depth) for scale in SCALES.values()),
    ]  # fmt: skip
    got = [answer(stages, width=width, depth=depth) for stages, width, depth in cases]
    for result, (stages, _, _) in zip(got, cases, strict=True):
        if not isinstance(result, (tuple, list)) or len(result) != len(stages):
            raise Mistake(f"It returns {describe(result)} for {len(stages)} stage(s); a list of as many pairs is asked for.")
        if any(not isinstance(pair, (tuple, list)) or len(pair) != 2 for pair in result):
            raise Mistake(f"It returns {describe(result)}; a list of pairs (channels, blocks) is asked for.")
    _name_rule(got, cases)
    for result, (stages, width, depth) in zip(got, cases, strict=True):
        want = scale_stages(stages, width=width, depth=depth)
        given = describe(stages, width=width, depth=depth)
        compare([tuple(pair) for pair in result], want, given=given, what="the list of stages", rtol=0, atol=0)
        for number in (number for pair in result for number in pair):
            if not isinstance(number, int):
                raise Mistake(f"It returns the float {number} for {given}; channels and blocks are whole numbers.")
    return f"{len(cases)} pairs of factors, B0 to B7 among them, on one to seven stages"


def _name_rule(got: list[Stages], cases: list[tuple[Stages, float, float]]) -> None:
    """Raise a Mistake when a wrong rule explains the answer in every case and the right one does not."""

    def explains(i: int, rule: Callable[[int, float, float], object]) -> bool:
        return all(
            result[j][i] == rule(stage[i], width, depth)
            for result, (stages, width, depth) in zip(got, cases, strict=True)
            for j, stage in enumerate(stages)
        )

    right: tuple[Callable[[int, float, float], object], ...] = (
        lambda c, w, d: _rounded(c * w), lambda n, w, d: math.ceil(n * d)
    )  # fmt: skip
    if explains(0, lambda c, w, d: _rounded(c * d)) and explains(1, lambda n, w, d: math.ceil(n * w)):
        raise Mistake(f"It swaps width and depth: width scales the channels, depth the blocks. {_example(got, cases, 0)}")
    wanted = [scale_stages(stages, width=w, depth=d) for stages, w, d in cases]
    firsts = all(r[0] == want[0] for r, want in zip(got, wanted, strict=True))
    rest = all(list(r[1:]) == stages[1:] for r, (stages, _, _) in zip(got, cases, strict=True))
    if firsts and rest:
        raise Mistake(f"It scales the first stage only. {_example(got, cases, 0)}")
    for i, rules in enumerate((WRONG_CHANNELS, WRONG_BLOCKS)):
        for text, rule in rules.items():
            if not explains(i, right[i]) and explains(i, lambda v, w, d, rule=rule, i=i: rule(v, (w, d)[i])):  # type: ignore[misc]
                raise Mistake(f"It {text}. {_example(got, cases, i)}")


def _example(got: list[Stages], cases: list[tuple[Stages, float, float]], i: int) -> str:
    for result, (stages, width, depth) in zip(got, cases, strict=True):
        for j, (pair, want) in enumerate(zip(result, scale_stages(stages, width=width, depth=depth), strict=True)):
            if pair[i] != want[i]:
                what = ("channels", "blocks")[i]
                given = describe([stages[j]], width=width, depth=depth)
                return f"Given {given}, the {what} are {describe(pair[i])} where {want[i]} is expected."
    return ""


register(
    "scaling.separable_cost",
    separable_cost,
    check_separable_cost,
    difficulty=2,
    importance=4,
    minutes=10,
    hints=(
        "Count the weights first. A weight of a convolution is used once at every place of the output.",
        "Standard: D·D·M weights for each of the N filters. Depthwise: D·D for each of the M channels; pointwise: M·N.",
        "Places of the output: ⌈height / stride⌉ · ⌈width / stride⌉, the same for both convolutions of the separable one.",
    ),
)

register(
    "scaling.compound",
    scale_stages,
    check_scale_stages,
    difficulty=2,
    importance=4,
    minutes=12,
    hints=(
        "Two independent rules: the channels go to a multiple of 8, the blocks are rounded up.",
        "The nearest multiple of 8 with halves upwards is int(x + 4) // 8 * 8, and at least 8.",
        "If that is below 0.9 · x, add 8. The blocks are math.ceil(blocks * depth).",
    ),
)
