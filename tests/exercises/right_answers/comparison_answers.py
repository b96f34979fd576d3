"""Right answers to the exercise on the exact McNemar test, in other styles than the reference's."""

import math
from fractions import Fraction

import torch
from planting import right_answer
from scipy.stats import binom, binomtest


@right_answer("comparison.mcnemar")
def by_binomtest(labels, first, second):
    right = first == labels, second == labels
    b, c = (right[0] & ~right[1]).sum().item(), (~right[0] & right[1]).sum().item()
    return b, c, binomtest(b, b + c).pvalue if b + c else 1.0


@right_answer("comparison.mcnemar")
def by_the_distribution(labels, first, second):
    gain = (first == labels).int() - (second == labels).int()
    b, c = int((gain == 1).sum()), int((gain == -1).sum())
    return [b, c, min(1, 2 * binom.cdf(min(b, c), b + c, 0.5))]


@right_answer("comparison.mcnemar")
def term_by_term(labels, first, second):
    b = c = 0
    for label, one, two in zip(labels.tolist(), first.tolist(), second.tolist(), strict=True):
        b += one == label != two
        c += two == label != one
    term, total = Fraction(1), Fraction(0)
    for i in range(min(b, c) + 1):
        total += term
        term = term * (b + c - i) / (i + 1)
    return b, c, 1.0 if b == c else float(2 * total / 2 ** (b + c))


@right_answer("comparison.mcnemar")
def by_logarithms(labels, first, second):
    right = torch.stack([first == labels, second == labels])
    b, c = (right & ~right.flip(0)).sum(dim=1)
    i = torch.arange(int(min(b, c)) + 1, dtype=torch.float64)
    n = (b + c).double()
    logs = torch.lgamma(n + 1) - torch.lgamma(i + 1) - torch.lgamma(n - i + 1) - n * math.log(2)
    return b, c, torch.clamp(2 * logs.exp().sum(), max=1)
