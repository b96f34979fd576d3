"""Exercise on explanations (chapter 15): Grad-CAM's formula.

Source: Selvaraju et al. 2016, Grad-CAM: visual explanations from deep networks (arXiv:1610.02391), equations 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlcourse.exercises.checking import Answer, compare, describe
from dlcourse.exercises.registry import register


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """(B, C, h, w), and the gradient of the class's logit with respect to it -> the heat map (B, h, w)."""
    weights = gradients.mean(dim=(2, 3))  # (B, C, h, w) -> (B, C)
    return torch.einsum("bc,bchw->bhw", weights, activations).relu()


def check_grad_cam(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    small = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[3.0, -1.0], [1.0, 0.0]]]])  # (1, 2, 2, 2)
    cases = [(small, torch.tensor([[[[3.0, 1.0], [2.0, -2.0]], [[-1.0, -3.0], [0.0, 0.0]]]]))]  # mean gradients 1 and −1
    for shape, dtype in (((1, 3, 2, 2), torch.float32), ((2, 5, 4, 3), torch.float32), ((3, 3, 3, 3), torch.float64), ((2, 4, 1, 1), torch.float32)):
        cases.append(tuple(torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2)))  # type: ignore[arg-type]
    for activations, gradients in cases:
        want = grad_cam(activations, gradients)
        compare(answer(activations, gradients), want, given=describe(activations, gradients), mistakes=_mistakes(activations, gradients))
    return "maps by hand, several images and channels, places that are not square, and float64"


def _mistakes(a: Tensor, g: Tensor) -> dict[str, Callable[[], Tensor]]:
    w = g.mean(dim=(2, 3), keepdim=True)
    want = grad_cam(a, g)

    def low_to_high() -> Tensor:
        low, high = want.amin((1, 2), keepdim=True), want.amax((1, 2), keepdim=True)
        return (want - low) / (high - low)

    return {
        "forgets the ReLU: evidence against the class is to be left out": lambda: (w * a).sum(1),
        "applies the ReLU to each channel before the sum: channels must be able to cancel": lambda: (w * a).relu().sum(1),
        "applies the ReLU to the weights: a channel may speak against the class": lambda: (w.relu() * a).sum(1).relu(),
        "applies the ReLU to the gradients before their mean": lambda: (g.relu().mean((2, 3), keepdim=True) * a).sum(1).relu(),
        "takes the gradients' absolute values": lambda: (g.abs().mean((2, 3), keepdim=True) * a).sum(1).relu(),
        "takes the absolute value in place of the ReLU": lambda: (w * a).sum(1).abs(),
        "multiplies each place by its own gradient: average the gradient over the places first": lambda: (g * a).sum(1).relu(),
        "adds the gradients up over the places: their mean is meant": lambda: (g.sum((2, 3), keepdim=True) * a).sum(1).relu(),
        "takes the largest gradient of each channel: the mean is meant": lambda: (g.amax((2, 3), keepdim=True) * a).sum(1).relu(),
        "averages the gradient over the batch too: each image has its own weights": lambda: (g.mean((0, 2, 3), keepdim=True) * a).sum(1).relu(),
        "averages the gradient over the channels: each channel has its own weight": lambda: (g.mean((1,), keepdim=True) * a).sum(1).relu(),
        "averages the gradient over one of the two axes of places": lambda: (g.mean(2, keepdim=True) * a).sum(1).relu(),
        "averages the gradient over one of the two axes of places.": lambda: (g.mean(3, keepdim=True) * a).sum(1).relu(),
        "takes the mean over the channels: their sum is meant": lambda: (w * a).mean(1).relu(),
        "does not weight the channels": lambda: a.sum(1).relu(),
        "does not use the activations": lambda: g.sum(1).relu(),
        "has activations and gradients the wrong way round": lambda: (a.mean((2, 3), keepdim=True) * g).sum(1).relu(),
        "turns the weights into a softmax": lambda: (w.softmax(1) * a).sum(1).relu(),
        "scales each map to its largest value: leave it as it is": lambda: want / want.amax((1, 2), keepdim=True),
        "scales each map to its largest value: leave it as it is.": lambda: want / (want.amax((1, 2), keepdim=True) + 1e-8),
        "scales each map to 0 … 1: leave it as it is": low_to_high,
        "keeps an axis for the channels: the map has shape (B, h, w)": lambda: (w * a).sum(1, keepdim=True).relu(),
        "does not add the channels up": lambda: (w * a).relu(),
    }  # fmt: skip


register(
    "explain.grad_cam",
    grad_cam,
    check_grad_cam,
    difficulty=2,
    importance=4,
    minutes=10,
    hints=(
        "Each channel gets one weight: how the logit changes when the channel grows, averaged over the places.",
        "weights = gradients.mean(dim=(2, 3)), one for each image and channel. Then the weighted sum of the channels.",
        "(weights[:, :, None, None] * activations).sum(dim=1), and the ReLU comes last, after the sum.",
    ),
)
