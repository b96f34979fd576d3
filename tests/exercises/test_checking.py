"""The mechanism of the exercises: find, examine, check, hint and solution; Answer, compare and describe."""

import copy
import inspect
import random
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from dlcourse.exercises import check, examine, hint, registry, solution
from dlcourse.exercises.checking import Answer, Mistake, NotAttempted, compare, describe


def double(x):
    return 2 * x


def check_double(answer):
    for x in (torch.tensor([3.0]), torch.randn(2, 5)):
        compare(answer(x), 2 * x, given=describe(x), mistakes={"adds 2": x + 2, "needs two axes": partial(x.sum, 1)})
    return "two shapes"


HINTS = ("Think.", "Think of a factor.", "2 * x")


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """An exercise of its own, in a registry that is put back afterwards."""
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_hints_given", {})
    add("made_up.double")


def add(name, reference=double, verify=check_double, *, difficulty=1, importance=5, hints=HINTS):
    registry.register(
        name, reference, verify, difficulty=difficulty, importance=importance, minutes=3, hints=hints
    )


def message_of(function, *args, **kwargs):
    with pytest.raises(Mistake) as caught:
        function(*args, **kwargs)
    return str(caught.value)


# registry


def test_an_unknown_exercise_names_the_nearest():
    with pytest.raises(ValueError, match=r"there is no exercise 'made_up.duoble'; did you mean 'made_up.double'"):
        registry.find("made_up.duoble")


def test_an_exercise_far_from_all_names_lists_them():
    with pytest.raises(ValueError, match=r"'made_up\.double'"):
        registry.find("zzz")


def test_all_exercises_are_in_order_of_topic():
    add("later.first")
    add("made_up.second")
    add("later.second")
    own = [name for name in registry.all_exercises() if name.startswith(("made_up", "later"))]
    assert own == ["later.first", "later.second", "made_up.double", "made_up.second"]


def test_find_imports_the_topic(monkeypatch):
    imported = []
    monkeypatch.setattr(registry, "topics", lambda: ["made_up", "other"])
    monkeypatch.setattr(registry.importlib, "import_module", imported.append)
    assert registry.find("made_up.double").reference is double
    assert imported == ["dlcourse.exercises.made_up"]


def test_the_machinery_is_not_a_topic():
    assert not {"registry", "checking"} & set(registry.topics())


def test_a_reload_may_register_again_but_another_exercise_may_not():
    add("made_up.double")
    with pytest.raises(ValueError, match=r"'made_up\.double' is registered twice"):
        add("made_up.double", verify=lambda answer: "another check")


@pytest.mark.parametrize("wrong", [{"difficulty": 0}, {"difficulty": 6}, {"importance": 0}, {"importance": 6}])
def test_grades_run_from_1_to_5(wrong):
    with pytest.raises(ValueError, match="must lie in 1 … 5"):
        add("made_up.other", **wrong)


def test_one_hint_is_too_few():
    with pytest.raises(ValueError, match="1 hint"):
        add("made_up.other", hints=("only one",))


def test_hints_come_one_by_one_and_stay_at_the_last(capsys):
    for level in (1, 2, 3, 3):
        hint("made_up.double")
        first, after = capsys.readouterr().out.splitlines()
        assert first == f"Hint {level} of 3: {HINTS[level - 1]}"
        assert after == ('(after this: solution("made_up.double"))' if level == 3 else '(next: hint("made_up.double"))')


def test_a_certain_hint_can_be_asked_for(capsys):
    hint("made_up.double", level=2)
    assert capsys.readouterr().out.startswith("Hint 2 of 3")
    hint("made_up.double")
    assert capsys.readouterr().out.startswith("Hint 3 of 3")
    for level in (0, 4):
        with pytest.raises(ValueError, match=f"has hints 1 to 3, not {level}"):
            hint("made_up.double", level=level)


def test_the_solution_is_the_source_of_the_reference(capsys):
    solution("made_up.double")
    assert capsys.readouterr().out.strip() == inspect.getsource(double).strip()


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (double, "made_up.double: right. Verified: two shapes"),
        (..., 'made_up.double: not attempted yet: hint("made_up.double")'),
        (
            lambda x: x + 2,
            "made_up.double: not yet. It adds 2. Given tensor [3.0] (float32), the result is 5 at [0] where 6 is\n"
            "expected.",
        ),
    ],
)
def test_check_prints_one_verdict(answer, line, capsys):
    check("made_up.double", answer)
    assert capsys.readouterr() == (f"{line}\n", "")


def test_a_check_that_an_answer_breaks_ends_in_a_verdict():
    def careless(answer):
        raise TypeError("first line\nsecond line")

    add("made_up.careless", verify=careless)
    verdict = examine("made_up.careless", double)
    assert verdict.status == "wrong"
    assert verdict.message == "not yet. The answer cannot be used as asked: TypeError: first line"


@pytest.mark.parametrize("wrong", [False, True])
def test_examine_leaves_every_generator_alone_and_is_repeatable(wrong):
    def draws(x):
        seen.append((torch.rand(1).item(), random.random(), np.random.rand()))  # noqa: NPY002
        return x if wrong else 2 * x

    seen = []
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    expected = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    assert examine("made_up.double", draws).status == ("wrong" if wrong else "right")
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected  # noqa: NPY002
    examine("made_up.double", draws)
    half = len(seen) // 2
    assert [drawn[0] for drawn in seen[:half]] == [drawn[0] for drawn in seen[half:]]


def test_examine_works_inside_no_grad_and_restores_it():
    def needs_grad(answer):
        x = torch.tensor(3.0, requires_grad=True)
        answer(x).backward()
        compare(x.grad, torch.tensor(2.0), given="x")
        return "the gradient"

    add("made_up.grad", verify=needs_grad)
    with torch.no_grad():
        assert examine("made_up.grad", double).status == "right"
        assert not torch.is_grad_enabled()


# Answer


def test_an_answer_is_called_like_the_original():
    assert Answer(lambda a, *, b: a - b)(5, b=2) == 3


@pytest.mark.parametrize("value", [42, "text", None, torch.zeros(2)])
def test_a_value_cannot_be_called(value):
    assert "where a function or class is asked for" in message_of(Answer(value))


def test_a_stub_in_any_form_is_not_attempted():
    def stub(x):
        raise NotImplementedError

    class Stub(nn.Module):
        def __init__(self):
            raise NotImplementedError

    with pytest.raises(NotAttempted):
        Answer(...)
    for unsolved in (stub, Stub, lambda x: ...):
        with pytest.raises(NotAttempted):
            Answer(unsolved)(*(() if unsolved is Stub else (1,)))


def test_torchs_own_not_implemented_is_a_mistake():
    class NoForward(nn.Module):
        pass

    assert "It raises NotImplementedError for 1: " in message_of(Answer(NoForward)(), 1)


def test_an_exception_is_reported_with_the_arguments_and_its_first_line():
    def fails(x, times):
        raise KeyError("lost\nin detail")

    assert message_of(Answer(fails), 3, times=2) == "It raises KeyError for 3, times=2: 'lost\\nin detail'"

    def silent(x):
        raise SystemExit

    assert message_of(Answer(silent), 3) == "It raises SystemExit for 3: (no message)"


def test_a_keyboard_interrupt_is_not_swallowed():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Answer(interrupted)()


def test_none_is_a_mistake():
    assert message_of(Answer(lambda x: None), 3) == "It returns None for 3. Is a `return` missing?"


def test_prints_and_warnings_are_swallowed(capsys):
    def prints(x):
        print("hello")
        print("careful", file=sys.stderr)
        warnings.warn("take care", stacklevel=1)
        return x

    with warnings.catch_warnings(record=True) as caught:
        assert Answer(prints)(1) == 1
    assert caught == []
    assert capsys.readouterr() == ("", "")


def set_first(x):
    x[0] = 7
    return x


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([1.0, 2.0]), torch.tensor([1, 2]), torch.tensor([True, True]) ^ True, torch.tensor([float("nan"), 1.0]),
        np.array([1.0, 2.0]), np.array([float("nan"), 1.0]), [1, 2], {0: 1},
        torch.tensor([1 + 2j]),
    ],
)  # fmt: skip
def test_a_changed_input_is_a_mistake(value):
    untouched = copy.deepcopy(value)
    assert Answer(len)(untouched) == len(value)
    assert "It changes its input" in message_of(Answer(set_first), value)


def test_changes_are_seen_in_nested_and_named_arguments():
    def nested(pair, *, batch):
        batch["images"][0].mul_(2)
        return 1

    assert "It changes its input" in message_of(Answer(nested), (1, 2), batch={"images": [torch.ones(2)]})

    def replaces(items):
        items[0] = torch.zeros(1)
        return 1

    assert "It changes its input" in message_of(Answer(list.pop), [1, 2])
    assert "It changes its input" in message_of(Answer(replaces), [1, 2])
    assert Answer(len)([1, 2.0, "a", None, double, (3, [4])]) == 6


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (partial(torch.set_grad_enabled, False), "torch.is_grad_enabled() at False"),
        (partial(torch.set_default_dtype, torch.float64), "torch.get_default_dtype() at torch.float64"),
        (partial(torch.manual_seed, 0), "torch.initial_seed() at 0"),
    ],
)
@pytest.mark.parametrize("raises", [True, False])
def test_a_global_setting_left_changed_is_a_mistake_and_is_put_back(change, left, raises):
    def leaves_it(x):
        change()
        return 1 // (not raises)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        message = message_of(Answer(leaves_it), torch.ones(1))
        assert torch.initial_seed() == 5
    assert message.startswith("It raises ZeroDivisionError" if raises else f"It leaves {left} for whatever runs next")
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_a_class_gives_a_module_that_is_an_answer_again():
    class Faulty(nn.Linear):
        def forward(self, x):
            raise RuntimeError("no forward today")

    module = Answer(Faulty)(2, 3)
    assert isinstance(module, Answer)
    assert module.in_features == 2
    assert message_of(module, torch.zeros(1, 2)).startswith("It raises RuntimeError")


def test_a_missing_attribute_is_a_mistake_and_hasattr_works():
    answer = Answer(nn.ReLU())
    assert message_of(lambda: answer.weight) == "The answer has no `weight`."
    assert not hasattr(answer, "weight")
    assert hasattr(answer, "forward")


def test_an_answer_can_be_copied():
    linear = nn.Linear(2, 2)
    assert torch.equal(copy.deepcopy(Answer(linear)).weight, linear.weight)


# compare

NAN = float("nan")


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN])),
        (torch.tensor([1.0], requires_grad=True), torch.tensor([1.0])),
        (nn.Parameter(torch.ones(2)), torch.ones(2)),
        (torch.tensor([1.0 + 1e-6]), torch.tensor([1.0])),
        (torch.empty(0, 3), torch.empty(0, 3)),
        (torch.tensor([1 + 2j]), torch.tensor([1 + 2j])),
        (np.array([1, 2]), np.array([1, 2])),
        (3, 3.0), (np.float32(0.5), 0.5), (torch.tensor(0.5, requires_grad=True), 0.5), (NAN, NAN),
        ("a", "a"), (True, True), (np.True_, True), (None, None),
        ((1, torch.ones(2)), [1, torch.ones(2)]),
        ({"a": 1}, {"a": 1}),
    ],
)  # fmt: skip
def test_equal_things_pass_without_a_warning(got, want):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(got, want, given="x")


@pytest.mark.parametrize(
    ("got", "want", "says"),
    [
        (torch.ones(2), torch.ones(1, 2), "has shape (2,) where (1, 2) is expected."),
        (torch.ones(2), torch.ones(2).double(), "has dtype torch.float32 where torch.float64 is expected."),
        (torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.5]]), "is 2 at [0, 1] where 2.5 is expected."),
        (torch.tensor(1), torch.tensor(2), "is 1 where 2 is expected."),
        (torch.tensor(1.0), torch.tensor(1.00001), "is 1 where 1.00001 is expected."),
        (1.00001, 1.00002, "is 1.00001 where 1.00002 is expected."),
        (torch.tensor([NAN]), torch.tensor([1.0]), "is nan at [0] where 1 is expected."),
        (torch.tensor([1 + 2j]), torch.tensor([1 + 3j]), "is 1+2j at [0] where 1+3j is expected."),
        ([1.0], torch.tensor([1.0]), "is [1.0], not a Tensor."),
        (torch.ones(1), np.ones(1, dtype=np.float32), "is tensor [1.0] (float32), not an ndarray."),
        (np.array([1, 2]), np.array([1, 3]), "is 2 at [1] where 3 is expected."),
        (np.array([1.0]), np.array([1]), "has dtype float64 where int64 is expected."),
        (2, 3, "is 2 where 3 is expected."),
        (torch.ones(2), 1.0, "is tensor [1.0, 1.0] (float32) where 1.0 is expected."),
        ("3", 3, "is '3' where 3 is expected."),
        (True, 1, "is True where 1 is expected."),
        (1, True, "is 1 where True is expected."),
        (b"a", "a", "is b'a' where 'a' is expected."),
        (0, None, "is 0 where None is expected."),
        ((1,), (1, 2), "has 1 elements where 2 are expected."),
        ((1, torch.ones(1)), (1, torch.zeros(1)), "at [1] is 1 at [0] where 0 is expected."),
        ((1, torch.ones(1)), 3, "is tuple of (1, tensor [1.0] (float32)) where 3 is expected."),
        ({"b": 1}, {"a": 1}, "has the keys ['b'] where ['a'] are expected."),
        ({"a": [1, 2]}, {"a": [1, 3]}, "at ['a'] at [1] is 2 where 3 is expected."),
        ([1], {"a": 1}, "is [1] where {'a': 1} is expected."),
    ],
)
def test_a_difference_is_said_in_one_sentence(got, want, says):
    assert message_of(compare, got, want, given="x", what="the sum", rtol=1e-6, atol=1e-6) == f"Given x, the sum {says}"


def test_the_first_mistake_that_matches_is_named_and_the_rest_not_computed():
    def raises():
        raise IndexError("this mistake cannot be made here")

    def not_needed():
        raise AssertionError("computed without need")

    mistakes = {"raises": raises, "is off by one": 4, "adds one": lambda: not_needed()}
    assert message_of(compare, 4, 3, given="x", mistakes=mistakes).startswith("It is off by one. Given x")
    compare(3, 3, given="x", mistakes={"never": not_needed})
    assert message_of(compare, 5, 3, given="x", mistakes={"adds one": 4}).startswith("Given x")
    assert message_of(compare, [1.0], torch.ones(1), given="x", mistakes={"gives a list": [1.0]}) == (
        "It gives a list. Given x, the result is [1.0], not a Tensor."
    )


def test_the_tolerances_can_be_tightened():
    compare(1.00001, 1.0, given="x")
    message_of(compare, 1.00001, 1.0, given="x", rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.tensor([1, 2]), "tensor [1, 2] (int64)"),
        (torch.tensor(0.123456), "tensor 0.1235 (float32)"),
        (np.zeros((1, 2)), "array [[0.0, 0.0]] (float64)"),
        (torch.zeros(3, 5), "a float32 tensor of shape (3, 5)"),
        (torch.zeros(2, dtype=torch.bfloat16), "a bfloat16 tensor of shape (2,)"),
        (nn.ReLU(), "a ReLU module"),
        (nn.ReLU, "the class ReLU"),
        (double, "the function double"),
        (0.3333333, "0.3333"),
        ([torch.zeros(1), 2], "list of (tensor [0.0] (float32), 2)"),
        ("x" * 200, "'" + "x" * 76 + "..."),
    ],
)
def test_describe_puts_arguments_into_words(value, words):
    assert describe(value) == words
    assert describe(1, key=value) == f"1, key={words}"


def test_describe_nothing():
    assert describe() == "no arguments"
