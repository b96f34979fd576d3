"""Wrong answers to the exercise on the exact McNemar test."""

import math

from planting import mistake
from scipy.stats import chi2, norm


def chance(counts, n):
    return sum(math.comb(n, i) for i in counts) / 2**n


def exact(b, c, **_):
    return min(1.0, 2 * chance(range(min(b, c) + 1), b + c))


def build(p_value=exact, counts=lambda right: (right[0] & ~right[1], right[1] & ~right[0])):
    """The test with one part of it replaced."""

    def mcnemar(labels, first, second):
        right = first == labels, second == labels
        b, c = (int(each.sum()) for each in counts(right))
        only = [int((right[i] & ~right[1 - i]).sum()) for i in range(2)]
        both = int((right[0] & right[1]).sum())
        return b, c, p_value(*only, both=both, n=len(labels))

    return mcnemar


def plant(says, name, **parts):
    wrong = build(**parts)
    wrong.__name__ = name
    mistake("comparison.mcnemar", says=says)(wrong)


def unpaired(b, c, both, n):
    share = (2 * both + b + c) / (2 * n)
    if share in (0, 1):
        return 1.0
    return 2 * norm.sf(abs(b - c) / n / math.sqrt(2 * share * (1 - share) / n))


plant("the two counts the wrong way round", "swapped", counts=lambda right: (right[1] & ~right[0], right[0] & ~right[1]))
plant("counts all that a model gets right", "all_right", counts=lambda right: right)
plant("gives a chance of more than 1", "not_capped", p_value=lambda b, c, **_: 2 * chance(range(min(b, c) + 1), b + c))
plant("counts one tail: ", "one_sided", p_value=lambda b, c, **_: chance(range(min(b, c) + 1), b + c))
plant(
    "as uneven the other way is as surprising", "second_better",
    p_value=lambda b, c, **_: chance(range(c, b + c + 1), b + c),
)  # fmt: skip
plant(
    "doubles the tail of the first count", "first_count",
    p_value=lambda b, c, **_: min(1.0, 2 * chance(range(b + 1), b + c)),
)  # fmt: skip
plant(
    "leaves the observed split out", "strictly_more_uneven",
    p_value=lambda b, c, **_: min(1.0, 2 * chance(range(min(b, c)), b + c)),
)  # fmt: skip
plant("gives the chance of exactly this split", "this_split", p_value=lambda b, c, **_: chance([b], b + c))
plant(
    "gives twice the chance of exactly this split", "twice_this_split",
    p_value=lambda b, c, **_: min(1.0, 2 * chance([b], b + c)),
)  # fmt: skip
plant(
    "chi-squared approximation with the continuity correction", "corrected",
    p_value=lambda b, c, **_: chi2.sf((abs(b - c) - 1) ** 2 / max(b + c, 1), 1),
)  # fmt: skip
plant("chi-squared approximation: ", "chi_squared", p_value=lambda b, c, **_: chi2.sf((b - c) ** 2 / max(b + c, 1), 1))
plant("as if they came from different images", "unpaired", p_value=unpaired)
plant(
    "tosses a coin for every image", "all_images",
    p_value=lambda b, c, n, **_: min(1.0, 2 * chance(range(min(b, c) + 1), n)),
)  # fmt: skip
plant("gives one minus the p-value", "one_minus", p_value=lambda b, c, **_: 1 - exact(b, c))
plant("finds a difference where there is no disagreement", "zero", p_value=lambda b, c, **_: exact(b, c) if b + c else 0.0)
plant("gives nan where there is no disagreement", "nan", p_value=lambda b, c, **_: exact(b, c) if b + c else math.nan)
plant(
    "raises OverflowError", "overflow",
    p_value=lambda b, c, **_: min(1.0, 2 * sum(math.comb(b + c, i) * 0.5 ** (b + c) for i in range(min(b, c) + 1))),
)  # fmt: skip
plant(
    "loses the p-value to underflow", "underflow", p_value=lambda b, c, **_: exact(b, c) if b + c < 1000 else 0.0
)  # fmt: skip


@mistake("comparison.mcnemar", says="three things are asked for")
def p_value_only(labels, first, second):
    return build()(labels, first, second)[2]
