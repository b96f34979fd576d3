"""Exercise on comparing two models (chapter 15): the exact McNemar test.

Source: McNemar 1947, Note on the sampling error of the difference between correlated proportions or percentages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Result = tuple[int, int, float]


def mcnemar(labels: Tensor, first: Tensor, second: Tensor) -> Result:
    """Images that only the first got right, only the second, and the two-sided exact p-value, from three (N,) of classes."""
    only_first = int(((first == labels) & (second != labels)).sum())
    only_second = int(((second == labels) & (first != labels)).sum())
    n = only_first + only_second
    tail = sum(math.comb(n, i) for i in range(min(only_first, only_second) + 1)) / 2**n
    return only_first, only_second, min(1.0, 2 * tail)


def answers(both: int, only_first: int, only_second: int, neither: int) -> tuple[Tensor, Tensor, Tensor]:
    """Labels and two models' predictions with these counts, in a mixed order."""
    labels = torch.arange(both + only_first + only_second + neither) % 3
    right = torch.zeros(len(labels), 2, dtype=torch.bool)
    right[:both] = True
    right[both : both + only_first, 0] = True
    right[both + only_first : both + only_first + only_second, 1] = True
    right = right[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    first, second = (torch.where(right[:, i], labels, (labels + 1 + i) % 3) for i in range(2))
    return labels, first, second


def check_mcnemar(answer: Answer) -> str:
    for counts in ((2, 1, 5, 1), (40, 9, 3, 8), (10, 3, 3, 0), (5, 0, 1, 2), (7, 0, 0, 3), (30, 0, 12, 4), (3, 4, 3, 1), (0, 770, 730, 20)):
        given = answers(*counts)
        got, want = answer(*given), mcnemar(*given)
        text = f"{sum(counts)} images, both right on {counts[0]}, neither on {counts[3]}, only the first on {counts[1]}, only the second on {counts[2]}"
        if not isinstance(got, (tuple, list)) or len(got) != 3:
            raise Mistake(f"It returns {describe(got)}; three things are asked for: only_first, only_second, p_value.")
        if list(got[:2]) == list(want[1::-1]) != list(want[:2]):
            raise Mistake(f"It has the two counts the wrong way round, or counts who is wrong. Given {text}, {list(want[:2])} is expected.")
        totals = counts[0] + counts[1], counts[0] + counts[2]
        for count, right, total, name in zip(got, want, totals, ("only_first", "only_second"), strict=False):
            compare(count, right, given=text, what=name, rtol=0, atol=0, mistakes={"counts all that a model gets right: only those that the other gets wrong": total})
        compare(got[2], want[2], given=text, what="the p-value", rtol=1e-6, atol=1e-9, mistakes=_p_mistakes(*counts))
    return "both counts, uneven and even splits, one image, no disagreement, and 1,500 of them"


def _p_mistakes(both: int, b: int, c: int, neither: int) -> dict[str, Callable[[], float]]:
    n, least, images = b + c, min(b, c), both + b + c + neither

    def chance(counts: Iterable[int], tosses: int = n) -> float:
        return sum(math.comb(tosses, i) for i in counts) / 2**tosses

    def beyond(squared: float) -> float:
        return math.erfc(math.sqrt(squared / 2))  # of the chi-squared distribution with one degree of freedom

    def unpaired() -> float:
        share = (2 * both + b + c) / (2 * images)
        return beyond(((b - c) / images) ** 2 / (2 * share * (1 - share) / images))

    return {
        "finds a difference where there is no disagreement at all: then the p-value is 1": lambda: 0.0 if n == 0 else math.inf,
        "gives a chance of more than 1: for an even split the two tails overlap, so take at most 1": lambda: 2 * chance(range(least + 1)),
        "counts one tail: a split as uneven the other way is as surprising": lambda: chance(range(least + 1)),
        "doubles the tail of the first count: the smaller of the two is meant": lambda: min(1.0, 2 * chance(range(b + 1))),
        "counts the tail from the wrong side: from 0 to the smaller count": lambda: min(1.0, 2 * chance(range(max(b, c) + 1))),
        "leaves the observed split out of the tail: at least as uneven includes it": lambda: min(1.0, 2 * chance(range(least))),
        "gives the chance of exactly this split: add the more uneven ones": lambda: chance([b]),
        "gives twice the chance of exactly this split: add the more uneven ones": lambda: min(1.0, 2 * chance([least])),
        "uses the chi-squared approximation with the continuity correction: the exact test is asked for": lambda: beyond((abs(b - c) - 1) ** 2 / n),
        "uses the chi-squared approximation: the exact test is asked for": lambda: beyond((b - c) ** 2 / n),
        "compares the two accuracies as if they came from different images: only disagreements count": unpaired,
        "tosses a coin for every image: those on which the models agree say nothing": lambda: min(1.0, 2 * chance(range(least + 1), images)),
        "tosses a coin for what the models got right: those that both get say nothing":
            lambda: min(1.0, 2 * chance(range(both + least + 1), 2 * both + n)),
        "gives one minus the p-value": lambda: 1 - min(1.0, 2 * chance(range(least + 1))),
        "loses the p-value to underflow: 0.5 ** n is 0 for so many tosses": lambda: 0.0 if n > 1000 else math.inf,
        "gives nan where there is no disagreement at all: then the p-value is 1": lambda: math.nan if n == 0 else math.inf,
    }  # fmt: skip


register(
    "comparison.mcnemar",
    mcnemar,
    check_mcnemar,
    difficulty=3,
    importance=4,
    minutes=20,
    hints=(
        "Only images on which one model is right and the other wrong can tell the two apart. Call their number n.",
        "If the models were equally good, the smaller count would be the heads of n tosses of a fair coin: add up C(n, i) / 2ⁿ for i = 0 … that count.",
        "math.comb(n, i) are whole numbers: sum them, divide by 2**n once, double (two sides), and take at most 1.",
    ),
)
