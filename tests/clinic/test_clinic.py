"""The doctor finds each planted fault, raises no alarm over a training that learns, and leaves every one as it was."""

import random
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from faults import FAULTS
from healthy import HEALTHY
from traces import changes, snapshot

from dlcourse.diagnostics import CODES, diagnose

PER_CODE = 1  # faults of one code that run every time; the others bear the mark "clinic" (-m clinic; confusion.py: all)


def with_marks(cases):
    seen = Counter()
    for case in cases:
        seen[case.codes] += 1
        marks = [pytest.mark.clinic] if seen[case.codes] > PER_CODE else []
        yield pytest.param(case, id=case.name, marks=marks)


def examine(case):
    """The report of a training; nothing of the training may have changed."""
    training = case.build()
    before = snapshot(training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a broken training may warn, as torch does of a broadcast loss
        report = diagnose(
            training.model, training.loader, training.loss_fn, training.optimizer, val_loader=training.val_loader
        )
    assert changes(before, snapshot(training)) == []
    assert [note for note in report.notes if "Error" in note] == []
    return report


@pytest.mark.parametrize("case", list(with_marks(FAULTS)))
def test_a_fault_is_among_the_first_findings(case):
    report = examine(case)
    found = [finding.code for finding in report.findings]
    first = found[: 1 + len(case.codes)]  # two for one fault, three for two
    assert set(case.codes) <= set(first), f"planted {', '.join(case.codes)}, found {found}\n{report}"


@pytest.mark.parametrize("case", HEALTHY, ids=str)
def test_a_training_that_learns_raises_no_alarm(case):
    report = examine(case)
    assert [finding for finding in report.findings if finding.severity == "error"] == [], str(report)
    assert report.healthy


def test_every_code_is_planted():
    planted = Counter(code for case in FAULTS for code in case.codes)
    assert set(planted) == set(CODES)


def test_every_training_has_a_name_of_its_own():
    names = Counter(case.name for case in [*FAULTS, *HEALTHY])
    assert [name for name, count in names.items() if count > 1] == []


def _step(training):
    for x, y in training.loader:
        training.loss_fn(training.model(x), y).backward()
        training.optimizer.step()
        return


VANDALS = {
    "weights": lambda made: made.model.head.weight.data[0, 0].add_(1e-6),
    "buffers": lambda made: made.model.features[1].running_mean.add_(1e-6),
    "gradients": lambda made: made.model(torch.ones(4, 1, 16, 16)).sum().backward(),
    "mode of one layer": lambda made: made.model.features[1].eval(),
    "requires_grad": lambda made: made.model.head.bias.requires_grad_(False),
    "hook of a module": lambda made: made.model.head.register_forward_hook(lambda *_: None),
    "hook of a parameter": lambda made: made.model.head.weight.register_hook(lambda gradient: gradient),
    "forward replaced": lambda made: setattr(made.model.head, "forward", made.model.head.forward),
    "parameter replaced": lambda made: made.model.load_state_dict(made.model.state_dict(), assign=True),
    "optimizer's state": _step,
    "learning rate": lambda made: made.optimizer.param_groups[0].update(lr=0.1),
    "torch's random numbers": lambda made: torch.rand(1),
    "python's random numbers": lambda made: random.random(),
    "numpy's random numbers": lambda made: np.random.rand(),  # noqa: NPY002
    "the loader's order": lambda made: next(iter(made.loader)),
    "data": lambda made: made.loader.dataset.tensors[0][3].mul_(2),
}


@pytest.mark.parametrize("change", VANDALS)
def test_a_trace_is_seen(change):
    training = next(case for case in HEALTHY if case.name == "held_out_images_for_validation").build()
    training.model.features.requires_grad_(True)
    before = snapshot(training)
    assert changes(before, snapshot(training)) == []
    VANDALS[change](training)
    assert changes(before, snapshot(training))
