"""Every check accepts its reference and right answers in other styles, names every planted mistake, survives any answer."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from planting import planted, right_answers

from dlcourse.exercises import examine
from dlcourse.exercises.registry import all_exercises

for folder in ("mistakes", "right_answers"):
    for path in sorted(Path(__file__).with_name(folder).glob("*.py")):
        runpy.run_path(str(path))

EXERCISES = all_exercises()
LEAST_MISTAKES = 5
LEAST_RIGHT_ANSWERS = 2


def raises(*args, **kwargs):
    raise RuntimeError("an answer that raises")


def returns_none(*args, **kwargs):
    return None


def leaves(*args, **kwargs):
    raise SystemExit


def wrong_shape(*args, **kwargs):
    return torch.zeros(7, 3, 1, 2)


def indexes_too_far(*args, **kwargs):
    return [args[0][i][j][k] for i in range(99) for j in range(99) for k in range(99)]


def changes_its_input(*args, **kwargs):
    for value in args:
        if isinstance(value, torch.Tensor):
            with torch.no_grad():
                value.zero_()
        elif isinstance(value, np.ndarray):
            value[...] = 0
        elif isinstance(value, list):
            value.clear()
    return torch.zeros(2)


def stub(*args, **kwargs):
    raise NotImplementedError


HOSTILE = [raises, returns_none, leaves, wrong_shape, indexes_too_far, changes_its_input, None, 42, "text", object()]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_reference_is_right(name):
    verdict = examine(name, EXERCISES[name].reference)
    assert verdict.status == "right", verdict.message
    assert len(verdict.message) > len("right. Verified: ")


@pytest.mark.parametrize("mistake", planted, ids=lambda mistake: mistake.id)
def test_a_planted_mistake_is_named(mistake):
    verdict = examine(mistake.exercise, mistake.answer)
    assert verdict.status == "wrong"
    assert re.search(mistake.says, verdict.message), verdict.message


@pytest.mark.parametrize("name", EXERCISES)
def test_each_exercise_has_mistakes_and_no_two_are_called_the_same(name):
    says = [mistake.says for mistake in planted if mistake.exercise == name]
    assert len(says) >= LEAST_MISTAKES
    assert len(set(says)) == len(says)


@pytest.mark.parametrize("right", right_answers, ids=lambda right: right.id)
def test_a_right_answer_in_another_style_is_right(right):
    verdict = examine(right.exercise, right.answer)
    assert verdict.status == "right", verdict.message


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_has_right_answers_in_other_styles(name):
    assert sum(right.exercise == name for right in right_answers) >= LEAST_RIGHT_ANSWERS


def test_everything_planted_answers_an_exercise():
    assert {answer.exercise for answer in (*planted, *right_answers)} <= set(EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("unsolved", [stub, ...], ids=["stub", "ellipsis"])
def test_the_stub_is_not_called_wrong(name, unsolved):
    verdict = examine(name, unsolved)
    assert verdict.status == "not attempted"
    assert verdict.message == f'not attempted yet: hint("{name}")'


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("answer", HOSTILE, ids=lambda a: getattr(a, "__name__", type(a).__name__))
def test_any_answer_gets_a_verdict_without_a_traceback(name, answer, capsys):
    verdict = examine(name, answer)
    assert verdict.status == "wrong"
    assert "Traceback" not in verdict.message
    assert "dlcourse/exercises" not in verdict.message
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", EXERCISES)
def test_an_answer_that_prints_is_judged_by_its_result(name, capsys):
    reference = EXERCISES[name].reference
    if isinstance(reference, type):
        class Printing(reference):
            def __init__(self, *args, **kwargs):
                print("building")
                super().__init__(*args, **kwargs)
    else:
        def Printing(*args, **kwargs):
            print("called")
            return reference(*args, **kwargs)
    assert examine(name, Printing).status == "right"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", EXERCISES)
def test_checking_leaves_the_seeds_alone(name):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    examine(name, EXERCISES[name].reference)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
