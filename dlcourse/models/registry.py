"""Models by name: `create_model("simple_cnn", num_classes=10)`.

A factory registers itself under its own name; the modules of the families are imported by `dlcourse.models`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatch
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])

_factories: dict[str, Callable[..., nn.Module]] = {}


def register_model(factory: Factory) -> Factory:
    """Decorate `def name(num_classes=…, in_channels=3, *, option=…)`, so that `create_model("name")` finds it.

    Raises ValueError for a name that is taken and for a signature in which an option could go unseen.
    """
    name = factory.__name__
    if name in _factories:
        raise ValueError(f"a model named {name!r} is registered already")
    parameters = list(inspect.signature(factory).parameters.values())
    options_are_named = all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[2:])
    if [parameter.name for parameter in parameters[:2]] != ["num_classes", "in_channels"] or not options_are_named:
        raise ValueError(f"{name} must be declared as {name}(num_classes, in_channels, *, …), each option by its name")
    _factories[name] = factory
    return factory


def create_model(name: str, num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Module:
    """Build a model by name. Its `spec`, a plain dict, is what `create_model` needs to build it again.

    >>> create_model("simple_cnn", num_classes=10, dropout=0.5).spec
    {'name': 'simple_cnn', 'num_classes': 10, 'in_channels': 3, 'options': {'dropout': 0.5}}

    Raises ValueError for an unknown model or option, with the nearest known ones, and for a count below one.
    """
    if name not in _factories:
        raise ValueError(f"there is no model {name!r}; {_nearest(name, list_models())}")
    allowed = list(inspect.signature(_factories[name]).parameters)[2:]
    for option in options:
        if option not in allowed:
            raise ValueError(f"{name} has no option {option!r}; {_nearest(option, allowed)}")
    for argument, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if count < 1:
            raise ValueError(f"{argument}={count} must be at least 1")
    model = _factories[name](num_classes, in_channels, **options)
    spec = {"name": name, "num_classes": num_classes, "in_channels": in_channels, "options": options}
    model.spec = spec  # type: ignore[assignment]
    return model


def list_models(pattern: str | None = None) -> list[str]:
    """The names `create_model` knows, sorted; `pattern` is a file pattern such as "resnet*"."""
    return sorted(name for name in _factories if fnmatch(name, pattern or "*"))


def count_parameters(model: nn.Module, trainable_only: bool = False) -> int:
    """How many numbers the model learns; one that several layers share counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def count_macs(model: nn.Module, input_shape: tuple[int, ...] = (3, 224, 224)) -> int:
    """Multiply-accumulates of one forward pass for one input of `input_shape`, batch dimension left out.

    Counts convolutions and matrix products, attention's own included; one multiply-accumulate is what many tables call
    one FLOP. Nothing is computed: parameters and input are stand-ins without data, so any size takes a moment.
    """
    from torch.utils.flop_counter import FlopCounterMode

    tensors = {name: t.to("meta") for name, t in chain(model.named_parameters(), model.named_buffers())}
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), None)
    images = torch.empty(2, *input_shape, device="meta", dtype=dtype)  # two: a batch norm in training refuses one
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(model, tensors, images)
    return counter.get_total_flops() // 4  # two images, and two operations each


def _nearest(name: str, known: list[str]) -> str:
    if near := get_close_matches(name.lower(), known, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"choose one of {', '.join(known)}" if known else "it has none"
