"""What the check of `residual.add_batch_norm` compares: networks to begin with, and their layers, rightly and wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dlcourse.exercises.checking import Mistake


def networks() -> Iterator[tuple[nn.Sequential, torch.Tensor]]:
    conv = nn.Conv2d
    yield nn.Sequential(conv(1, 2, 1)), torch.randn(2, 1, 2, 2)
    yield nn.Sequential(conv(1, 2, 3, padding=1), nn.ReLU(), conv(2, 2, 2, bias=False)), torch.randn(2, 1, 4, 4)
    yield nn.Sequential(conv(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, padding_mode="circular")), torch.randn(2, 4, 7, 6)
    inner = nn.Sequential(conv(2, 3, 3), nn.LeakyReLU(0.2), nn.Sequential(conv(3, 4, (1, 2)), nn.Tanh()))
    yield nn.Sequential(conv(3, 2, 1), inner, nn.Flatten(), nn.Linear(24, 5)), torch.randn(3, 3, 4, 6)


def plan(model: Any) -> list[Any]:
    """The kinds of a Sequential's layers, nested as they are."""
    return [plan(layer) if isinstance(layer, nn.Sequential) else type(layer).__name__ for layer in model]


def compare_layers(got: nn.Sequential, want: nn.Sequential, before: nn.Sequential, given: str) -> None:
    plans = plan(got), plan(want)
    if plans[0] != plans[1]:
        named = next((f"It {text}. " for text, wrong in wrong_plans(before).items() if plans[0] == wrong), "")
        raise Mistake(f"{named}Given {given}, the layers are {plans[0]} where {plans[1]} are expected.")
    pairs = zip(got.named_modules(remove_duplicate=False), want.named_modules(remove_duplicate=False), strict=True)
    for (_, ours), (name, theirs) in pairs:
        if isinstance(theirs, nn.Conv2d):
            if ours.bias is not None:
                raise Mistake(f"It keeps the bias of layer {name}; the batch norm behind it subtracts it again. Given {given}")
            for option in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"):
                values = getattr(ours, option), getattr(theirs, option)
                if values[0] != values[1]:
                    raise Mistake(f"It loses the {option} of layer {name}: {values[0]!r}, not {values[1]!r}. Given {given}")
        if isinstance(theirs, nn.BatchNorm2d) and ours.num_features != theirs.num_features:
            raise Mistake(f"Its batch norm at {name} has {ours.num_features} channels where the convolution before it "
                          f"gives {theirs.num_features} (out_channels). Given {given}")  # fmt: skip
        if isinstance(theirs, (nn.Conv2d, nn.Linear)) and not torch.equal(ours.weight, theirs.weight):
            raise Mistake(f"It draws new weights for layer {name}: the old ones are to be copied. Given {given}")
        if not isinstance(theirs, nn.Sequential) and str(ours) != str(theirs):
            raise Mistake(f"Given {given}, layer {name} is {ours} where {theirs} is expected.")


def wrong_plans(model: nn.Sequential) -> dict[str, list[Any]]:
    """The layers that a mistake leads to, by the sentence that names it."""

    def rebuilt(model: Any, nested: bool, place: Any) -> list[Any]:
        layers: list[Any] = []
        for layer in model:
            if isinstance(layer, nn.Sequential):
                layers.append(rebuilt(layer, nested, place) if nested else plan(layer))
            else:
                layers += place(type(layer).__name__)
        return layers

    def after(name: str) -> list[str]:
        return [name, "BatchNorm2d"] if name == "Conv2d" else [name]

    def flat(layers: list[Any]) -> list[Any]:
        return [name for part in layers for name in (flat(part) if isinstance(part, list) else [part])]

    right = rebuilt(model, True, after)
    return {
        "returns the layers as they were": plan(model),
        "forgets the convolutions in nested Sequentials": rebuilt(model, False, after),
        "puts the batch norm before the convolution":
            rebuilt(model, True, lambda n: ["BatchNorm2d", n] if n == "Conv2d" else [n]),
        "flattens the nested Sequentials; keep them": flat(right),
        "keeps only the convolutions and their batch norms":
            rebuilt(model, True, lambda n: after(n) if n == "Conv2d" else []),
        "adds the batch norms at the end of the network; each belongs behind its convolution":
            plan(model) + ["BatchNorm2d"] * flat(plan(model)).count("Conv2d"),
        "adds a batch norm behind every layer with weights, the linear ones too":
            rebuilt(model, True, lambda n: [n, "BatchNorm1d"] if n == "Linear" else after(n)),
        "puts a batch norm behind each activation; it belongs directly behind the convolution":
            rebuilt(model, True, lambda n: [n, "BatchNorm2d"] if n in ("ReLU", "LeakyReLU", "Tanh") else [n]),
    }  # fmt: skip
