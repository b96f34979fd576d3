"""How a block that an answer builds is compared: it takes known weights, and is told apart from variants with the same.

`built_as` holds its names and shapes, `compare_blocks` what it computes. A block is given as a function of the images,
the weights and the mode, so that a mistake is one argument away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.exercises.checking import Answer, Mistake, compare, describe

State = dict[str, torch.Tensor]
Forward = Callable[[torch.Tensor, State, bool], torch.Tensor]  # images, weights and training -> outputs
Act = Callable[[torch.Tensor], torch.Tensor]


def same(x: torch.Tensor) -> torch.Tensor:
    return x


def norm(x: torch.Tensor, state: State, name: str, training: bool) -> torch.Tensor:
    """Batch norm by the entries `name.weight` … of a state dict, whose running statistics it moves in place."""
    mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias, training)


def built_as(built: Any, like: nn.Module, called: str) -> Answer:
    """The module that an answer built, if it has the parameters and buffers of `like`; raises Mistake otherwise."""
    if not isinstance(built, Answer):
        raise Mistake(f"It returns {describe(built)} for {called}; an nn.Module is asked for.")
    got, want = ({name: tuple(t.shape) for name, t in m.state_dict().items()} for m in (built.value, like))
    for name, shape in want.items():
        if name not in got:
            similar = next((n for n in got if n not in want and got[n] == shape), None)
            raise Mistake(f"Built with {called}, it has no `{name}`" + (f"; its `{similar}` has the shape." if similar else "."))
        if got[name] != shape:
            raise Mistake(f"{_why_shape(name, got[name], shape)}Built with {called}, `{name}` has shape {got[name]} "
                          f"where {shape} is expected.")  # fmt: skip
    if extra := [name for name in got if name not in want]:
        bias = extra[0].endswith(".bias") and f"{extra[0][:-4]}running_mean" not in got
        why = "It gives a convolution a bias; the batch norm after it takes it away again: bias=False. " if bias else ""
        raise Mistake(f"{why}Built with {called}, it has a `{extra[0]}`, which is not asked for.")
    return built


def _why_shape(name: str, got: tuple[int, ...], want: tuple[int, ...]) -> str:
    if len(want) == 4 and want[1] == 1 and want[2] > 1 and got[:1] == want[:1] and len(got) == 4 and got[1] > 1:
        return "It forgets groups: a depthwise convolution has as many groups as channels. "
    if len(got) == 2 and want[2:] == (1, 1) and got == want[:2]:
        return "It takes a linear layer; a 1×1 convolution is asked for, so that torchvision's weights fit. "
    if len(got) == len(want) == 4 and got[:2] == want[:2]:
        return f"It takes a {got[2]}×{got[3]} kernel where {want[2]}×{want[3]} is meant. "
    return ""


def compare_blocks(
    built: Answer, block: Forward, shape: tuple[int, ...], called: str, mistakes: Mapping[str, Forward]
) -> None:
    """Raise Mistake unless the module computes `block` with the same weights: outputs, running statistics, gradients."""
    state = {name: _random(name, tensor) for name, tensor in built.value.state_dict().items()}
    # Large values too, so that ReLU6 and the hard gates are met on both sides; then float64 with gradients.
    for dtype, scale in ((torch.float32, 1.0), (torch.float32, 3.0), (torch.float64, 1.0)):
        built.value.to(dtype)
        for training in (True, False):
            weights = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
            built.value.load_state_dict(weights)
            built.value.train(training)
            x = (scale * torch.randn(shape, dtype=dtype)).requires_grad_(dtype == torch.float64)
            ours = {name: tensor.clone() for name, tensor in weights.items()}
            for name, _ in built.value.named_parameters():
                ours[name].requires_grad_()
            want, got = block(x, ours, training), built(x)
            copies = partial(_on_a_copy, x=x, state=weights, training=training)
            given = f"{describe(x)} in {'training' if training else 'eval'} mode, to the block built with {called}"
            compare(got, want, given=given, what="the output", mistakes={text: partial(copies, f) for text, f in mistakes.items()})
            for name, buffer in built.value.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    compare(buffer, ours[name], given=given, what=f"`{name}` afterwards")
            if x.requires_grad:
                _compare_gradients(built, x, got, want, ours, given)


def _compare_gradients(
    built: Answer, x: torch.Tensor, got: torch.Tensor, want: torch.Tensor, ours: State, given: str
) -> None:
    if not got.requires_grad:
        raise Mistake(f"It cuts the gradient: given {given}, the output is not connected to the input and the weights.")
    slopes = torch.linspace(-1, 2, want.numel(), dtype=want.dtype).reshape(want.shape)
    for name, parameter in {**dict(built.value.named_parameters()), "the input": x}.items():
        theirs = torch.autograd.grad((got * slopes).sum(), parameter, retain_graph=True, allow_unused=True)[0]
        expected = torch.autograd.grad((want * slopes).sum(), ours.get(name, x), retain_graph=True)[0]
        if theirs is None:
            raise Mistake(f"It cuts the gradient of {name}. Given {given}.")
        compare(theirs, expected, given=given, what=f"the gradient of {name}")


def _on_a_copy(block: Forward, *, x: torch.Tensor, state: State, training: bool) -> torch.Tensor:
    return block(x, {name: tensor.clone() for name, tensor in state.items()}, training)


def _random(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Weights of both signs, a variance above zero, and scales and shifts so large that ReLU6 meets its 6."""
    if not tensor.is_floating_point():
        return tensor.clone()
    noise = torch.randn(tensor.shape)
    if name.endswith("running_var"):
        return 0.5 + noise.abs()
    return noise + 2 * (tensor.ndim == 1)
