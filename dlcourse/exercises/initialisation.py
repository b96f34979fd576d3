"""Exercise on initialisation: Kaiming in the trunk, a small head, and layers that have no bias."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from dlcourse.exercises.checking import Answer, Mistake
from dlcourse.exercises.registry import register


def kaiming(model: nn.Module, head: nn.Linear) -> nn.Module:
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()  # the numbers that one output is a sum over
                module.weight.normal_(std=0.001 if module is head else math.sqrt(2 / fan_in))
                if module.bias is not None:
                    module.bias.zero_()
    return model


def _network(bias: bool) -> tuple[nn.Sequential, nn.Linear]:
    """Layers wide enough that a standard deviation is known to 3 %, with fan-in and fan-out well apart.

    Without biases the head stands first, so that it is found by what it is and not by where it stands.
    """
    head = nn.Linear(300, 60, bias=bias)
    model = nn.Sequential(
        nn.Conv2d(16, 64, 3, bias=bias), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Sequential(nn.Conv2d(64, 48, (2, 5), bias=bias), nn.GroupNorm(4, 48), nn.ReLU()),
        nn.Flatten(), nn.Linear(48, 300, bias=bias), nn.LayerNorm(300),
    )
    model.insert(len(model) if bias else 0, head)
    for parameter in model.parameters():  # so that nothing is right by being left alone
        nn.init.uniform_(parameter, 0.7, 1.3)
    return model, head


def check_kaiming(answer: Answer) -> str:
    for bias in (True, False):
        model, head = _network(bias)
        before = copy.deepcopy(model)
        _initialise(answer, model, head, bias)
        for (name, module), original in zip(model.named_modules(), before.modules(), strict=True):
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                _check_kept(name, module, original)
                _check_layer(name, module, module is head, original)
            elif any(not torch.equal(a, b) for a, b in zip(_own(module), _own(original), strict=True)):
                raise Mistake("It changes the weights or biases of normalisation layers: they are to stay as they are.")
        if not all(module.training for module in model.modules()):
            raise Mistake("It leaves the model in eval mode: set the weights and nothing else.")
    return "every convolution and linear layer, nested ones too, head, biases, layers without one, norms untouched"


def _initialise(answer: Answer, model: nn.Module, head: nn.Linear, bias: bool) -> None:
    try:
        result = answer(model, head)
    except Mistake as mistake:
        if bias or not str(mistake).startswith("It raises"):
            raise
        raise Mistake(f"It fails on a layer without a bias, whose bias is None: test for it. {mistake}") from None
    if not isinstance(result, Answer) or result.value is not model:
        raise Mistake("It returns something other than the model it was given: set the weights in place and return it.")


def _own(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _check_kept(name: str, module: nn.Conv2d | nn.Linear, original: Any) -> None:
    """What stays as it was: the parameters, their shapes and dtypes, and that they are trained."""
    for part in ("weight", "bias"):
        old, new = getattr(original, part), getattr(module, part)
        where = f"the {part} of {_say(name, module)}"
        if old is None:
            continue
        if new is None:
            raise Mistake(f"It removes {where}: set it to zero.")
        if (new.shape, new.dtype) != (old.shape, old.dtype):
            raise Mistake(
                f"It makes {where} a {new.dtype} tensor of shape {tuple(new.shape)}, "
                f"where {old.dtype} and {tuple(old.shape)} are to stay."
            )
        if not (isinstance(new, nn.Parameter) and new.requires_grad):
            raise Mistake(f"It leaves {where} without a gradient, so that it would never be trained.")


def _check_layer(name: str, module: nn.Conv2d | nn.Linear, is_head: bool, original: Any) -> None:
    weight = module.weight.detach()
    if not weight.isfinite().all():
        raise Mistake(f"It leaves weights in {_say(name, module)} that are not finite.")
    std, fan_in, fan_out = weight.std().item(), weight[0].numel(), weight[:, 0].numel()
    kaiming_std = math.sqrt(2 / fan_in)
    want = 0.001 if is_head else kaiming_std
    square = weight.shape[2] ** 2 if isinstance(module, nn.Conv2d) else 1
    wrong = {
        "sets weights to a constant: every unit of a layer then computes, and learns, the same": 0.0,
        "counts the outputs (fan-out) instead of the inputs": math.sqrt(2 / fan_out),
        "is Xavier's rule, made for a network without ReLU": math.sqrt(2 / (fan_in + fan_out)),
        "forgets the 2 that makes up for what ReLU sets to zero": math.sqrt(1 / fan_in),
        "is PyTorch's default, with a sixth of the variance": math.sqrt(1 / (3 * fan_in)),
        "takes the kernel for square in fan-in": math.sqrt(2 / (weight.shape[1] * square)),
        "forgets the pixels of the kernel in fan-in": math.sqrt(2 / weight.shape[1]),
        "takes the variance 2 / fan_in for the standard deviation": 2 / fan_in,
        "treats every layer as the head": 0.001,
    }
    if is_head:
        wrong = {
            "sets the head to zero: no gradient then reaches the layers below it": 0.0,
            "initialises the head like every other layer": kaiming_std,
        }
    right, centred = math.isclose(std, want, rel_tol=0.06), abs(weight.mean().item()) <= 0.1 * want
    if not (right and centred):
        matching = (text for text, value in wrong.items() if math.isclose(std, value, rel_tol=0.04, abs_tol=1e-9))
        named = (None if right else next(matching, None)) or "does not centre the weights on zero" * (not centred)
        if torch.equal(weight, original.weight):
            named = "leaves the weights of some layers alone"
        raise Mistake(
            f"It {named}. " * bool(named)
            + f"In {_say(name, module)}, the weights have mean {weight.mean():.2g} and standard deviation {std:.3g} "
            f"where 0 and {want:.3g} are expected."
        )
    if module.bias is not None and module.bias.any():
        raise Mistake(f"It does not set the biases to zero (see {_say(name, module)}).")
    if torch.unique(weight).numel() < weight.numel() // 4:
        raise Mistake(f"It repeats weights: {_say(name, module)} has {torch.unique(weight).numel()} different ones.")


def _say(name: str, module: nn.Conv2d | nn.Linear) -> str:
    return f"layer {name}, {type(module).__name__}({module.weight.shape[1]}, {module.weight.shape[0]}, …)"


register(
    "initialisation.kaiming",
    kaiming,
    check_kaiming,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "model.modules() visits every layer, however deep it is nested. Which of them have weights to draw?",
        "One output of a convolution is a sum over in_channels · h · w numbers: that is its fan-in, weight[0].numel(). "
        "The standard deviation is sqrt(2 / fan_in).",
        "nn.init.kaiming_normal_(module.weight, nonlinearity='relu') does it; for `module is head` use nn.init.normal_ "
        "with std=0.001; and `if module.bias is not None: nn.init.zeros_(module.bias)`.",
    ),
)
