"""What the check of the exercise on dead units (chapter 14) does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from dlcourse.exercises.checking import Answer, Mistake, compare


class _Counted(nn.Sequential):
    """Counts its forward passes, notes whether with a graph and in which mode."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.passes: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append((self.training, torch.is_grad_enabled()))
        return super().forward(x)


def _features() -> tuple[_Counted, int, Tensor]:
    """Features of 5 units: 0 dead, 1 dead for the first sample only, 2 always negative before the ReLU, 3 and 4 alive."""
    linear = nn.Linear(5, 5, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(5))
    rows = [[0.0, 0.0, -1.0, 1.0, 2.0], [0.0, 1.0, -2.0, 0.0, 1.0], [0.0, 2.0, -1.0, 3.0, 0.0]]
    return _Counted(linear, nn.ReLU(), nn.Linear(5, 2)).eval(), 1, torch.tensor(rows)


def _small_maps() -> tuple[_Counted, int, Tensor]:
    """Maps in which channel 1 is dead, and every channel for sample 0, and in column 3."""
    images = torch.ones(3, 3, 2, 4)
    images[:, 1] = images[0] = images[..., 3] = -1.0
    return _Counted(nn.Identity(), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).eval(), 1, images


def _maps() -> tuple[_Counted, int, Tensor]:
    """Maps of 6 channels: 1 and 4 dead; 0 zero but at one place of one image; 5 the same everywhere, and not zero."""
    conv = nn.Conv2d(3, 6, 3, padding=1)
    with torch.no_grad():
        conv.bias = nn.Parameter(torch.tensor([-9.0, -1.0, 0.0, 0.0, -5.0, 2.0]))
        conv.weight.zero_()
        conv.weight[0, 0, 1, 1] = 1.0
        conv.weight[2], conv.weight[3] = 0.1, -0.1
    images = torch.rand(4, 3, 5, 7) + 0.1
    images[3, 0, 2, 6] = 20.0
    images[0] *= -1  # so that channels 2 and 3 are alive for some images each
    return _Counted(conv, nn.ReLU(), nn.Flatten(), nn.Linear(210, 2)).eval(), 1, images


def _overwritten() -> tuple[_Counted, int, Tensor]:
    """The convolution's outputs are negative, and the ReLU behind it writes zeros over them."""
    model, _, images = _maps()
    model[1] = nn.ReLU(inplace=True)
    return model, 0, images


def _cancelling() -> tuple[_Counted, int, Tensor]:
    """A layer without a ReLU whose units have the sum 0 over the samples, and one whose unit is 0."""
    layer = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([1.0, 0.0, 2.0])))
    return _Counted(layer, nn.Linear(3, 2)).eval(), 0, torch.tensor([[1.0, 1.0, -1.0], [-1.0, 1.0, 1.0]])


def check(answer: Answer, dead_units: Callable[..., Any]) -> str:
    cases = {
        "features (3, 5) behind a ReLU": _features(),
        "a layer without ReLU, whose values cancel": _cancelling(),
        "maps (3, 3, 2, 4) behind a ReLU": _small_maps(),
        "maps (4, 6, 5, 7) behind a ReLU": _maps(),
        "a convolution before a ReLU that works in place": _overwritten(),
    }
    for given, (model, index, images) in cases.items():
        seen: list[Tensor] = []
        handle = model[index].register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.detach().clone()))
        want = dead_units(model, model[index], images)
        handle.remove()
        model.passes.clear()
        got = answer(model, model[index], images)
        _no_hook(model, given)
        if [training for training, _ in model.passes] != [False]:
            passes = len(model.passes)
            raise Mistake(f"Given {given}, the model should run once, in eval mode as it was; it ran {passes} times" + " in train mode" * any(t for t, _ in model.passes) + ".")
        if model.training:
            raise Mistake(f"Given {given}, it leaves the model in train mode.")
        compare(got, want, given=given, mistakes=_wrong_units(seen[0], model, index, images), what="the list of dead units")
    model, index, _ = _features()
    with suppress(Mistake):
        answer(model, model[index], torch.zeros(2, 9))
    _no_hook(model, "inputs of a wrong size, for which the model raises")
    return "features and maps, values that cancel, a ReLU in place, one pass, no hook left, also after an error"


def _no_hook(model: nn.Module, given: str) -> None:
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        raise Mistake(f"Given {given}, it leaves its hook on the layer: handle.remove() in a `finally`.")


def _wrong_units(output: Tensor, model: nn.Module, index: int, images: Tensor) -> dict[str, Any]:
    def indices(truths: Tensor) -> list[int]:
        return truths.nonzero().flatten().tolist()

    units = output.transpose(0, 1).flatten(1)  # (units, everything else)
    dead = (units == 0).all(dim=1)
    behind = output.relu().transpose(0, 1).flatten(1)
    wrong: dict[str, Any] = {
        "lists the units that are alive": indices(~dead),
        "returns true and false, one a unit: their indices are asked for": dead.tolist(),
        "calls a unit dead that is zero somewhere: dead is zero everywhere": indices((units == 0).any(dim=1)),
        "looks at the first sample alone": indices((output[0].flatten(1) if output.ndim == 4 else output[0][:, None]).eq(0).all(dim=1)),
        "looks at the mean: positive and negative values cancel": indices(units.mean(dim=1).abs() < 1e-7),
        "calls negative values dead, or looks after the ReLU has written over them: dead is exactly 0": indices((behind == 0).all(dim=1)),
        "calls a unit dead that is the same everywhere: dead is 0 everywhere": indices(units.std(dim=1) < 1e-7),
        "lists the samples, not the units: the unit is axis 1": indices((output.flatten(1) == 0).all(dim=1)),
        "looks at the last axis: of maps (B, C, H, W) the unit is axis 1": indices((output.movedim(-1, 0).flatten(1) == 0).all(dim=1)),
        "counts them: the list of their indices is asked for": int(dead.sum()),
        "returns their share: the list of their indices is asked for": dead.float().mean().item(),
        "returns a tensor: a list is asked for": dead.nonzero().flatten(),
    }
    return wrong
