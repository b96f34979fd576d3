"""Each healthy training trained for some sixty steps by its own optimizer: does it learn?

    python tests/clinic/healthy_learn.py [pattern] [--seed 0]

Prints the mean loss over the data before and after, in training mode. The exit status is 1 unless each falls by a tenth;
a model that was trained before may stay where it is, if it is right about nine in ten.
"""

from __future__ import annotations

import argparse
import copy
import sys

import torch
from healthy import HEALTHY
from patients import Case, Training, sgd

from dlcourse.runtime import progress

STEPS = 60


@torch.no_grad()
def state_of(training: Training) -> tuple[float, float]:
    """The mean loss over the data and the share of right answers (NaN when there are no classes)."""
    model = copy.deepcopy(training.model)  # batch norm moves its statistics in training mode
    loss = right = samples = 0.0
    for x, y in training.loader:
        outputs = model(x)
        loss += float(training.loss_fn(outputs, y)) * len(y)
        labels = outputs.ndim == 2 and y.ndim == 1 and not y.is_floating_point()
        right += float((outputs.argmax(1) == y).sum()) if labels else float("nan")
        samples += len(y)
    return loss / samples, right / samples


def learn(case: Case, seed: int) -> tuple[float, float, float, int]:
    """The loss before and after, the accuracy before, and the steps taken: more when the batches are small."""
    training = case.build(seed)
    optimizer = training.optimizer or sgd(training.model)
    before, accuracy = state_of(training)
    size = len(next(iter(training.loader))[1])
    steps, done = STEPS * min(max(32 // size, 1), 8), 0
    while done < steps:
        for x, y in training.loader:
            optimizer.zero_grad()
            training.loss_fn(training.model(x), y).backward()
            optimizer.step()
            if training.scheduler is not None:
                training.scheduler.step()
            done += 1
            if done == steps:
                break
    return before, state_of(training)[0], accuracy, steps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cases = [case for case in HEALTHY if options.pattern in case.name]
    failed = 0
    for case in progress(cases, "learning"):
        before, after, accuracy, steps = learn(case, options.seed)
        learnt = after < 0.9 * before or (accuracy > 0.9 and after < 1.1 * before)
        failed += not learnt
        print(f"{'✓' if learnt else '✗'} {case!s:50s} {before:9.4f} → {after:9.4f} in {steps} steps")
    print(f"{len(cases) - failed} of {len(cases)} learn")
    return int(failed > 0 or not cases)


if __name__ == "__main__":
    sys.exit(main())
