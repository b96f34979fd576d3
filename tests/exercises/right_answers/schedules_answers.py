"""Right answers to the exercises on learning-rate schedules, in other styles than the references'."""

import math

import numpy as np
import torch
from planting import right_answer
from torch import nn
from torch.optim import lr_scheduler

from dlcourse.training import schedules


def optimizer(rate=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)


def rate_after(scheduler, steps):
    for _ in range(steps):
        scheduler.optimizer.step()
        scheduler.step()
    return scheduler.get_last_lr()[0]


@right_answer("schedules.warmup_cosine")
def cosine_in_numpy(step, *, warmup_steps, total_steps, min_ratio=0.0):
    xs = np.clip((step - warmup_steps) / (total_steps - warmup_steps), 0, 1)
    cosine = min_ratio + (1 - min_ratio) * np.cos(np.pi * xs / 2) ** 2  # half of 1 + cos 2a is cos² a
    return np.where(step < warmup_steps, (step + 1) / max(warmup_steps, 1), cosine)


@right_answer("schedules.warmup_cosine")
def cosine_of_torch(step, *, warmup_steps, total_steps, min_ratio=0.0):
    if step < warmup_steps:
        return torch.tensor((step + 1) / warmup_steps, dtype=torch.float64)
    length = total_steps - warmup_steps
    return rate_after(lr_scheduler.CosineAnnealingLR(optimizer(), length, eta_min=min_ratio), min(step - warmup_steps, length))


@right_answer("schedules.warmup_cosine")
def cosine_with_early_returns(step, warmup_steps, total_steps, min_ratio=0.0):
    step += 1
    if step <= warmup_steps:
        return step / warmup_steps
    if step > total_steps:
        return min_ratio
    angle = math.pi * (step - 1 - warmup_steps) / (total_steps - warmup_steps)
    return (1 + min_ratio) / 2 + (1 - min_ratio) / 2 * math.cos(angle)


@right_answer("schedules.one_cycle")
def cycle_of_torch(step, *, total_steps, rising, start_ratio, end_ratio):
    step = min(step, total_steps - 1)
    if rising * total_steps <= 1:
        return schedules.one_cycle(step, total_steps=total_steps, rising=0, start_ratio=start_ratio, end_ratio=end_ratio)
    cycle = lr_scheduler.OneCycleLR(
        optimizer(), max_lr=1.0, total_steps=total_steps, pct_start=rising, cycle_momentum=False,
        div_factor=1 / start_ratio, final_div_factor=start_ratio / end_ratio,
    )  # fmt: skip
    return rate_after(cycle, step)


@right_answer("schedules.one_cycle")
def cycle_between_knots(step, total_steps, rising, start_ratio, end_ratio):
    top = max(0.0, rising * total_steps - 1)
    knots = [(-1.0 if top == 0 else 0.0, start_ratio), (top, 1.0), (max(total_steps - 1, top + 1e-9), end_ratio)]
    step = min(step, total_steps - 1)
    (left, low), (right, high) = knots[:2] if step <= top else knots[1:]
    weight = math.sin(math.pi / 2 * (step - left) / (right - left)) ** 2
    return torch.lerp(torch.tensor(low).double(), torch.tensor(high).double(), weight).item()


@right_answer("schedules.one_cycle")
def cycle_as_a_table(step, *, total_steps, rising, start_ratio, end_ratio):
    steps = np.arange(total_steps, dtype=float)
    top = max(rising * total_steps - 1, 0)
    up = start_ratio + (1 - start_ratio) * (1 - np.cos(np.pi * steps / (top or np.inf))) / 2
    down = end_ratio + (1 - end_ratio) * (1 + np.cos(np.pi * (steps - top) / max(total_steps - 1 - top, 1e-12))) / 2
    table = np.where(steps <= top, up if top else 1.0, down)
    return table[min(step, total_steps - 1)]


@right_answer("schedules.plateau")
class PlateauOfTorch:
    def __init__(self, rate, *, factor=0.1, patience=2, mode="min"):
        self.optimizer = optimizer(rate)
        self.scheduler = lr_scheduler.ReduceLROnPlateau(self.optimizer, mode, factor, patience, threshold=0, eps=0)

    def step(self, metric):
        self.scheduler.step(metric)
        return self.optimizer.param_groups[0]["lr"]


@right_answer("schedules.plateau")
class PlateauOfAllMetrics:
    def __init__(self, rate, *, factor=0.1, patience=2, mode="min"):
        if mode != "min" and mode != "max":
            raise ValueError("mode")
        self.metrics, self.cut, self.rate = [], -1, rate
        self.factor, self.patience, self.pick = factor, patience, np.nanargmin if mode == "min" else np.nanargmax

    def step(self, metric):
        self.metrics.append(metric)
        best = -1 if np.isnan(self.metrics).all() else int(self.pick(self.metrics))
        if len(self.metrics) - 1 - max(best, self.cut) > self.patience:
            self.rate, self.cut = np.float64(self.rate * self.factor), len(self.metrics) - 1
        return self.rate


@right_answer("schedules.plateau")
def plateau_of_closures(rate, *, factor=0.1, patience=2, mode="min"):
    better = {"min": float.__lt__, "max": float.__gt__}
    if mode not in better:
        raise ValueError(mode)
    state = {"best": None, "left": patience, "rate": rate}

    class Rule:
        @staticmethod
        def step(metric):
            metric = float(metric)
            if not math.isnan(metric) and (state["best"] is None or better[mode](metric, state["best"])):
                state.update(best=metric, left=patience)
            elif state["left"] == 0:
                state.update(rate=state["rate"] * factor, left=patience)
            else:
                state["left"] -= 1
            return torch.tensor(state["rate"], dtype=torch.float64)

    return Rule()


@right_answer("schedules.plan")
def plan_with_integers(samples, batch_size, *, epochs, accumulate=1, rate, rate_batch, warmup=0.1):
    batches = (samples + batch_size - 1) // batch_size
    updates = epochs * ((batches + accumulate - 1) // accumulate)
    return [rate / rate_batch * batch_size * accumulate, round(updates * warmup), updates]


@right_answer("schedules.plan")
def plan_by_counting(samples, batch_size, *, epochs, accumulate=1, rate, rate_batch, warmup=0.1):
    updates = 0
    for _ in range(epochs):
        batches = range(0, samples, batch_size)
        updates += len(batches[::accumulate])
    return np.float64(rate) * batch_size * accumulate / rate_batch, round(warmup * updates), updates


@right_answer("schedules.plan")
def plan_in_one_division(samples, batch_size, epochs, rate, rate_batch, accumulate=1, warmup=0.1):
    an_update = batch_size * accumulate
    total = epochs * math.ceil(samples / an_update)
    return rate * an_update / rate_batch, int(warmup * total + 0.5), total
