"""Exercise on initialisation: Kaiming in the trunk, a small head, and layers that have no bias."""

from __future__ import annotations

import math

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
    """Layers wide enough that a standard deviation is known to 3 %, with fan-in and fan-out well apart."""
    head = nn.Linear(300, 60, bias=bias)
    model = nn.Sequential(
        nn.Conv2d(16, 64, 3, bias=bias), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Sequential(nn.Conv2d(64, 48, (1, 5), bias=bias), nn.GroupNorm(4, 48), nn.ReLU()),
        nn.Flatten(), nn.Linear(48, 300, bias=bias), nn.LayerNorm(300), head,
    )
    for parameter in model.parameters():  # so that nothing is right by being left alone
        nn.init.uniform_(parameter, 0.7, 1.3)
    return model, head


def check_kaiming(answer: Answer) -> str:
    for bias in (True, False):
        model, head = _network(bias)
        norms = {k: v.clone() for k, v in model.state_dict().items() if k.split(".")[-2] in ("1", "6")}
        _initialise(answer, model, head, bias)
        for name, module in model.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                _check_layer(name, module, module is head)
        state = model.state_dict()
        if any(not torch.equal(state[k], v) for k, v in norms.items()):
            raise Mistake("It changes the weights of normalisation layers; only convolutions and linear layers are meant.")
    return "every convolution and linear layer, nested ones too, the head, the biases, layers without one, norms untouched"


def _initialise(answer: Answer, model: nn.Module, head: nn.Linear, bias: bool) -> None:
    try:
        result = answer(model, head)
    except Mistake as mistake:
        if bias or not str(mistake).startswith("It raises"):
            raise
        raise Mistake(f"It fails on a layer without a bias, whose bias is None: test for it. {mistake}") from None
    if not isinstance(result, Answer) or result.value is not model:
        raise Mistake("It returns something other than the model it was given: set the weights in place and return it.")


def _check_layer(name: str, module: nn.Conv2d | nn.Linear, is_head: bool) -> None:
    weight = module.weight.detach()
    if not weight.isfinite().all():
        raise Mistake(f"It leaves weights in {_say(name, module)} that are not finite.")
    std, fan_in, fan_out = weight.std().item(), weight[0].numel(), weight[:, 0].numel()
    kaiming_std = math.sqrt(2 / fan_in)
    want = 0.001 if is_head else kaiming_std
    wrong = {
        "leaves the weights of some layers alone": 0.6 / math.sqrt(12),
        "sets weights to a constant: every unit of a layer then computes, and learns, the same": 0.0,
        "counts the outputs (fan-out) instead of the inputs": math.sqrt(2 / fan_out),
        "is Xavier's rule, made for a network without ReLU": math.sqrt(2 / (fan_in + fan_out)),
        "forgets the 2 that makes up for what ReLU sets to zero": math.sqrt(1 / fan_in),
        "is PyTorch's default, with a sixth of the variance": math.sqrt(1 / (3 * fan_in)),
        "forgets the pixels of the kernel in fan-in": math.sqrt(2 / weight.shape[1]),
        "takes the variance 2 / fan_in for the standard deviation": 2 / fan_in,
        "treats every layer as the head": 0.001,
    }
    if is_head:
        wrong = {
            "leaves the weights of some layers alone": 0.6 / math.sqrt(12),
            "sets the head to zero: no gradient then reaches the layers below it": 0.0,
            "initialises the head like every other layer": kaiming_std,
        }
    if not math.isclose(std, want, rel_tol=0.06) or abs(weight.mean().item()) > 0.1 * want:
        named = next((text for text, value in wrong.items() if math.isclose(std, value, rel_tol=0.04, abs_tol=1e-9)), None)
        if named is None and math.isclose(std, want, rel_tol=0.06):
            named = "does not centre the weights on zero"
        raise Mistake(
            f"It {named}. " * bool(named)
            + f"In {_say(name, module)} the weights have mean {weight.mean():.2g} and standard deviation {std:.3g} "
            f"where 0 and {want:.3g} are expected."
        )
    if module.bias is not None and module.bias.any():
        raise Mistake(f"It does not set the biases to zero (see {_say(name, module)}).")
    if torch.unique(weight).numel() < weight.numel() // 4:
        raise Mistake(f"It repeats weights: {_say(name, module)} has {torch.unique(weight).numel()} different ones.")


def _say(name: str, module: nn.Conv2d | nn.Linear) -> str:
    return f"layer {name}, {type(module).__name__}({module.weight.shape[1]}, {module.weight.shape[0]}, …),"


register(
    "initialisation.kaiming",
    kaiming,
    check_kaiming,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "model.modules() visits every layer, however deep it is nested. Which of them have weights to draw?",
        "One output of a convolution is a sum over in_channels · h · w numbers: that is its fan-in, weight[0].numel(). The "
        "standard deviation is sqrt(2 / fan_in).",
        "nn.init.kaiming_normal_(module.weight, nonlinearity='relu') does it; for `module is head` use nn.init.normal_ with "
        "std=0.001; and `if module.bias is not None: nn.init.zeros_(module.bias)`.",
    ),
)
