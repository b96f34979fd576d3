"""The schedules of chapter 11 with one thing wrong each, by which `schedules` names a learner's mistake."""

from __future__ import annotations

import math
from typing import Any


def wrong_cosine(
    step: int, *, warmup_steps: int, total_steps: int, min_ratio: float = 0.0, start: int = 1, longer: int = 0,
    stretch: int = 0, floor: str = "right", over: str = "rest", clamp: bool = True, shape: str = "cosine",
) -> float:  # fmt: skip
    """The schedule with one thing wrong; with all defaults it is right."""
    if step < warmup_steps + longer and warmup_steps:
        return (step + start) / (warmup_steps + stretch)
    done, length = {
        "rest": (step - warmup_steps, total_steps - warmup_steps),
        "no shift": (step, total_steps),
        "too long": (step - warmup_steps, total_steps),
        "last": (step - warmup_steps, total_steps - warmup_steps - 1),
        "late": (step - warmup_steps + 1, total_steps - warmup_steps),
    }[over]
    progress = done / length if length else 1.0
    progress = min(progress, 1.0) if clamp else progress
    fall = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "quarter": math.cos(0.5 * math.pi * progress),
        "whole": 0.5 * (1 + math.cos(2 * math.pi * progress)),
        "degrees": 0.5 * (1 + math.cos(progress)),
        "rising": 0.5 * (1 - math.cos(math.pi * progress)),
        "unhalved": 1 + math.cos(math.pi * progress),
        "bare": math.cos(math.pi * progress),
    }[shape]
    floors = {"right": min_ratio + (1 - min_ratio) * fall, "none": fall, "added": min_ratio + fall}
    return {**floors, "max": max(min_ratio, fall), "scaled": (1 - min_ratio) * fall}[floor]


COSINE_MISTAKES: dict[str, dict[str, Any]] = {
    "begins the warmup at 0: the first update would not move a weight, (step + 1) / warmup_steps does": {"start": 0},
    "warms up one step too long (step <= warmup_steps): the ratio climbs above 1": {"longer": 1},
    "divides the warmup by warmup_steps + 1: the last of its steps is at 1": {"stretch": 1},
    "lets the cosine run over total_steps from the start: after the warmup the rate jumps down": {"over": "no shift"},
    "makes the cosine total_steps long: it has total_steps − warmup_steps, and never reaches its floor": {"over": "too long"},
    "reaches the floor one step early: at total_steps, not at total_steps − 1": {"over": "last"},
    "is one step ahead in the cosine: the first step after the warmup is at 1": {"over": "late"},
    "climbs again past total_steps: cap the progress at 1": {"clamp": False},
    "falls along a straight line": {"shape": "linear"},
    "takes a quarter of the cosine: half of it, from 0 to π, begins and ends flat": {"shape": "quarter"},
    "takes the whole cosine, down and up again: half of it ends at π": {"shape": "whole"},
    "leaves π out of the cosine": {"shape": "degrees"},
    "turns the cosine over: it rises after the warmup": {"shape": "rising"},
    "does not halve 1 + cos: the ratio begins at 2": {"shape": "unhalved"},
    "takes the bare cosine, which ends at −1: a negative rate climbs up the loss": {"shape": "bare"},
    "ignores min_ratio": {"floor": "none"},
    "adds min_ratio on top: the highest ratio is then more than 1": {"floor": "added"},
    "cuts the curve off at min_ratio: it should be squeezed between min_ratio and 1": {"floor": "max"},
    "multiplies by 1 − min_ratio but does not add min_ratio": {"floor": "scaled"},
}


def wrong_cycle(
    step: int, *, total_steps: int, rising: float, start_ratio: float, end_ratio: float, shift: int = 1, stay: bool = True,
    up: str = "cosine", down: str = "cosine", ends: str = "right", rising_fixed: bool = False, last_shift: int = 1, clip: bool = True,
) -> float:  # fmt: skip
    """The cycle with one thing wrong; with all defaults it is right."""
    rising = 0.3 if rising_fixed else rising
    last, top = total_steps - last_shift, rising * total_steps - shift
    top = max(top, 0) if clip else top
    low, high = {"right": (start_ratio, end_ratio), "swapped": (end_ratio, start_ratio), "back": (start_ratio, start_ratio),
                 "zero": (0.0, 0.0), "of the start": (start_ratio, start_ratio * end_ratio)}[ends]  # fmt: skip
    step = min(step, last) if stay else step
    if step > top:
        done = (step - top) / (last - top) if last > top else 1.0
        return high + (1 - high) * (1 - done if down == "linear" else 0.5 * (1 + math.cos(math.pi * done)))
    done = step / top if top else 1.0
    return low + (1 - low) * (done if up == "linear" else 0.5 * (1 - math.cos(math.pi * done)))


CYCLE_MISTAKES: dict[str, dict[str, Any]] = {
    "puts the top at step rising · total_steps: steps count from 0, so it is one earlier": {"shift": 0},
    "reaches the end at step total_steps: the last step of the run is total_steps − 1": {"last_shift": 0},
    "puts the top and the end one step late: steps count from 0": {"shift": 0, "last_shift": 0},
    "climbs again past the last step: hold the step at total_steps − 1": {"stay": False},
    "rises along a straight line": {"up": "linear"},
    "falls along a straight line": {"down": "linear"},
    "rises and falls along straight lines: both are half cosines": {"up": "linear", "down": "linear"},
    "swaps start_ratio and end_ratio": {"ends": "swapped"},
    "comes back to start_ratio: the end is end_ratio, far lower": {"ends": "back"},
    "begins and ends at 0: use start_ratio and end_ratio": {"ends": "zero"},
    "ends at start_ratio · end_ratio: end_ratio is a share of the highest rate": {"ends": "of the start"},
    "starts on the way down where rising leaves no step to climb: begin at the top": {"clip": False},
    "does not use rising: it always climbs for 0.3 of the run": {"rising_fixed": True},
}


class WrongPlateau:
    """The plateau rule with one thing wrong."""

    def __init__(
        self, rate: float, *, factor: float = 0.1, patience: int = 2, mode: str = "min", late: int = 1, strict: bool = True,
        reset: str = "both", fixed: str = "", best: str = "kept", nan: str = "bad", swap: bool = False, initial: bool = False,
        cut: str = "times", start: float = -math.inf,
    ) -> None:  # fmt: skip
        self.rate = self.first = rate
        self.factor = 0.1 if fixed == "factor" else factor
        self.patience = (2 if fixed == "patience" else patience) + late
        mode = "min" if fixed == "mode" else mode
        self.sign = (1 if mode == "max" else -1) * (-1 if swap else 1)
        self.best, self.bad, self.cuts = start if mode == "max" else -math.inf, 0, 0
        self.strict, self.reset, self.keep, self.nan, self.initial, self.cut = strict, reset, best, nan, initial, cut

    def step(self, metric: float) -> float:
        value = self.sign * metric
        better = value > self.best or (not self.strict and value == self.best)
        if self.nan == "good":
            better = not value <= self.best
        if better:
            self.best = value
            self.bad = self.bad if self.reset in ("after cut", "never") else 0
        elif not (math.isnan(metric) and self.nan == "skipped"):
            self.bad += 1
        if self.keep == "last" and not math.isnan(metric):
            self.best = value
        if self.bad >= self.patience:
            self.cuts += 1
            self.rate = self.first * self.factor if self.initial else self.rate * (1 - self.factor if self.cut == "minus" else self.factor)
            self.bad = self.bad if self.reset in ("better", "never") else 0
        return self.rate


PLATEAU_MISTAKES: dict[str, dict[str, Any]] = {
    "cuts after `patience` bad epochs: patience are forgiven, the next one cuts": {"late": 0},
    "waits one epoch too long: it cuts once more than patience epochs in a row were bad": {"late": 2},
    "takes an equal metric for an improvement": {"strict": False},
    "does not begin to count anew after a cut: it then cuts every epoch": {"reset": "better"},
    "does not begin to count anew after an improvement: the bad epochs need not be in a row": {"reset": "after cut"},
    "ignores factor": {"fixed": "factor"},
    "ignores patience": {"fixed": "patience"},
    "ignores mode: it always waits for a lower metric": {"fixed": "mode"},
    "has the modes the wrong way round: under 'min' a lower metric is better": {"swap": True},
    "compares with the epoch before: compare with the best one so far": {"best": "last"},
    "takes NaN for an improvement: no comparison with NaN is True": {"nan": "good"},
    "does not count an epoch whose metric is NaN: it is a bad one": {"nan": "skipped"},
    "cuts from the first rate each time: cut the current rate": {"initial": True},
    "multiplies by 1 − factor: the new rate is factor · rate": {"cut": "minus"},
    "begins with a best of 0 under 'max': metrics can be negative, begin with −∞": {"start": 0.0},
}

def wrong_plan(
    samples: int, batch_size: int, *, epochs: int, accumulate: int = 1, rate: float, rate_batch: int, warmup: float = 0.1,
    batches: str = "ceil", windows: str = "ceil", scale: str = "linear", warm: str = "total",
) -> tuple[float, int, int]:  # fmt: skip
    number = {"ceil": math.ceil, "floor": math.floor}[batches](samples / batch_size)
    windows_of = {"ceil": math.ceil(number / accumulate), "floor": number // accumulate, "none": number}
    total = epochs * windows_of[windows] if windows != "over" else math.ceil(epochs * number / accumulate)
    factor = batch_size * accumulate / rate_batch
    scaled = {"linear": factor, "none": 1.0, "batch": batch_size / rate_batch, "root": math.sqrt(factor), "inverse": 1 / factor}
    share = {"total": round(warmup * total), "epoch": round(warmup * total / epochs), "down": int(warmup * total), "epochs": round(warmup * epochs)}
    return rate * scaled[scale], share[warm], total


PLAN_MISTAKES: dict[str, dict[str, Any]] = {
    "leaves out the short last batch: 100 samples in batches of 30 are 4 batches": {"batches": "floor"},
    "leaves out the short last window: 7 batches, 2 an update, are 4 updates": {"windows": "floor"},
    "counts batches: with accumulation several of them make one update": {"windows": "none"},
    "lets a window reach into the next epoch: each epoch ends with an update": {"windows": "over"},
    "does not scale the rate": {"scale": "none"},
    "scales the rate with batch_size alone: accumulate batches make one update": {"scale": "batch"},
    "scales the rate with the square root: the linear rule is asked for": {"scale": "root"},
    "scales the rate the wrong way round: a larger batch takes a larger rate": {"scale": "inverse"},
    "takes the warmup's share of one epoch: it is a share of all updates": {"warm": "epoch"},
    "takes the warmup's share of the epochs, not of the updates": {"warm": "epochs"},
    "cuts the warmup's steps off: round to the nearest": {"warm": "down"},
}
