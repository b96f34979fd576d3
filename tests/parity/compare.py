"""Hold a model against the reference of its name: `python tests/parity/compare.py ["resnet*" …]` prints a table.

Both get the same weights, by name and strictly, and the same images; everything that can differ is measured. ViT-H takes
20 GB of memory, the others 10 or less.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import timm
import torch
import torchvision
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from zoo import lively, sides, without_chance

from dlcourse.models import count_macs, count_parameters, create_model, list_models
from dlcourse.models.efficientnet import SCALES

TIMM_NAMES = {"mobilenet_v1": "mobilenetv1_100"} | {name: f"{name}_224" for name in list_models("vit*")}


@dataclass(frozen=True)
class Comparison:
    """The largest absolute differences between a model and its reference, and what is equal of their sizes."""

    name: str
    parameters: int
    same_parameters: bool
    macs: int
    same_macs: bool
    eval64: float
    eval32: float
    train64: float
    gradient: float
    buffers: float
    stepped: float


def reference(name: str, num_classes: int = 1000, **options: object) -> nn.Module:
    """torchvision's or timm's model of this architecture, with random weights."""
    if name in TIMM_NAMES:
        return timm.create_model(TIMM_NAMES[name], num_classes=num_classes, **options)
    return torchvision.models.get_model(name, num_classes=num_classes, **options)


def both(name: str, num_classes: int, size: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """Ours and the reference for images of `size`, float64, with the same lively weights, loaded strictly by name."""
    options = {"img_size": size} if name.startswith("vit") else {}
    theirs = lively(without_chance(reference(name, num_classes, **options).double()))
    ours = without_chance(create_model(name, num_classes, **options).double())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    if ours.shape != theirs.shape or not (ours.isfinite().all() and theirs.isfinite().all()):
        return float("inf")
    return (ours - theirs).abs().max().item() if ours.numel() else 0.0


def largest(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max((difference(ours[key], theirs[key]) for key in ours), default=0.0)


def train_once(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One training step of gradient descent; returns the logits before it and the gradients, that of x too."""
    model.train()
    x = x.clone().requires_grad_()
    logits = model(x)
    slopes = torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).reshape(logits.shape)  # so nothing cancels
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad((logits * slopes).sum(), [x, *parameters])
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients[1:], strict=True):
            parameter -= 1e-3 * gradient / (1 + gradient.norm())
    return logits.detach(), dict(zip(["x", *names], gradients, strict=True))


def compare(name: str, num_classes: int = 7, size: tuple[int, int] | None = None) -> Comparison:
    """Everything about one model, with double precision unless said otherwise."""
    size = size or sides(name)
    pair = both(name, num_classes, size)
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def evaluated(dtype: torch.dtype) -> float:
        with torch.no_grad():
            return difference(*(model.to(dtype).eval()(x.to(dtype)) for model in pair))

    eval64 = evaluated(torch.float64)
    (logits, gradients), (their_logits, their_gradients) = (train_once(model, x) for model in pair)
    gradient = largest(gradients, their_gradients)
    del gradients, their_gradients
    buffers = largest(*(dict(model.named_buffers()) for model in pair))
    stepped = evaluated(torch.float64)
    counts = [count_parameters(model) for model in pair]
    macs = [count_macs(model, (3, *size)) for model in pair]
    return Comparison(
        name, counts[0], counts[0] == counts[1], macs[0], macs[0] == macs[1], eval64, evaluated(torch.float32),
        difference(logits, their_logits), gradient, buffers, stepped,
    )  # fmt: skip


def published(name: str, side: int | None = None) -> tuple[int, int]:
    """Parameters and MACs with 1000 classes, at the resolution of the papers' tables unless `side` says otherwise."""
    side = side or (SCALES[name[-2:]].resolution if name.startswith("efficientnet") else 224)
    with torch.device("meta"):
        model = create_model(name)
    return count_parameters(model), count_macs(model, (3, side, side))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["*"])
    patterns = parser.parse_args().patterns
    print("| model | parameters | MACs | strict | eval, float64 | eval, float32 | train | gradient | buffers | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in list_models():
        if name != "simple_cnn" and any(fnmatch(name, pattern) for pattern in patterns):
            started = time.perf_counter()
            c = compare(name)
            parameters, macs = published(name)
            equal = "yes" if c.same_parameters and c.same_macs else "NO"
            print(
                f"| {name} | {parameters:,} | {macs / 1e9:.3f} G | {equal} | {c.eval64:.1e} | {c.eval32:.1e} | "
                f"{c.train64:.1e} | {c.gradient:.1e} | {c.buffers:.1e} | {time.perf_counter() - started:.0f} |",
                flush=True,
            )
            gc.collect()


if __name__ == "__main__":
    main()
