"""Exercise on tests for models (chapter 20): what any classifier must do, whatever its accuracy.

Ribeiro et al. 2020, Beyond accuracy: behavioral testing of NLP models with CheckList (arXiv:2005.04118).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Change = Callable[[Tensor], Tensor]
NAMES = ("repeats", "alone", "untouched", "invariant")


def failed_tests(model: nn.Module, images: Tensor, change: Change, *, share: float = 0.9) -> list[str]:
    """The names of the tests that the model (B, C, H, W) -> (B, K) fails, in the order of NAMES."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        given = images.clone()
        outputs = model(given)
        again = model(images.clone())
        alone = torch.cat([model(images[i : i + 1].clone()) for i in range(len(images))])
        changed = model(change(images.clone()))
    model.train(was_training)
    passed = {
        "repeats": torch.allclose(outputs, again, atol=1e-4),
        "alone": torch.allclose(outputs, alone, atol=1e-4),
        "untouched": torch.equal(given, images),
        "invariant": (outputs.argmax(1) == changed.argmax(1)).double().mean().item() >= share,
    }
    return [name for name in NAMES if not passed[name]]


class _Probe(nn.Module):
    """A classifier of three classes by the mean of each channel, with a fault; it records how it was called."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.norm = nn.BatchNorm2d(3, affine=False)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.calls: list[tuple[bool, bool]] = []
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((self.training, torch.is_grad_enabled()))
        self.seen += 1
        means = self.norm(images).mean((2, 3))  # (B, 3, H, W) -> (B, 3)
        if self.fault == "writes":
            images.mul_(0.5)
        outputs = self.scale * means
        if self.fault == "draws":
            outputs = outputs + 0.006 * (0.618 * self.seen % 1)  # no two of the first calls alike
        elif self.fault == "batch mean":
            outputs = outputs - outputs.mean(0)
        elif self.fault == "neighbour":  # all but the first image hear of the one before
            outputs = outputs + 0.004 * torch.cat([torch.zeros(1, 3), means[:-1].sign()])
        elif self.fault == "rounds":  # another kernel for another batch size
            outputs = outputs + 2e-6 * len(images)
        return outputs


_IMAGES = torch.tensor(
    [[0.8, 0.1, 0.1], [0.1, 0.9, 0.2], [0.1, 0.2, 0.7], [0.6, 0.1, 0.3], [0.1, 0.7, 0.2], [0.2, 0.1, 0.9], [0.5, 0.2, 0.1], [0.3, 0.6, 0.1]]
)[:, :, None, None]


def _darker(images: Tensor) -> Tensor:
    return images * 0.8


def _swaps_a_quarter(images: Tensor) -> Tensor:
    """The classes of two of eight images change."""
    swapped = images.clone()
    swapped[:2] = images[:2].flip(1)
    swapped[1, 0] += 1
    return swapped


def check_failed_tests(answer: Answer) -> str:
    images = _IMAGES.expand(8, 3, 4, 5).contiguous()
    cases: list[tuple[str, Change, dict[str, float]]] = [
        ("", _darker, {}),
        ("rounds", _darker, {}),
        ("batch mean", _darker, {}),
        ("neighbour", _darker, {}),
        ("writes", _darker, {}),
        ("draws", _darker, {}),
        ("", _swaps_a_quarter, {}),
        ("", _swaps_a_quarter, {"share": 0.75}),
        ("neighbour", _swaps_a_quarter, {"share": 0.8}),
        ("writes", _swaps_a_quarter, {}),
    ]
    for fault, change, options in cases:
        for training in (True, False):
            given = f"{_FAULTS[fault]}, {_CHANGES[change]}{', ' + describe(**options) if options else ''}"
            probe = _Probe(fault).train(training)
            got = answer(probe, images, change, **options)
            _check_calls(probe, training, given)
            want = failed_tests(_Probe(fault), images, change, **options)
            compare(got, want, given=given, what="the list of failed tests", mistakes=_mistakes(fault, change, options, want))
    return "a sound model, rounding, four faults alone and together, both shares, eval mode, no graph, the mode restored"


_FAULTS = {
    "": "a sound model",
    "rounds": "a sound model whose outputs for batches of another size differ by rounding, 2e-6",
    "batch mean": "a model that subtracts the batch's mean from its outputs",
    "neighbour": "a model in which every image but the first hears a little (0.004) of the one before it",
    "writes": "a model that writes into its input",
    "draws": "a model that adds another little number (at most 0.006) at every call, in eval mode too",
}
_CHANGES: dict[Change, str] = {_darker: "a change that keeps every class", _swaps_a_quarter: "a change that alters the class of 2 of 8 images"}


def _check_calls(probe: _Probe, training: bool, given: str) -> None:
    if not probe.calls:
        raise Mistake("It never calls the model.")
    if any(mode for mode, _ in probe.calls):
        raise Mistake("It asks the model in train mode: call model.eval() first, or dropout and batch norm decide the result.")
    if probe.training is not training:
        raise Mistake(
            f"It leaves the model in {'train' if probe.training else 'eval'} mode; it was in {'train' if training else 'eval'} "
            "mode when it came: a test looks and leaves no trace."
        )
    if any(recorded for _, recorded in probe.calls):
        raise Mistake("It records a graph for every call: ask the model under torch.no_grad().")


def _mistakes(fault: str, change: Change, options: dict[str, float], want: list[str]) -> dict[str, Any]:
    def with_(name: str) -> list[str]:
        return [other for other in NAMES if other in want or other == name]

    def without(name: str) -> list[str]:
        return [other for other in want if other != name]

    half = change is _swaps_a_quarter
    named: list[tuple[str, Any, bool]] = [
        ("lists the tests that pass: those that fail are asked for", [name for name in NAMES if name not in want], True),
        ("gives the names in another order", want[::-1], len(want) > 1),
        ("compares bit for bit, or too closely: another batch size may round otherwise; allow 1e-4", with_("alone"), fault == "rounds"),
        ("asks for the first image alone, or compares too loosely: every image, to within 1e-4", without("alone"), fault == "neighbour"),
        ("does not notice that an image's answer depends on its neighbours: compare outputs, of each image by itself",
         without("alone"), fault == "batch mean"),
        ("does not notice noise: compare the outputs, not the classes, to within 1e-4", without("repeats"), fault == "draws"),
        ("does not notice that the model writes into its input: keep what you gave it, and compare", without("untouched"), fault == "writes"),
        ("demands more than the share: at least `share` of the classes have to stay", with_("invariant"), half and options.get("share") == 0.75),
        ("does not use the share it is given", without("invariant"), half and options.get("share") == 0.8),
        ("compares the outputs for the changed images: they may move, the classes must stay", with_("invariant"), not half),
        ("passes a change of classes: the share that stays must reach `share`", without("invariant"), half),
    ]  # fmt: skip
    mistakes = {text: value for text, value, applies in named if applies and value != want}
    if fault == "writes":
        text = "gives the model the same tensor again after it wrote into it: hand every call a copy of its own"
        wrong = [["repeats", "alone", "untouched"], ["repeats", "untouched"], ["alone", "untouched"]]
        wrong += [[*part, "invariant"] for part in wrong] + [["repeats", "alone"], ["repeats"], ["alone"]]
        mistakes |= {f"{text}{' ' * i}": value for i, value in enumerate(wrong) if value != want}
    return mistakes


register(
    "behaviour.failed_tests",
    failed_tests,
    check_failed_tests,
    difficulty=3,
    importance=4,
    minutes=20,
    hints=(
        "Ask the model four times in eval mode: all images, all again, each alone, all changed. Compare only afterwards.",
        "A model may write into what it gets: give every call images.clone(), and keep the first copy to compare it with images.",
        "torch.allclose(outputs, other, atol=1e-4) for `repeats` and `alone`; torch.equal(given, images) for `untouched`; "
        "the mean of outputs.argmax(1) == changed.argmax(1) against share for `invariant`. Restore the mode at the end.",
    ),
)
