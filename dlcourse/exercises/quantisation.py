"""Exercises on quantisation (chapter 17): 8 bits for one tensor, and a scale for each output channel of a weight.

Source: Jacob et al. 2018, Quantization and training of neural networks for efficient integer-arithmetic-only inference
(arXiv:1712.05877).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register


def affine_quantize(x: Tensor) -> tuple[Tensor, float, int]:
    """uint8 with one scale and one zero point, such that 0.0 is stored exactly: x ≈ (q − zero_point) · scale."""
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)  # 0 always lies in the range
    scale = (high - low) / 255 or 1.0  # 256 values have 255 steps between them
    zero_point = round(-low / scale)
    q = (torch.round(x / scale) + zero_point).clamp(0, 255).to(torch.uint8)
    return q, scale, zero_point


def on_grid(low: float, high: float, shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers that no rounding error moves across a half: each near a multiple of the scale; both ends occur."""
    generator = torch.Generator().manual_seed(seed)
    scale = (max(high, 0.0) - min(low, 0.0)) / 255
    places = torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) / scale + low / scale
    places = places.round() + 0.6 * torch.rand(shape, generator=generator, dtype=torch.float64) - 0.3
    x = (places * scale).clamp(low, high)
    x.view(-1)[0], x.view(-1)[-1] = high, low
    return x.to(dtype)


def check_affine_quantize(answer: Answer) -> str:
    cases = [
        torch.tensor([-10.0, 0.0, 245.0]),
        torch.tensor([-10.0, -0.75, 0.25, 0.75, 117.5]),  # scale 0.5: three lie in the middle between two values
        torch.tensor([102.0, 153.0, 204.0, 255.0]),  # 0 is not among them, and must be exact all the same
        torch.tensor([-51.0, -10.0, -20.0]),
        torch.tensor([-11.5, 0.0, 243.5]),  # the largest would become 256
        torch.zeros(3),
        on_grid(-1.3, 2.9, (3, 4, 5), 1),
        on_grid(-0.2, 7.0, (37,), 2, torch.float64),
        on_grid(0.5, 3.0, (2, 3, 5, 5), 3),
    ]
    for x in cases:
        got, given = answer(x), describe(x)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Mistake(f"It returns {describe(got)}; three things are asked for: q, scale, zero_point.")
        if not x.any():
            _all_zero(got, given)
            continue
        if isinstance(got[0], Tensor) and got[0].dtype == torch.int8:
            raise Mistake(f"Given {given}, q is int8, from −128 to 127; uint8, from 0 to 255, is asked for.")
        compare(tuple(got), affine_quantize(x), given=given, mistakes=_affine_mistakes(x), rtol=1e-6, atol=1e-9,
                what="(q, scale, zero_point)")  # fmt: skip
    return "halves, ranges beside zero, an end that would overflow, zeros only, two dtypes, one to four axes"


def _all_zero(got: Any, given: str) -> None:
    """For zeros only any positive scale will do, but zero must come back."""
    q, scale, zero_point = got
    if not float(scale) > 0:
        raise Mistake(f"Given {given}, the scale is {float(scale)}: dividing by it gives nan. Take 1 where the range is empty.")
    compare((q.float() - zero_point) * float(scale), torch.zeros(3), given=given, what="(q − zero_point) · scale")
    if q.dtype != torch.uint8:
        raise Mistake(f"Given {given}, q has dtype {q.dtype}; torch.uint8 is asked for.")


def _affine_mistakes(x: Tensor) -> dict[str, Callable[[], Any]]:
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    scale, largest = (high - low) / 255, x.abs().max().item()

    def result(scale: float = scale, zero: Any = None, rounded: Callable[[Tensor], Tensor] = torch.round, clamp: bool = True) -> Any:
        zero = round(-low / scale) if zero is None else zero
        q = rounded(x / scale) + zero
        return (q.clamp(0, 255) if clamp else q.long() % 256).to(torch.uint8), scale, zero

    own = (x.max() - x.min()).item() / 255
    return {
        "takes the range from the least to the greatest number alone: 0 must lie in it, padding and ReLU need it exactly":
            lambda: result(own, max(min(round(-x.min().item() / own), 255), 0)),
        "takes the range from the least to the greatest number alone, so that the zero point leaves 0 … 255":
            lambda: result(own, round(-x.min().item() / own)),
        "divides the range by 256: from 0 to 255 there are 255 steps": lambda: result((high - low) / 256),
        "cuts the fraction off instead of rounding": lambda: result(rounded=torch.trunc),
        "rounds down instead of to the nearest": lambda: result(rounded=torch.floor),
        "rounds a half up, where torch.round and the hardware go to the even neighbour":
            lambda: result(rounded=lambda t: torch.floor(t + 0.5)),
        "rounds a half away from zero, where torch.round goes to the even neighbour":
            lambda: result(rounded=lambda t: torch.sign(t) * torch.floor(t.abs() + 0.5)),
        "lets numbers beyond 255 begin again at 0: clamp before the cast": lambda: result(clamp=False),
        "leaves the zero point unrounded: it must be an integer, or 0 is not stored exactly":
            lambda: ((torch.round(x / scale) + -low / scale).clamp(0, 255).to(torch.uint8), scale, -low / scale),
        "subtracts the zero point instead of adding it": lambda: (
            (torch.round(x / scale) - round(-low / scale)).clamp(0, 255).to(torch.uint8), scale, round(-low / scale)),
        "forgets to add the zero point": lambda: (torch.round(x / scale).clamp(0, 255).to(torch.uint8), scale, round(-low / scale)),
        "is symmetric, with a scale from the greatest magnitude: that is for weights": lambda: result(largest / 127, 128),
        "is symmetric, with a zero point of 0: negative numbers are lost": lambda: result(largest / 127, 0),
        "returns the inverse of the scale": lambda: (result()[0], 1 / scale, round(-low / scale)),
        "returns the numbers back in float: q itself is asked for": lambda: (
            (result()[0].to(x.dtype) - round(-low / scale)) * scale, scale, round(-low / scale)),
    }  # fmt: skip


def per_channel_scales(weight: Tensor) -> Tensor:
    """The scale of each output channel for symmetric int8: (K, …) -> (K,), the greatest magnitude over 127."""
    greatest = weight.detach().abs().flatten(1).amax(dim=1)  # (K, …) -> (K, n) -> (K,)
    return torch.where(greatest > 0, greatest / 127, 1.0)


def check_per_channel_scales(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    cases = [
        torch.tensor([[1.0, -254.0], [127.0, 3.0], [-0.5, 0.25]]),
        torch.tensor([[[[2.0, -1.0]]], [[[0.0, 0.0]]]]),  # a channel of zeros, as pruning leaves it
        torch.randn(5, 3, 3, 3, generator=generator) * torch.tensor([0.01, 0.1, 1.0, 10.0, 3.0])[:, None, None, None],
        torch.randn(4, 7, generator=generator, dtype=torch.float64),
        torch.randn(3, 3, 3, 3, generator=generator),  # as many outputs as inputs
        torch.randn(6, 1, 5, generator=generator),
    ]
    for weight in cases:
        want = per_channel_scales(weight)
        got = answer(weight)
        compare(got, want, given=describe(weight), mistakes=_scale_mistakes(weight), rtol=1e-5, atol=0, what="the scales")
    layer = torch.nn.Conv2d(2, 3, 3)  # a parameter, which carries a gradient
    compare(answer(layer.weight), per_channel_scales(layer.weight), given="the weight of a Conv2d", rtol=1e-5, atol=0)
    return "two to four axes, a channel of zeros, square weights, float64, a parameter of a layer"


def _scale_mistakes(weight: Tensor) -> dict[str, Callable[[], Any]]:
    flat = weight.flatten(1)
    greatest = flat.abs().amax(1)

    def safe(values: Tensor) -> Tensor:
        return torch.where(greatest > 0, values, 1.0)

    return {
        "gives one scale for the whole tensor: one for each output channel is asked for":
            lambda: (weight.abs().max() / 127).expand(len(weight)).clone(),
        "gives one number for the whole tensor: one for each output channel is asked for": lambda: weight.abs().max() / 127,
        "goes over the input channels: the output channels are the first axis":
            lambda: weight.transpose(0, 1).flatten(1).abs().amax(1) / 127,
        "keeps the axes: the scales are a vector (K,)": lambda: safe(greatest / 127).view(-1, *[1] * (weight.ndim - 1)),
        "takes the greatest number, where the greatest magnitude is meant: a negative weight may be larger":
            lambda: safe(flat.amax(1) / 127),
        "gives 0 for a channel of zeros, which divides by 0 later: give 1": lambda: greatest / 127,
        "gives a tiny scale for a channel of zeros: give 1": lambda: greatest.clamp(min=1e-8) / 127,
        "divides by 128: symmetric int8 goes from −127 to 127": lambda: safe(greatest / 128),
        "divides by 255: a sign takes one of the 8 bits": lambda: safe(greatest / 255),
        "takes the span from least to greatest, as for unsigned activations": lambda: safe((flat.amax(1) - flat.amin(1)) / 255),
        "takes the mean magnitude: the greatest would be cut off": lambda: safe(flat.abs().mean(1) / 127),
        "takes the standard deviation: the greatest would be cut off": lambda: safe(flat.std(1) / 127),
        "gives the greatest magnitude itself: divide it by 127": lambda: safe(greatest),
        "gives the inverse of the scales": lambda: 127 / greatest,
        "changes the dtype to float32": lambda: safe(greatest / 127).float(),
    }  # fmt: skip


register(
    "quantisation.affine_quantize",
    affine_quantize,
    check_affine_quantize,
    difficulty=3,
    importance=5,
    minutes=20,
    hints=(
        "Find the range first: from the least to the greatest number, stretched so that 0 lies in it.",
        "256 values have 255 steps: scale = (high − low) / 255. The zero point is the q that stands for 0.0: round(−low / scale).",
        "q = (torch.round(x / scale) + zero_point).clamp(0, 255).to(torch.uint8); where the range is empty, take scale 1.",
    ),
)
register(
    "quantisation.per_channel_scales",
    per_channel_scales,
    check_per_channel_scales,
    difficulty=2,
    importance=4,
    minutes=10,
    hints=(
        "Each output channel is one row weight[k]; what is its greatest magnitude?",
        "weight.flatten(1) makes rows of any number of axes; .abs().amax(dim=1) takes the greatest magnitude of each.",
        "Divide by 127, and put 1 where the channel holds zeros only: torch.where(greatest > 0, greatest / 127, 1.0).",
    ),
)
