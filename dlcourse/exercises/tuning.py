"""Exercises on tuning: a draw on a log scale, the median rule of a pruner, a choice and a report that keep apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Curve = Sequence[float]
Case = tuple[list[float], list[list[float]], int, int]


def log_uniform(u: Tensor, low: float, high: float) -> Tensor:
    return low * (high / low) ** u  # log low + u · (log high − log low), and back


def check_log_uniform(answer: Answer) -> str:
    torch.manual_seed(0)
    ends, many = torch.tensor([0.0, 0.25, 0.5, 1.0]), torch.rand(3, 5)
    cases = [(torch.tensor([0.5]), 0.01, 1.0), (ends, 1e-4, 1.0), (ends, 2.0, 32.0), (many, 1e-5, 0.3)]
    for u, low, high in [*cases, (many.double(), 0.02, 7.0), (torch.tensor(0.25), 3e-4, 3e-2)]:
        given, span = describe(u, low, high), math.log(high / low)
        exponent = math.log10(low) + u * math.log10(high / low)
        mistakes = {
            "draws on a linear scale: most draws lie in the largest decade": low + u * (high - low),
            "takes low for the upper end and high for the lower": high * (low / high) ** u,
            "returns the exponent: raise 10 to it": exponent,
            "returns the logarithm: take exp of it": math.log(low) + u * span,
            "mixes the bases: log10 goes back with 10**x, log with exp": lambda x=exponent: torch.exp(x),
            "mixes the bases: log goes back with exp, 10**x belongs to log10": lambda a=low, s=span, v=u: 10 ** (math.log(a) + v * s),
            "takes low and high for exponents; they are the ends themselves": lambda a=low, b=high, v=u: 10 ** (a + v * (b - a)),
            "forgets to start at low": (high / low) ** u,
            "rounds to whole decades": lambda x=exponent: 10 ** x.round(),
            "rounds down to whole decades": lambda x=exponent: 10 ** x.floor(),
            "is uniform in 1/x, which crowds the draws at low": lambda a=low, b=high, v=u: 1 / (1 / a + v * (1 / b - 1 / a)),
            "multiplies u by high − low in the exponent; the logarithms are subtracted": lambda a=low, b=high, v=u: a * torch.exp(v * (b - a)),
        }  # fmt: skip
        got = answer(u, low, high)
        compare(got, answer(u, low, high), given=given, what="a second call with the same u", mistakes=_own_draws(got))
        compare(got, log_uniform(u, low, high), given=given, mistakes=mistakes, rtol=1e-4, atol=0)
    return "both ends and between, float32 and float64, any shape, over two to five decades and within one"


def _own_draws(got: object) -> dict[str, object]:
    """Whatever the second call gave, that it is another result names the mistake."""
    return {"draws numbers of its own; u are the random numbers": got}


def should_stop(curve: Curve, finished: Sequence[Curve], *, startup: int = 5, warmup: int = 1) -> bool:
    if len(finished) < startup or len(curve) <= warmup:
        return False
    epoch = len(curve)
    there = [other[epoch - 1] for other in finished if len(other) >= epoch]
    return bool(there) and max(curve) < statistics.median(there)


def _rule(
    value: Callable[[Curve], float] = max,
    other: Callable[[Curve, int], float] = lambda curve, n: curve[n - 1],
    middle: Callable[[Sequence[float]], float] = statistics.median,
    worse: Callable[[float, float], bool] = lambda a, b: a < b,
    early: Callable[[int, int], bool] = lambda n, warmup: n <= warmup,
    few: Callable[[Sequence[Curve], int, int], bool] = lambda finished, startup, n: len(finished) < startup,
    long: Callable[[Curve, int], bool] = lambda curve, n: len(curve) >= n,
    nobody: bool = False,
) -> Callable[[Curve, Sequence[Curve], int, int], bool]:
    """The median rule with one part of it replaced."""

    def rule(curve: Curve, finished: Sequence[Curve], startup: int, warmup: int) -> bool:
        n = len(curve)
        if few(finished, startup, n) or early(n, warmup):
            return False
        there = [other(one, n) for one in finished if long(one, n)]
        return worse(value(curve), middle(there)) if there else nobody

    return rule


WRONG_RULES: dict[str, Callable[[Curve, Sequence[Curve], int, int], bool]] = {
    "judges the trial by its last value; its best one so far counts": _rule(value=lambda curve: curve[-1]),
    "judges the trial by the mean of its values; the best one so far counts": _rule(value=lambda c: sum(c) / len(c)),
    "compares with the last values of the finished trials; those at the same epoch count":
        _rule(other=lambda c, n: c[-1], long=lambda c, n: True),
    "compares with the last values of those that came this far; those at the same epoch count": _rule(other=lambda c, n: c[-1]),
    "compares with the best values of the finished trials so far; those at this epoch count": _rule(other=lambda c, n: max(c[:n])),
    "takes the last value of a finished trial that did not come this far; leave it out":
        _rule(other=lambda c, n: c[min(n, len(c)) - 1], long=lambda c, n: True),
    "takes the mean of the others; the median is asked for": _rule(middle=statistics.fmean),
    "takes the lower of the two middle values, as torch.median does; their mean is the median": _rule(middle=statistics.median_low),
    "takes the upper of the two middle values; their mean is the median": _rule(middle=statistics.median_high),
    "compares with the best of the others; the median is asked for": _rule(middle=max),
    "compares with the worst of the others; the median is asked for": _rule(middle=min),
    "stops a trial that equals the median; only a worse one is stopped": _rule(worse=lambda a, b: a <= b),
    "stops the good trials: here higher is better": _rule(worse=lambda a, b: a > b),
    "takes lower for better": _rule(value=min, worse=lambda a, b: a > b),
    "answers whether to go on; True means stop": lambda c, f, s, w: not should_stop(c, f, startup=s, warmup=w),
    "does not wait for `startup` finished trials": _rule(few=lambda f, s, n: False),
    "waits for one finished trial more than `startup`": _rule(few=lambda f, s, n: len(f) <= s),
    "counts for `startup` only the trials that came this far; all finished ones count":
        _rule(few=lambda f, s, n: sum(len(c) >= n for c in f) < s),
    "stops within the first `warmup` epochs": _rule(early=lambda n, w: False),
    "may stop in epoch `warmup`; the first chance is the epoch after it": _rule(early=lambda n, w: n < w),
    "waits one epoch more than `warmup`": _rule(early=lambda n, w: n <= w + 1),
    "compares with the epoch before this one": _rule(other=lambda c, n: c[n - 2]),
    "stops a trial when no other came this far; then nothing can be compared": _rule(nobody=True),
    "never stops a trial": lambda c, f, s, w: False,
    "stops every trial that it may stop": _rule(worse=lambda a, b: True),
}  # fmt: skip


def _cases() -> Iterator[Case]:
    """A few to read, then many, with ties and trials that ended early."""
    yield [0.5, 0.5], [[0.25, 0.75], [0.25, 1.0]], 2, 1
    yield [0.25], [[0.5, 0.75]], 1, 0
    yield [0.25], [[0.5, 0.75]], 1, 1
    yield [0.5, 0.5], [[0.75]], 1, 1
    yield [0.25, 0.25], [[0.5, 0.75]] * 5, 5, 1
    random = np.random.default_rng(0)
    for _ in range(300):
        epochs = int(random.integers(1, 5))
        finished = [
            (random.integers(0, 9, int(random.integers(1, 6))) / 8).tolist() for _ in range(int(random.integers(0, 7)))
        ]
        yield (random.integers(0, 9, epochs) / 8).tolist(), finished, int(random.integers(1, 5)), int(random.integers(0, 3))


def check_should_stop(answer: Answer) -> str:
    cases = list(_cases())
    got = [answer(list(c), [list(f) for f in fs], startup=s, warmup=w) for c, fs, s, w in cases]
    for result in got:
        if not isinstance(result, (bool, np.bool_)):
            raise Mistake(f"It returns {describe(result)}; True (stop) or False is asked for.")
    want = [should_stop(c, fs, startup=s, warmup=w) for c, fs, s, w in cases]
    failing = [case for case, one, other in zip(cases, got, want, strict=True) if bool(one) != other]
    if failing:
        curve, finished, startup, warmup = min(failing, key=lambda case: (sum(map(len, case[1])), len(case[0])))
        right = should_stop(curve, finished, startup=startup, warmup=warmup)
        text = f"should_stop({curve}, {finished}, startup={startup}, warmup={warmup}) is {not right} where {right} is expected."
        named = next((name for name, rule in WRONG_RULES.items() if [rule(*case) for case in cases] == got), None)
        raise Mistake(f"It {named}. {text}" if named else text)
    late = [[0.5, 0.5, 0.5]] * 4
    defaults = [answer([0.25, 0.25], late), answer([0.25], [*late, late[0]]), answer([0.25, 0.25], [*late, late[0]])]
    if list(map(bool, defaults)) != [False, False, True]:
        raise Mistake("Its defaults are not startup=5 and warmup=1.")
    return f"{len(cases)} cases, with ties, trials that ended early, an even and an odd number of others"


def select_and_report(val: Tensor, test: Tensor, *, t: float) -> tuple[int, float, float]:
    best = int(val.mean(dim=1).argmax())  # (C, S) -> (C,) -> a number
    scores = test[best]  # (S,)
    return best, scores.mean().item(), t * scores.std().item() / math.sqrt(len(scores))


WRONG_CHOICES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "chooses by the test scores: they may only report": lambda val, test: test.mean(1).argmax(),
    "chooses the configuration with the best single seed; its mean over the seeds counts": lambda val, test: val.amax(1).argmax(),
    "chooses the configuration with the best worst seed; its mean over the seeds counts": lambda val, test: val.amin(1).argmax(),
    "chooses by the first seed alone": lambda val, test: val[:, 0].argmax(),
    "chooses the worst configuration: higher is better": lambda val, test: val.mean(1).argmin(),
    "chooses by validation and test together": lambda val, test: (val + test).mean(1).argmax(),
    "takes the mean over the configurations: a row is a configuration, a column a seed":
        lambda val, test: val.mean(0).argmax().clamp(max=len(val) - 1),
}  # fmt: skip
WRONG_MEANS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "reports the validation scores, by which it chose": lambda val, test, i: val[i].mean(),
    "reports the test score of the best seed; all seeds count": lambda val, test, i: test[i].max(),
    "reports the test score of the seed that was best in validation; all seeds count": lambda val, test, i: test[i, val[i].argmax()],
    "reports the mean over all configurations": lambda val, test, i: test.mean(),
    "reports the best mean of any configuration on test, not that of the chosen one": lambda val, test, i: test.mean(1).max(),
    "reports the median; the mean is asked for": lambda val, test, i: test[i].quantile(0.5),
}  # fmt: skip
WRONG_HALVES: dict[str, Callable[[Tensor, Tensor, int, float], Tensor]] = {
    "forgets to divide by √S: that is the spread of the seeds, not of their mean": lambda val, test, i, t: t * test[i].std(),
    "divides by S instead of √S": lambda val, test, i, t: t * test[i].std() / test.shape[1],
    "forgets t": lambda val, test, i, t: test[i].std() / test.shape[1] ** 0.5,
    "uses 1.96, which is for many seeds, instead of t": lambda val, test, i, t: 1.96 * test[i].std() / test.shape[1] ** 0.5,
    "divides the squares by S; a sample's standard deviation divides by S − 1":
        lambda val, test, i, t: t * test[i].std(correction=0) / test.shape[1] ** 0.5,
    "takes the variance for the standard deviation": lambda val, test, i, t: t * test[i].var() / test.shape[1] ** 0.5,
    "takes the spread of the validation scores": lambda val, test, i, t: t * val[i].std() / test.shape[1] ** 0.5,
    "takes the spread over all configurations": lambda val, test, i, t: t * test.std() / test.shape[1] ** 0.5,
    "divides by the root of the number of configurations; the seeds are what is averaged":
        lambda val, test, i, t: t * test[i].std() / len(test) ** 0.5,
    "gives the whole width; half of it is asked for": lambda val, test, i, t: 2 * t * test[i].std() / test.shape[1] ** 0.5,
}  # fmt: skip


def _scores(configurations: int, seeds: int) -> tuple[Tensor, Tensor]:
    """Scores in which each wrong way to choose chooses another configuration than the right one (many: all others)."""
    random = torch.Generator().manual_seed(seeds)
    while True:
        val = torch.randint(20, 96, (configurations, seeds), generator=random) / 100
        test = torch.randint(20, 96, (configurations, seeds), generator=random) / 100
        wrong = [int(choose(val, test)) for choose in WRONG_CHOICES.values()]
        if int(val.mean(1).argmax()) not in wrong and (configurations < 9 or len(set(wrong)) == len(wrong)):
            return val, test


def check_select_and_report(answer: Answer) -> str:
    cases = [(*_scores(3, 6), 2.571), (*_scores(5, 3), 4.303), (*_scores(20, 7), 2.447)]
    cases += [(val.double(), test.double(), t) for val, test, t in cases[1:2]]
    results = []
    for val, test, t in cases:
        result = answer(val, test, t=t)
        if not isinstance(result, (tuple, list)) or len(result) != 3:
            raise Mistake(f"It returns {describe(result)}; three things are asked for: index, mean, half width.")
        try:
            index, mean, half = (float(part) for part in result)
        except (TypeError, ValueError, RuntimeError):
            raise Mistake(f"It returns {describe(*result)}; three numbers are asked for.") from None
        results.append((val, test, t, index, mean, half))
    named = next((n for n, wrong in WRONG_CHOICES.items() if all(wrong(v, e) == i for v, e, _, i, _, _ in results)), None)
    for val, test, t, index, mean, half in results:
        best, right_mean, right_half = select_and_report(val, test, t=t)
        given = f"val = {_table(val)}, test = {_table(test)}, t = {t}"
        if index != best:
            raise Mistake(f"It {named}. " * bool(named) + f"Given {given}, it chooses {index:g} where {best} is expected.")
        means = {name: float(wrong(val, test, best)) for name, wrong in WRONG_MEANS.items()}
        compare(mean, right_mean, given=given, mistakes=means, what="the mean")
        halves = {name: float(wrong(val, test, best, t)) for name, wrong in WRONG_HALVES.items()}
        compare(half, right_half, given=given, mistakes=halves, what="the half width")
    return f"{len(cases)} tables in which the best on test, the best seed and the best mean are different configurations"


def _table(scores: Tensor) -> str:
    return str([[round(score, 2) for score in row] for row in scores.tolist()])


register(
    "tuning.log_uniform",
    log_uniform,
    check_log_uniform,
    difficulty=1,
    importance=5,
    minutes=8,
    hints=(
        "Equal steps of u should multiply the result by equal factors.",
        "Go to logarithms, interpolate there between log low and log high with u, and come back with exp.",
        "The same in one line: low · (high / low)^u.",
    ),
)

register(
    "tuning.should_stop",
    should_stop,
    check_should_stop,
    difficulty=3,
    importance=3,
    minutes=15,
    hints=(
        "First the two cases in which nothing may be stopped: too few finished trials, too few epochs of this one.",
        "The epoch is len(curve). Of the finished trials only those with at least as many epochs can be compared.",
        "Stop when max(curve) < statistics.median(values at that epoch), and there is such a value.",
    ),
)

register(
    "tuning.select_and_report",
    select_and_report,
    check_select_and_report,
    difficulty=2,
    importance=5,
    minutes=12,
    hints=(
        "Two steps that share nothing but an index: val chooses, test reports.",
        "Choose by the mean over the seeds (dim=1). The report uses the chosen row of test, all of it.",
        "The half width is t · s / √S, where s is the sample's standard deviation (torch's default) of the S test scores.",
    ),
)
