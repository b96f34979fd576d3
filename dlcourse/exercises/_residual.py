"""What the checks on residual networks share: a wrong block by its sentence, and a network that takes known weights.

A mistake is a forward pass through the modules of a right block, so that one sentence serves the block's exercise and
ResNet-18's, where each block of a copy takes the wrong pass.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.exercises.checking import Answer, Mistake, compare, describe

Forward = Callable[[Any, torch.Tensor], torch.Tensor]
Change = Callable[[nn.Module], None]


def _branch(b: Any, x: torch.Tensor) -> torch.Tensor:
    return b.bn2(b.conv2(F.relu(b.bn1(b.conv1(x)))))


def _short(b: Any, x: torch.Tensor) -> torch.Tensor:
    return x if b.downsample is None else b.downsample(x)


def _conv(conv: nn.Conv2d, x: torch.Tensor, stride: int) -> torch.Tensor:
    return F.conv2d(x, conv.weight, stride=stride, padding=conv.padding)


def _stride_in_conv2(b: Any, x: torch.Tensor) -> torch.Tensor:
    out = F.relu(b.bn1(_conv(b.conv1, x, 1)))
    return F.relu(b.bn2(_conv(b.conv2, out, b.conv1.stride)) + _short(b, x))


def _without_projections_norm(b: Any, x: torch.Tensor) -> torch.Tensor:
    return F.relu(_branch(b, x) + b.downsample[0](x))


# What a wrong block computes, from the modules of a right one. ResNet-18 is checked against these too.
BLOCK_MISTAKES: dict[str, Forward] = {
    "forgets the shortcut": lambda b, x: F.relu(_branch(b, x)),
    "has no ReLU after the addition": lambda b, x: _branch(b, x) + _short(b, x),
    "applies the last ReLU before the addition; it belongs after it": lambda b, x: F.relu(_branch(b, x)) + _short(b, x),
    "applies a ReLU before the addition too; a branch that cannot be negative can only add":
        lambda b, x: F.relu(F.relu(_branch(b, x)) + _short(b, x)),
    "applies a ReLU to the shortcut before it adds it": lambda b, x: F.relu(_branch(b, x) + F.relu(_short(b, x))),
    "has no ReLU between the two convolutions":
        lambda b, x: F.relu(b.bn2(b.conv2(b.bn1(b.conv1(x)))) + _short(b, x)),
    "has its stride in conv2; in the basic block conv1 takes it": _stride_in_conv2,
    "takes the shortcut after conv1; it starts at the block's input":
        lambda b, x: F.relu(_branch(b, x) + F.relu(b.bn1(b.conv1(x)))),
    "adds the shortcut twice": lambda b, x: F.relu(_branch(b, x) + 2 * _short(b, x)),
    "averages the two paths; they are added": lambda b, x: F.relu((_branch(b, x) + _short(b, x)) / 2),
    "subtracts the shortcut": lambda b, x: F.relu(_branch(b, x) - _short(b, x)),
    "leaves out bn1": lambda b, x: F.relu(b.bn2(b.conv2(F.relu(b.conv1(x)))) + _short(b, x)),
    "leaves out bn2": lambda b, x: F.relu(b.conv2(F.relu(b.bn1(b.conv1(x)))) + _short(b, x)),
    "does not use the projection's batch norm": _without_projections_norm,
    "applies bn2 after the addition; the shortcut is added after it":
        lambda b, x: F.relu(b.bn2(b.conv2(F.relu(b.bn1(b.conv1(x)))) + _short(b, x))),
    "uses bn1 twice": lambda b, x: F.relu(b.bn1(b.conv2(F.relu(b.bn1(b.conv1(x))))) + _short(b, x)),
    "uses conv1 twice": lambda b, x: F.relu(b.bn2(b.conv1(F.relu(b.bn1(b.conv1(x))))) + _short(b, x)),
    "normalises and applies ReLU before each convolution (that is the pre-activation block of 2016)":
        lambda b, x: b.conv2(F.relu(b.bn2(b.conv1(F.relu(b.bn1(x)))))) + _short(b, x),
    "ignores the stride": lambda b, x: F.relu(b.bn2(b.conv2(F.relu(b.bn1(_conv(b.conv1, x, 1)))))
                                              + (x if b.downsample is None else b.downsample[1](_conv(b.downsample[0], x, 1)))),
}  # fmt: skip

CUT_GRADIENTS: dict[str, Forward] = {
    "cuts the gradient of the shortcut": lambda b, x: F.relu(_branch(b, x) + _short(b, x).detach()),
    "cuts the gradient of the branch's input": lambda b, x: F.relu(_branch(b, x.detach()) + _short(b, x)),
}

# What a tensor that is missing or too many usually means; the first that fits is said.
STATE_MISTAKES: tuple[tuple[str, str, str], ...] = (
    ("extra", r"(conv\d|downsample\.0)\.bias$", "gives a convolution a bias: the batch norm behind it subtracts it again"),
    ("missing", r"bn\d\.(weight|bias)$", "has a batch norm without the affine weight and bias"),
    ("missing", r"bn\d\.running_", "has a batch norm without running statistics"),
    ("missing", r"bn\d\.num_batches_tracked$", "has a batch norm without the buffer num_batches_tracked"),
    ("missing", r"downsample\.0\.", "lacks the projection that a change of width or stride needs"),
    ("missing", r"downsample\.1\.", "has a projection without batch norm: downsample is a Sequential of both"),
    ("extra", r"downsample\.", "projects where neither width nor stride changes: the shortcut is the input itself there"),
)


def randomise(model: Any) -> Any:
    """Give every batch norm weights and statistics that are neither one nor zero; returns the model in float64."""
    for module in model.double().modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5), (module.running_var, 0.5)):
                nn.init.uniform_(tensor, low, low + 1)  # type: ignore[arg-type]
    return model


def load_strictly(built: Any, state: Mapping[str, torch.Tensor], given: str) -> None:
    """Load `state` into what the answer has built, in float64; a Mistake names the tensors that do not fit."""
    if not isinstance(built, Answer):
        raise Mistake(f"Given {given}, it builds {describe(built)}, where an nn.Module is asked for.")
    own = {name: tuple(tensor.shape) for name, tensor in built.value.double().state_dict().items()}
    names = {"missing": [n for n in state if n not in own], "extra": [n for n in own if n not in state]}
    for kind, listed in names.items():
        if listed:
            few = ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
            raise Mistake(f"{_explained(names)}Given {given}, its state dict has {len(listed)} {kind} tensor(s): {few}.")
    for name, tensor in state.items():
        if own[name] != tuple(tensor.shape):
            why = "It does not use num_classes. " if name.startswith("fc.") and own[name][1:] == tensor.shape[1:] else ""
            raise Mistake(f"{why}Given {given}, {name} has shape {own[name]} where {tuple(tensor.shape)} is expected.")
    built.value.load_state_dict(state)


def _explained(names: Mapping[str, list[str]]) -> str:
    """The mistake behind tensors that are missing or too many, as a sentence; "" where none is known."""
    if len(names["missing"]) == len(names["extra"]):
        return f"It calls `{names['extra'][0]}` what torchvision calls `{names['missing'][0]}`. "
    for kind, pattern, text in STATE_MISTAKES:
        if any(re.search(pattern, name) for name in names[kind]):
            return f"It {text}. "
    return ""


def changed(model: nn.Module, change: Change) -> nn.Module:
    """A copy of the model with one change. It shares the parameters, not the running statistics."""
    twin = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    change(twin)
    return twin


def outputs(model: nn.Module, x: torch.Tensor, wrong: Mapping[str, Change]) -> dict[str, Callable[[], torch.Tensor]]:
    """What the model gives with each change, computed when it is asked for."""

    def output(change: Change) -> torch.Tensor:
        return changed(model, change)(x)

    return {text: partial(output, change) for text, change in wrong.items()}


def in_each_block(forward: Forward) -> Change:
    """The change that every residual block computes `forward`."""

    def change(model: nn.Module) -> None:
        for module in model.modules():
            if hasattr(module, "conv2"):
                module.forward = partial(forward, module)

    return change


def gradients(model: Any, parameters: Mapping[str, torch.Tensor], x: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """The gradients of x and of every parameter, for slopes that differ from output to output."""
    leaf = x.clone().requires_grad_()
    out = model(leaf)
    if not out.requires_grad:
        raise Mistake(f"Given {describe(x)}, it cuts the gradient: its output is not connected to its weights.")
    slopes = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    tensors = {"the input": leaf, **parameters}
    found = torch.autograd.grad((out * slopes).sum(), list(tensors.values()), allow_unused=True)
    return dict(zip(tensors, found, strict=True))


def compare_gradients(
    ours: Answer, theirs: nn.Module, x: torch.Tensor, given: str, wrong: Mapping[str, Change]
) -> None:
    before, parameters = changed(theirs, lambda twin: None), dict(theirs.named_parameters())
    got, want = gradients(ours, dict(ours.value.named_parameters()), x), gradients(theirs, parameters, x)

    def mistaken(change: Change, name: str) -> Any:
        return gradients(changed(before, change), parameters, x)[name]

    for name, slope in want.items():
        if got.get(name) is None:
            raise Mistake(f"Given {given}, no gradient reaches {name}.")
        mistakes = {text: partial(mistaken, change, name) for text, change in wrong.items()}
        what = f"the gradient of {name}"
        compare(got[name], slope, given=given, what=what, mistakes=mistakes, rtol=1e-7, atol=1e-9)


def compare_buffers(ours: Answer, theirs: nn.Module, given: str, mistakes: Callable[[str], Any] = lambda name: None) -> None:
    """Hold the running statistics equal; `mistakes` gives those that wrong batch norms would leave under a name."""
    got = dict(ours.value.named_buffers())
    for name, want in theirs.named_buffers():
        if "running" in name:
            compare(got[name], want, given=given, what=name, mistakes=mistakes(name), rtol=1e-8, atol=1e-10)
