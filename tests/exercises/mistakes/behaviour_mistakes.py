"""Wrong answers to the exercise on tests for models."""

import torch
from planting import mistake

NAMES = ["repeats", "alone", "untouched", "invariant"]


def near(a, b):
    return torch.allclose(a, b, atol=1e-4)


def stays(outputs, changed, share):
    return bool((outputs.argmax(1) == changed.argmax(1)).double().mean() >= share)


def each_alone(model, images, copy):
    return torch.cat([model(copy(images[i : i + 1])) for i in range(len(images))])


def ask(
    model, images, change, share, *, prepare=lambda model: model.eval(), restore=True, record=False, copy=torch.clone, repeats=near,
    alone=lambda outputs, alone: near(outputs, alone), ask_alone=each_alone, invariant=stays, report=lambda failed: failed,
    untouched=torch.equal, changed_of=lambda model, change, images, outputs: model(change(images.clone())),
):  # fmt: skip
    """A right answer with one part replaced."""
    was = model.training
    prepare(model)
    with torch.set_grad_enabled(record):
        before = images.clone()
        given = copy(images)
        outputs = model(given)
        again = model(copy(images))
        singles = ask_alone(model, images, copy)
        changed = changed_of(model, change, images, outputs)
    if restore:
        model.train(was)
    passed = [repeats(outputs, again), alone(outputs, singles), untouched(given, before), invariant(outputs, changed, share)]
    failed = [name for name, good in zip(NAMES, passed, strict=True) if not good]
    if given is images:
        with torch.no_grad():
            images.copy_(before)  # so that only the list tells
    return report(failed)


def planted(says, **parts):
    def plant(function):
        def answer(model, images, change, *, share=0.9):
            return ask(model, images, change, share, **parts)

        answer.__name__ = function.__name__
        return mistake("behaviour.failed_tests", says=says)(answer)

    return plant


@planted("asks the model in train mode", prepare=lambda model: model.train())
def in_train_mode(): ...


@planted("leaves the model in eval mode; it was in train mode", restore=False)
def mode_not_restored(): ...


@planted("records a graph for every call", record=True)
def with_a_graph(): ...


@planted(r"bit for bit, or too closely.*by rounding", alone=torch.equal)
def bit_for_bit(): ...


@planted(r"too closely.*at \[0\]|too closely.*1 elements", alone=lambda a, b: torch.allclose(a, b, rtol=0, atol=1e-6))
def too_closely(): ...


@planted("first image alone, or compares too loosely.*has 0 elements where 1", ask_alone=lambda model, images, copy: model(copy(images[:1])),
         alone=lambda outputs, alone: near(outputs[:1], alone))  # fmt: skip
def only_the_first(): ...


@planted("first image alone, or compares too loosely.*hears a little", alone=lambda a, b: torch.allclose(a, b, atol=1e-2))
def too_loosely(): ...


@planted("depends on its neighbours", ask_alone=lambda model, images, copy: model(copy(images).flip(0)).flip(0))
def the_batch_in_another_order(): ...


@planted("does not notice noise", repeats=lambda a, b: torch.equal(a.argmax(1), b.argmax(1)))
def classes_repeat(): ...


@planted("gives the model the same tensor again", copy=lambda images: images)
def the_same_tensor(): ...


@planted("does not notice that the model writes", untouched=lambda given, images: given.shape == images.shape)
def untouched_in_shape(): ...


@planted("demands more than the share", invariant=lambda a, b, share: bool((a.argmax(1) == b.argmax(1)).double().mean() > share))
def more_than_the_share(): ...


@planted(r"'invariant'.*share=0\.75|demands more than the share: at least.*share=0\.75", invariant=lambda a, b, share: torch.equal(a.argmax(1), b.argmax(1)))
def every_class_stays(): ...


@planted("compares the outputs for the changed images", invariant=lambda a, b, share: near(a, b))
def outputs_stay(): ...


@planted("passes a change of classes: the share", invariant=lambda a, b, share: bool((a.argmax(1) == b.argmax(1)).any()))
def some_class_stays(): ...


@planted("passes a change of classes.*alters the class of 2 of 8", changed_of=lambda model, change, images, outputs: outputs)
def change_never_applied(): ...


@planted("lists the tests that pass", report=lambda failed: [name for name in NAMES if name not in failed])
def those_that_pass(): ...


@planted(r"is \{.*\} where \[.*\] is expected", report=lambda failed: {name: name not in failed for name in NAMES})
def a_dictionary(): ...


@planted(r"another order.*|is \['alone', 'repeats'\]|at \[0\] is 'alone'", report=sorted)
def alphabetical(): ...


@mistake("behaviour.failed_tests", says="It never calls the model")
def without_a_question(model, images, change, *, share=0.9):
    return []
