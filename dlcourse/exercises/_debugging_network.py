"""What the check of the exercise "repair a network" (chapter 14) does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlcourse.exercises.checking import Answer, Mistake, compare

SIZES = ({"channels": 4, "blocks": 2, "classes": 3}, {"channels": 3, "blocks": 1, "classes": 5})


def check(answer: Answer, reference: Callable[..., nn.Module]) -> str:
    for sizes in SIZES:
        given = ", ".join(f"{name}={value}" for name, value in sizes.items())
        right, repaired = reference(**sizes), answer(**sizes)
        if not isinstance(repaired, Answer) or not isinstance(repaired.value, nn.Module):
            raise Mistake(f"Given {given}, it builds {type(repaired).__name__}, not a module.")
        _load(repaired.value, right, given)
        images = 255 * torch.rand(3, 5, 7, 3)
        given += f", {len(images)} images (3, 5, 7, 3)"
        right.eval()
        repaired.value.eval()
        with torch.no_grad():
            first, second = repaired(images), repaired(images)
            if isinstance(first, Tensor) and isinstance(second, Tensor) and not torch.equal(first, second):
                raise Mistake(f"Given {given}, it answers otherwise the second time in eval mode: dropout needs training=self.training.")
            compare(first, right(images), given=given, mistakes=_wrong_outputs(right, images), what="the output in eval mode")
            compare(repaired(images[:1]), right(images[:1]), given=f"{given}, the first alone", what="the output in eval mode")
        _gradients(repaired, right, images, given)
        _dropout(repaired, images, given)
    return "names of the parameters, logits for images that are not square, gradients of all, dropout in train mode only, the input untouched"


def _load(repaired: nn.Module, right: nn.Module, given: str) -> None:
    """Give the answer the reference's weights."""
    names, wanted = dict(repaired.named_parameters()), dict(right.named_parameters())
    missing = [name for name in wanted if name not in names]
    if missing and all(name.startswith("blocks") for name in missing):
        raise Mistake(
            f"Given {given}, {missing[0]} is no parameter of the model, so no optimizer trains it: a plain list hides its "
            "modules; use nn.ModuleList (or nn.Sequential)."
        )
    if names.keys() != wanted.keys():
        raise Mistake(f"Given {given}, its parameters are {list(names)}, where {list(wanted)} are asked for.")
    for name, parameter in wanted.items():
        if names[name].shape != parameter.shape:
            raise Mistake(f"Given {given}, {name} has shape {tuple(names[name].shape)}, not {tuple(parameter.shape)}.")
        if not names[name].requires_grad:
            raise Mistake(f"Given {given}, {name} is frozen: nothing trains it.")
    with torch.no_grad():
        for name, parameter in wanted.items():
            names[name].copy_(parameter)


def _pass(model: Any, images: Tensor, lay: Callable[[Tensor], Tensor], scale: Callable[[Tensor], Tensor], skip: Any, pool: Any = None) -> Tensor:
    x = model.stem(lay(scale(images)))
    for block in model.blocks:
        x = skip(x, block)
    return model.head(x.mean(dim=(2, 3)) if pool is None else pool(x))


def _wrong_outputs(model: nn.Module, images: Tensor) -> dict[str, Any]:
    def lay(x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)

    def scale(x: Tensor) -> Tensor:
        return x / 127.5 - 1

    def skip(x: Tensor, block: nn.Module) -> Tensor:
        return x + F.relu(block(x))

    mixing = lambda x: x.reshape(x.shape[0], x.shape[3], *x.shape[1:3])  # noqa: E731
    return {
        "ends in a softmax: the loss wants logits": lambda: _pass(model, images, lay, scale, skip).softmax(1),
        "ends in a log_softmax: logits are asked for": lambda: _pass(model, images, lay, scale, skip).log_softmax(1),
        "reshapes (B, H, W, 3) to (B, 3, H, W), which mixes pixels and colours: permute(0, 3, 1, 2)": (
            lambda: _pass(model, images, mixing, scale, skip)
        ),
        "reshapes (B, H, W, 3) to (B, 3, H, W), and ends in a softmax": lambda: _pass(model, images, mixing, scale, skip).softmax(1),
        "swaps height and width: permute(0, 3, 1, 2)": lambda: _pass(model, images, lambda x: x.permute(0, 3, 2, 1), scale, skip),
        "does not scale 0 … 255 to −1 … 1": lambda: _pass(model, images, lay, lambda x: x, skip),
        "scales to 0 … 1, not to −1 … 1": lambda: _pass(model, images, lay, lambda x: x / 255, skip),
        "scales by this batch's own mean: an image's answer would depend on its neighbours": (
            lambda: _pass(model, images, lay, lambda x: x - x.mean(), skip)
        ),
        "leaves the skip connection out": lambda: _pass(model, images, lay, scale, lambda x, block: F.relu(block(x))),
        "adds before the ReLU: x + relu(block(x)) is asked for": lambda: _pass(model, images, lay, scale, lambda x, b: F.relu(x + b(x))),
        "leaves the ReLU out": lambda: _pass(model, images, lay, scale, lambda x, block: x + block(x)),
        "takes the largest value of a map, not the mean": lambda: _pass(model, images, lay, scale, skip, lambda x: x.amax(dim=(2, 3))),
    }  # fmt: skip


def _gradients(repaired: Answer, right: nn.Module, images: Tensor, given: str) -> None:
    """In eval mode, where dropout draws nothing, every gradient is the reference's."""
    slopes = torch.randn(len(images), right(images).shape[1])
    (right(images) * slopes).sum().backward()
    repaired.value.zero_grad()
    out = repaired(images)
    if not out.requires_grad:
        raise Mistake(f"Given {given}, its output has no graph: something detaches it.")
    (out * slopes).sum().backward()
    found, wanted = dict(repaired.value.named_parameters()), dict(right.named_parameters())
    for name, parameter in found.items():
        if parameter.grad is None:
            raise Mistake(f"Given {given}, no gradient reaches {name}: look for .detach(), .data or no_grad in its way.")
    for name, parameter in found.items():
        compare(parameter.grad, wanted[name].grad, given=given, what=f"the gradient of {name}", mistakes={
            "cuts the graph on one of the ways: look for .detach(), .data or no_grad": parameter.grad,
        })  # fmt: skip


def _dropout(repaired: Answer, images: Tensor, given: str) -> None:
    """In train mode half of the pooled features are zero, and the others twice as large: right on average."""
    repaired.value.train()
    with torch.no_grad():
        runs = torch.stack([repaired(images) for _ in range(40)])
        copied = copy.deepcopy(repaired.value).eval()
        mean = copied(images.clone())
    if torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2]):
        raise Mistake(f"Given {given}, it answers the same every time in train mode: the dropout is missing.")
    spread = runs.std(dim=0) / len(runs) ** 0.5
    if ((runs.mean(dim=0) - mean).abs() > 6 * spread + 1e-4).any():
        raise Mistake(f"Given {given}, the mean of its answers in train mode is not the answer in eval mode: F.dropout scales what it keeps.")
