"""Exercises on learning-rate schedules (chapter 11): warmup and cosine, one cycle, plateau, the plan of a run.

Sources: Goyal et al. 2017 (arXiv:1706.02677), Loshchilov and Hutter 2016 (arXiv:1608.03983), Smith and Topin 2017
(arXiv:1708.07120), and torch.optim.lr_scheduler for the details of OneCycleLR and ReduceLROnPlateau.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlcourse.exercises._wrong_schedules import (
    COSINE_MISTAKES,
    CYCLE_MISTAKES,
    PLAN_MISTAKES,
    PLATEAU_MISTAKES,
    WrongPlateau,
    wrong_cosine,
    wrong_cycle,
    wrong_plan,
)
from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int, min_ratio: float = 0.0) -> float:
    """(step + 1) / warmup_steps during the warmup, then half a cosine from 1 to min_ratio at total_steps, then flat."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min((step - warmup_steps) / (total_steps - warmup_steps), 1.0)
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def check_warmup_cosine(answer: Answer) -> str:
    for options in (
        {"warmup_steps": 0, "total_steps": 4},
        {"warmup_steps": 2, "total_steps": 8},
        {"warmup_steps": 2, "total_steps": 8, "min_ratio": 0.2},
        {"warmup_steps": 7, "total_steps": 8, "min_ratio": 0.1},
        {"warmup_steps": 30, "total_steps": 1000, "min_ratio": 0.01},
    ):
        total: int = int(options["total_steps"])
        steps = range(total + 6) if total < 100 else (0, 1, 29, 30, 31, 515, 998, 999, 1000, 1500)
        _compare_curves(answer, warmup_cosine, steps, options, wrong_cosine, COSINE_MISTAKES)
    return "five runs step by step and past their end: without a warmup, with a floor, a warmup of all steps but one"


def _compare_curves(
    answer: Answer, right: Callable[..., float], steps: Sequence[int], options: dict[str, Any],
    wrong: Callable[..., float], mistakes: Mapping[str, dict[str, Any]],
) -> None:  # fmt: skip
    """The ratio of each step; the mistake is named by the whole curve, which tells it from the others."""
    got = [_number(answer(step, **options), f"step {step} of {_said(options)}") for step in steps]
    curves = {sentence: [wrong(step, **options, **how) for step in steps] for sentence, how in mistakes.items()}
    named = [sentence for sentence, curve in curves.items() if all(map(_close, got, curve))]
    for step, value in zip(steps, got, strict=True):
        if not _close(value, right(step, **options)):
            given, matched = f"step {step} of {_said(options)}", dict.fromkeys(named[:1], value)
            compare(value, right(step, **options), given=given, mistakes=matched, what="the ratio", rtol=1e-6, atol=1e-9)


def _said(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={option:.4g}" for name, option in options.items())


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


def _number(value: Any, given: str) -> float:
    if isinstance(value, bool | str) or getattr(value, "ndim", 0) > 0:
        raise Mistake(f"It returns {describe(value)} for {given}, where one number is asked for.")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise Mistake(f"It returns {describe(value)} for {given}, where one number is asked for.") from None


register(
    "schedules.warmup_cosine",
    warmup_cosine,
    check_warmup_cosine,
    difficulty=2,
    importance=5,
    minutes=12,
    hints=(
        "Two cases: step < warmup_steps, and the rest. How many steps has the rest, and how far along is this one?",
        "progress = min((step − warmup_steps) / (total_steps − warmup_steps), 1) runs from 0 to 1 and stays there.",
        "0.5 · (1 + cos(π · progress)) falls from 1 to 0; min_ratio + (1 − min_ratio) · that falls from 1 to min_ratio.",
    ),
)


def one_cycle(step: int, *, total_steps: int, rising: float, start_ratio: float, end_ratio: float) -> float:
    """Half a cosine up from start_ratio to 1 until step rising · total_steps − 1, half a cosine down to end_ratio after."""
    last = total_steps - 1
    top = max(rising * total_steps - 1, 0)
    step = min(step, last)
    if step > top:
        return end_ratio + (1 - end_ratio) * 0.5 * (1 + math.cos(math.pi * (step - top) / (last - top)))
    return start_ratio + (1 - start_ratio) * 0.5 * (1 - math.cos(math.pi * step / top)) if top else 1.0


def check_one_cycle(answer: Answer) -> str:
    plain = {"rising": 0.5, "start_ratio": 0.1, "end_ratio": 0.01}
    for options, steps in (
        ({"total_steps": 8, **plain}, range(8)),
        ({"total_steps": 10, "rising": 0.3, "start_ratio": 0.04, "end_ratio": 0.001}, range(14)),
        ({"total_steps": 7, "rising": 0.4, "start_ratio": 0.2, "end_ratio": 0.05}, range(9)),  # the top lies between two steps
    ):
        _compare_curves(answer, one_cycle, steps, options, wrong_cycle, CYCLE_MISTAKES)
    for total, rising in ((10, 0.0), (4, 0.25), (10, 0.05), (1, 0.3), (2, 0.5)):
        options = {"total_steps": total, **plain, "rising": rising}
        try:
            _compare_curves(answer, one_cycle, range(total + 2), options, wrong_cycle, CYCLE_MISTAKES)
        except Mistake as mistake:
            if "ZeroDivisionError" not in str(mistake) and "nan" not in str(mistake):
                raise
            raise Mistake(f"It divides by zero where no step is left to climb: such a run begins at the top. {mistake}") from None
    return "three runs step by step, one past its end, and five in which no step is left to climb"


register(
    "schedules.one_cycle",
    one_cycle,
    check_one_cycle,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "Two half cosines, joined where the ratio is 1. At which step number is the join, when steps count from 0?",
        "top = max(rising · total_steps − 1, 0), last = total_steps − 1. Up to the top the progress is step / top, after it "
        "(step − top) / (last − top). When is each of these a division by zero?",
        "First step = min(step, last). Going up: start + (1 − start) · 0.5 · (1 − cos(π · progress)), or 1 when top is 0; going "
        "down: end + (1 − end) · 0.5 · (1 + cos(π · progress)).",
    ),
)


class Plateau:
    """Cuts the rate to factor · rate after more than `patience` epochs in a row without a new best metric."""

    def __init__(self, rate: float, *, factor: float = 0.1, patience: int = 2, mode: str = "min") -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode={mode!r} must be 'min' or 'max'")
        self.rate, self.factor, self.patience = rate, factor, patience
        self.sign = 1 if mode == "max" else -1
        self.best = -math.inf
        self.bad_epochs = 0

    def step(self, metric: float) -> float:
        """Count an epoch with this metric; returns the rate of the next one. NaN is never an improvement."""
        if self.sign * metric > self.best:
            self.best, self.bad_epochs = self.sign * metric, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.rate, self.bad_epochs = self.rate * self.factor, 0
        return self.rate


_NAN = math.nan
_RUNS: tuple[tuple[dict[str, Any], tuple[float, ...]], ...] = (
    ({"factor": 0.2, "patience": 2, "mode": "min"}, (3, 4, 3, 5, 4, 3, 7, 6, 5, 5)),
    ({"factor": 0.2, "patience": 0, "mode": "min"}, (3, 4, 2, 2, 1, 5, 5, 5)),
    ({"factor": 0.3, "patience": 2, "mode": "min"}, (5, 6, 6, 4, 5, 6, 3, 4, 4, 4, 2)),
    ({"factor": 0.5, "patience": 1, "mode": "min"}, (5, 3, 4, 3.5, 3.2, 3.1)),
    ({"factor": 0.5, "patience": 1, "mode": "min"}, (3, _NAN, _NAN, _NAN, 4, 4, 4, 2)),
    ({"factor": 0.5, "patience": 1, "mode": "min"}, (_NAN, 3, 2, 1, 0)),
    ({"factor": 0.3, "patience": 1, "mode": "max"}, (0.1, 0.5, 0.4, 0.4, 0.6, 0.6, 0.6)),
    ({"factor": 0.5, "patience": 1, "mode": "max"}, (-3, -2, -1, -2, -2)),
)


def check_plateau(answer: Answer) -> str:
    for options, metrics in _RUNS:
        rule = answer(1.0, **options)
        step = getattr(rule, "step", None)
        if not callable(step):
            raise Mistake("It has no method `step`: step(metric) counts an epoch and returns the rate.")
        rates = [_number(Answer(step)(metric), f"step({metric:g})") for metric in metrics]
        given = f"{describe(**options)} and the metrics {', '.join(f'{metric:g}' for metric in metrics)}"
        wrong = {name: _rates(WrongPlateau(1.0, **options, **how), metrics) for name, how in PLATEAU_MISTAKES.items()}
        compare(rates, _rates(Plateau(1.0, **options), metrics), given=given, mistakes=wrong, what="the rates", rtol=1e-6, atol=1e-9)
    first, second = answer(1.0, factor=0.5, patience=0), answer(8.0, factor=0.5, patience=0)
    for metric in (1.0, 2.0, 3.0):
        got = float(Answer(first.step)(metric)), float(Answer(second.step)(metric))
        if not math.isclose(got[0] * 8, got[1], rel_tol=1e-6):
            raise Mistake(f"Two rules share their state: with rates 1 and 8 and the same metrics they give {got[0]:g} and {got[1]:g}.")
    for wrong_mode in ("minimum", "MAX"):
        try:
            answer(1.0, mode=wrong_mode)
        except Mistake as mistake:
            if "ValueError" in str(mistake):
                continue
            raise
        raise Mistake(f"It takes mode={wrong_mode!r} without a complaint: raise ValueError for all but 'min' and 'max'.")
    return "eight runs in both modes (patience 0 to 2, equal metrics, negative ones, NaN), two rules at once, a wrong mode"


def _rates(rule: Any, metrics: tuple[float, ...]) -> list[float]:
    return [rule.step(metric) for metric in metrics]


register(
    "schedules.plateau",
    Plateau,
    check_plateau,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "The rule remembers three things: the rate, the best metric so far, and how many bad epochs there were in a row.",
        "Under 'max' compare metric, under 'min' −metric: then higher is better in both, and the best begins at −∞. Any "
        "comparison with NaN is False, so ask whether the metric is better, not whether it is worse.",
        "Better: best = metric, bad_epochs = 0. Otherwise bad_epochs += 1. Then, if bad_epochs > patience: multiply the rate "
        "and set bad_epochs = 0.",
    ),
)


def plan(
    samples: int, batch_size: int, *, epochs: int, accumulate: int = 1, rate: float, rate_batch: int, warmup: float = 0.1
) -> tuple[float, int, int]:
    """(learning rate, warmup steps, total steps) of a run, the rate scaled with the samples of an update."""
    batches = math.ceil(samples / batch_size)
    total_steps = epochs * math.ceil(batches / accumulate)
    return rate * batch_size * accumulate / rate_batch, round(warmup * total_steps), total_steps


def check_plan(answer: Answer) -> str:
    base = {"rate": 0.1, "rate_batch": 256}
    cases: tuple[tuple[tuple[int, int], dict[str, Any]], ...] = (
        ((100, 10), {"epochs": 2, "rate": 0.1, "rate_batch": 10, "warmup": 0.25}),
        ((100, 30), {"epochs": 10, **base}),
        ((210, 30), {"epochs": 3, "accumulate": 2, "warmup": 0.3, **base}),
        ((100, 30), {"epochs": 10, "accumulate": 3, "warmup": 0.2, **base}),
        ((50_000, 128), {"epochs": 30, "accumulate": 8, "warmup": 0.03, "rate": 0.4, "rate_batch": 1024}),
        ((5, 64), {"epochs": 3, "accumulate": 4, "warmup": 0.0, **base}),
    )
    for sizes, options in cases:
        got, want = answer(*sizes, **options), plan(*sizes, **options)
        given = f"samples, batch_size = {describe(*sizes)} and {describe(**options)}"
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Mistake(f"It returns {describe(got)}, given {given}; three numbers are asked for.")
        numbers = [_number(number, given) for number in got]
        if all(map(_close, numbers, want)) and not all(isinstance(steps, int) for steps in got[1:]):
            raise Mistake(f"Its steps {describe(*got[1:])} are not whole numbers of type int, given {given}.")
        wrong = {sentence: list(wrong_plan(*sizes, **{**options, **how})) for sentence, how in PLAN_MISTAKES.items()}
        compare(numbers, list(want), given=given, mistakes=wrong, what="(rate, warmup_steps, total_steps)", rtol=1e-6)
    return "six runs: even and short last batches and windows, accumulation, rates scaled up and down, no warmup"


register(
    "schedules.plan",
    plan,
    check_plan,
    difficulty=2,
    importance=5,
    minutes=10,
    hints=(
        "Count in this order: batches of an epoch, updates of an epoch, updates of the run. Which of the divisions round up?",
        "The linear rule compares the samples behind one update: batch_size · accumulate against rate_batch.",
        "batches = ceil(samples / batch_size); total_steps = epochs · ceil(batches / accumulate); warmup_steps = round(warmup · "
        "total_steps); the rate is rate · batch_size · accumulate / rate_batch.",
    ),
)
