"""Wrong answers to the exercises on learning-rate schedules."""

import math

from planting import mistake


def fall(progress):
    return 0.5 * (1 + math.cos(math.pi * progress))


def plant(exercise, says, name, wrong):
    wrong.__name__ = name
    mistake(exercise, says=says)(wrong)


def build_cosine(
    warm=lambda step, w: (step + 1) / w,
    warming=lambda step, w: step < w,
    progress=lambda step, w, t: min((step - w) / (t - w), 1.0),
    shape=fall,
    floor=lambda ratio, low: low + (1 - low) * ratio,
):
    """The schedule with one part of it replaced."""

    def warmup_cosine(step, *, warmup_steps, total_steps, min_ratio=0.0):
        if warmup_steps and warming(step, warmup_steps):
            return warm(step, warmup_steps)
        return floor(shape(progress(step, warmup_steps, total_steps)), min_ratio)

    return warmup_cosine


COSINE = "schedules.warmup_cosine"
plant(COSINE, "begins the warmup at 0", "from_zero", build_cosine(warm=lambda step, w: step / w))
plant(COSINE, "warms up one step too long", "one_step_longer", build_cosine(warming=lambda step, w: step <= w))
plant(COSINE, r"divides the warmup by warmup_steps \+ 1", "never_quite", build_cosine(warm=lambda step, w: (step + 1) / (w + 1)))
plant(COSINE, "over total_steps from the start", "no_shift", build_cosine(progress=lambda step, w, t: min(step / t, 1)))
plant(COSINE, "makes the cosine total_steps long", "too_long", build_cosine(progress=lambda step, w, t: min((step - w) / t, 1)))
plant(COSINE, "one step early", "early_floor", build_cosine(progress=lambda step, w, t: min((step - w) / max(t - w - 1, 1), 1)))
plant(COSINE, "one step ahead", "ahead", build_cosine(progress=lambda step, w, t: min((step - w + 1) / (t - w), 1)))
plant(COSINE, "climbs again past total_steps", "unclamped", build_cosine(progress=lambda step, w, t: (step - w) / (t - w)))
plant(COSINE, "along a straight line", "linear", build_cosine(shape=lambda p: 1 - p))
plant(COSINE, "a quarter of the cosine", "quarter", build_cosine(shape=lambda p: math.cos(math.pi / 2 * p)))
plant(COSINE, "the whole cosine", "whole", build_cosine(shape=lambda p: fall(2 * p)))
plant(COSINE, "leaves π out", "no_pi", build_cosine(shape=lambda p: 0.5 * (1 + math.cos(p))))
plant(COSINE, "turns the cosine over", "rising", build_cosine(shape=lambda p: 1 - fall(p)))
plant(COSINE, "does not halve", "not_halved", build_cosine(shape=lambda p: 2 * fall(p)))
plant(COSINE, "bare cosine", "bare", build_cosine(shape=lambda p: math.cos(math.pi * p)))
plant(COSINE, "ignores min_ratio", "no_floor", build_cosine(floor=lambda ratio, low: ratio))
plant(COSINE, "on top", "added_floor", build_cosine(floor=lambda ratio, low: ratio + low))
plant(COSINE, "cuts the curve off", "cut_off", build_cosine(floor=lambda ratio, low: max(ratio, low)))
plant(COSINE, "but does not add min_ratio", "only_scaled", build_cosine(floor=lambda ratio, low: (1 - low) * ratio))


@mistake(COSINE, says="ZeroDivisionError")
def divides_by_the_warmup(step, *, warmup_steps, total_steps, min_ratio=0.0):
    return min((step + 1) / warmup_steps, build_cosine()(step, warmup_steps=0, total_steps=total_steps, min_ratio=min_ratio))


@mistake(COSINE, says="where one number is asked for")
def whole_curve(step, *, warmup_steps, total_steps, min_ratio=0.0):
    return [build_cosine()(s, warmup_steps=warmup_steps, total_steps=total_steps, min_ratio=min_ratio) for s in range(total_steps)]


def build_cycle(
    top=lambda total, rising: max(rising * total - 1, 0),
    last=lambda total: total - 1,
    hold=min,
    up=lambda p: 1 - fall(p),
    down=fall,
    ends=lambda start, end: (start, end),
    at_zero=1.0,
):
    """One cycle with one part of it replaced."""

    def one_cycle(step, *, total_steps, rising, start_ratio, end_ratio):
        peak, end = top(total_steps, rising), last(total_steps)
        first, final = ends(start_ratio, end_ratio)
        step = hold(step, end)
        if step <= peak:
            return first + (1 - first) * (up(step / peak) if peak else at_zero)
        return final + (1 - final) * down((step - peak) / (end - peak))

    return one_cycle


CYCLE = "schedules.one_cycle"
plant(CYCLE, r"puts the top at step rising · total_steps", "late_top", build_cycle(top=lambda total, rising: rising * total))
plant(CYCLE, "reaches the end at step total_steps", "late_end", build_cycle(last=lambda total: total))
plant(
    CYCLE, "puts the top and the end one step late", "late_both",
    build_cycle(top=lambda total, rising: rising * total, last=lambda total: total),
)
plant(CYCLE, "climbs again past the last step", "beyond", build_cycle(hold=lambda step, end: step))
plant(CYCLE, "It rises along a straight line", "linear_up", build_cycle(up=lambda p: p))
plant(CYCLE, "It falls along a straight line", "linear_down", build_cycle(down=lambda p: 1 - p))
plant(CYCLE, "rises and falls along straight lines", "triangle", build_cycle(up=lambda p: p, down=lambda p: 1 - p))
plant(CYCLE, "swaps start_ratio and end_ratio", "swapped", build_cycle(ends=lambda start, end: (end, start)))
plant(CYCLE, "comes back to start_ratio", "symmetric", build_cycle(ends=lambda start, end: (start, start)))
plant(CYCLE, "begins and ends at 0", "from_and_to_zero", build_cycle(ends=lambda start, end: (0, 0)))
plant(CYCLE, "ends at start_ratio · end_ratio", "end_of_the_start", build_cycle(ends=lambda start, end: (start, start * end)))
plant(CYCLE, "does not use rising", "always_three_tenths", build_cycle(top=lambda total, rising: max(0.3 * total - 1, 0)))


@mistake(CYCLE, says="divides by zero where no step is left to climb")
def unguarded_top(step, *, total_steps, rising, start_ratio, end_ratio):
    top, last, step = max(rising * total_steps - 1, 0), total_steps - 1, min(step, total_steps - 1)
    if step <= top:
        return start_ratio + (1 - start_ratio) * (1 - fall(step / top))
    return end_ratio + (1 - end_ratio) * fall((step - top) / (last - top))


plant(CYCLE, "starts on the way down", "no_clip", build_cycle(top=lambda total, rising: rising * total - 1))


PLATEAU = "schedules.plateau"


def build_plateau(
    start=lambda mode: math.inf if mode == "min" else -math.inf,
    better=lambda metric, best, mode: metric < best if mode == "min" else metric > best,
    due=lambda bad, patience: bad > patience,
    cut=lambda rule: rule.rate * rule.factor,
    keep=lambda rule, metric: None,
    skip=lambda metric: False,
    after_better=0,
    after_cut=0,
    checks=True,
    fixed=(),
):
    """The plateau rule with one part of it replaced."""

    class Plateau:
        def __init__(self, rate, *, factor=0.1, patience=2, mode="min"):
            if checks and mode not in ("min", "max"):
                raise ValueError(mode)
            self.rate = self.first = rate
            self.factor = 0.1 if "factor" in fixed else factor
            self.patience = 2 if "patience" in fixed else patience
            self.mode = "min" if "mode" in fixed else mode
            self.best, self.bad = start(self.mode), 0

        def step(self, metric):
            if skip(metric):
                return self.rate
            if better(metric, self.best, self.mode):
                self.best = metric
                self.bad = self.bad if after_better is None else 0
            else:
                self.bad += 1
            keep(self, metric)
            if due(self.bad, self.patience):
                self.rate = cut(self)
                self.bad = self.bad if after_cut is None else 0
            return self.rate

    return Plateau


def keep_last(rule, metric):
    if not math.isnan(metric):
        rule.best = metric


plant(PLATEAU, "cuts after `patience` bad epochs", "too_early", build_plateau(due=lambda bad, patience: bad >= patience))
plant(PLATEAU, "waits one epoch too long", "too_late", build_plateau(due=lambda bad, patience: bad > patience + 1))
plant(
    PLATEAU, "takes an equal metric for an improvement", "equal_is_better",
    build_plateau(better=lambda metric, best, mode: metric <= best if mode == "min" else metric >= best),
)
plant(PLATEAU, "anew after a cut", "cuts_on", build_plateau(after_cut=None))
plant(PLATEAU, "anew after an improvement", "adds_up", build_plateau(after_better=None))
plant(PLATEAU, "ignores factor", "factor_fixed", build_plateau(fixed=("factor",)))
plant(PLATEAU, "ignores patience", "patience_fixed", build_plateau(fixed=("patience",)))
plant(PLATEAU, "ignores mode", "mode_fixed", build_plateau(fixed=("mode",)))
plant(
    PLATEAU, "the wrong way round", "modes_swapped",
    build_plateau(
        start=lambda mode: math.inf if mode == "max" else -math.inf,
        better=lambda metric, best, mode: metric < best if mode == "max" else metric > best,
    ),
)
plant(PLATEAU, "compares with the epoch before", "last_epoch", build_plateau(keep=keep_last))
plant(
    PLATEAU, "takes NaN for an improvement", "not_worse",
    build_plateau(better=lambda metric, best, mode: not (metric >= best if mode == "min" else metric <= best)),
)
plant(PLATEAU, "does not count an epoch whose metric is NaN", "skips_nan", build_plateau(skip=math.isnan))
plant(PLATEAU, "cuts from the first rate", "from_the_first", build_plateau(cut=lambda rule: rule.first * rule.factor))
plant(PLATEAU, "multiplies by 1 − factor", "one_minus", build_plateau(cut=lambda rule: rule.rate * (1 - rule.factor)))
plant(PLATEAU, "begins with a best of 0", "best_zero", build_plateau(start=lambda mode: math.inf if mode == "min" else 0.0))
plant(PLATEAU, "without a complaint", "any_mode", build_plateau(checks=False))


@mistake(PLATEAU, says="Two rules share their state")
class SharedState(build_plateau()):
    state = {"best": math.inf, "bad": 0}  # noqa: RUF012

    def __init__(self, rate, *, factor=0.1, patience=2, mode="min"):
        super().__init__(rate, factor=factor, patience=patience, mode=mode)
        self.fresh = SharedState.state["bad"] = 0
        SharedState.state["best"] = math.inf if mode == "min" else -math.inf

    def step(self, metric):
        self.best, self.bad = SharedState.state["best"], SharedState.state["bad"]
        rate = super().step(metric)
        SharedState.state["best"], SharedState.state["bad"] = self.best, self.bad
        return rate


@mistake(PLATEAU, says="It has no method `step`")
class WithoutStep:
    def __init__(self, rate, *, factor=0.1, patience=2, mode="min"):
        self.rate = rate


@mistake(PLATEAU, says="It returns None")
class ReturnsNothing(build_plateau()):
    def step(self, metric):
        super().step(metric)


PLAN = "schedules.plan"


def build_plan(
    batches=lambda samples, size: math.ceil(samples / size),
    total=lambda batches, accumulate, epochs: epochs * math.ceil(batches / accumulate),
    scale=lambda size, accumulate, reference: size * accumulate / reference,
    warm=lambda share, total, epochs: round(share * total),
    order=lambda rate, warm, total: (rate, warm, total),
):
    """The plan with one part of it replaced."""

    def plan(samples, batch_size, *, epochs, accumulate=1, rate, rate_batch, warmup=0.1):
        steps = total(batches(samples, batch_size), accumulate, epochs)
        return order(rate * scale(batch_size, accumulate, rate_batch), warm(warmup, steps, epochs), steps)

    return plan


plant(PLAN, "It leaves out the short last batch:", "drops_the_last", build_plan(batches=lambda samples, size: samples // size))
plant(
    PLAN, "It leaves out the short last window:", "drops_the_last_window",
    build_plan(total=lambda batches, accumulate, epochs: epochs * (batches // accumulate)),
)
plant(PLAN, "It counts batches", "batches_not_updates", build_plan(total=lambda batches, accumulate, epochs: epochs * batches))
plant(
    PLAN, "reach into the next epoch", "over_epochs",
    build_plan(total=lambda batches, accumulate, epochs: math.ceil(epochs * batches / accumulate)),
)
plant(PLAN, "does not scale the rate", "unscaled", build_plan(scale=lambda size, accumulate, reference: 1))
plant(PLAN, "with batch_size alone", "batch_alone", build_plan(scale=lambda size, accumulate, reference: size / reference))
plant(PLAN, "the square root", "root", build_plan(scale=lambda size, accumulate, reference: (size * accumulate / reference) ** 0.5))
plant(PLAN, "It scales the rate the wrong way", "inverse", build_plan(scale=lambda size, accumulate, reference: reference / size / accumulate))
plant(PLAN, "of one epoch: it is a share", "of_an_epoch", build_plan(warm=lambda share, total, epochs: round(share * total / epochs)))
plant(PLAN, "share of the epochs", "of_the_epochs", build_plan(warm=lambda share, total, epochs: round(share * epochs)))
plant(PLAN, "round to the nearest", "cut_off_warmup", build_plan(warm=lambda share, total, epochs: int(share * total)))
plant(PLAN, "not whole numbers of type int", "float_steps", build_plan(order=lambda rate, warm, total: (rate, float(warm), float(total))))
plant(PLAN, "three numbers are asked for", "without_rate", build_plan(order=lambda rate, warm, total: (warm, total)))
