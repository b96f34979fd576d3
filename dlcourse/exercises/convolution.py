"""Exercises on convolution: how large its output is, and the operation itself."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import ceil
from typing import Any

import torch
from torch.nn import functional as F

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Options = dict[str, int]
_torchs: Callable[..., torch.Tensor] = F.conv2d  # its stub wants each option spelled out


def output_size(size: int, kernel_size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    extent = dilation * (kernel_size - 1) + 1  # pixels from the kernel's first tap to its last
    return (size + 2 * padding - extent) // stride + 1


# Wrong formulas of (room, size, kernel_size, stride, padding, dilation); room is how far the window can move.
WRONG_SIZES: dict[str, Callable[[int, int, int, int, int, int], int]] = {
    "counts the steps the window can take, and forgets the place where it starts: add 1":
        lambda room, n, k, s, p, d: room // s,
    "pads one side only: there are 2 · padding more pixels": lambda room, n, k, s, p, d: (room - p) // s + 1,
    "ignores the padding": lambda room, n, k, s, p, d: (room - 2 * p) // s + 1,
    "ignores the dilation": lambda room, n, k, s, p, d: (n + 2 * p - k) // s + 1,
    "takes a dilated kernel for dilation · kernel_size wide: there are gaps only between its taps":
        lambda room, n, k, s, p, d: (n + 2 * p - d * k) // s + 1,
    "ignores the stride": lambda room, n, k, s, p, d: room + 1,
    "rounds up, and lets the last window hang over the edge": lambda room, n, k, s, p, d: ceil(room / s) + 1,
    "adds the 1 before it divides by the stride": lambda room, n, k, s, p, d: (room + 1) // s,
    "takes the window for dilation · (kernel_size − 1) pixels wide, one too few":
        lambda room, n, k, s, p, d: (room + 1) // s + 1,
    "divides the padded size by the stride and forgets the kernel": lambda room, n, k, s, p, d: (n + 2 * p) // s,
}


def check_output_size(answer: Answer) -> str:
    cases = [
        (size + 2 * p - d * (k - 1) - 1, size, k, s, p, d)
        for d, s, p, k, size in product((1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 3, 2, 5), (13, 16, 32))
    ]
    got = [answer(size, k, stride=s, padding=p, dilation=d) for _, size, k, s, p, d in cases]
    # Formulas agree by chance on some sizes: a mistake is named only when it explains every answer.
    single = all(getattr(result, "ndim", 0) == 0 for result in got)  # a list of arrays cannot be compared with ==
    mistakes = {text: f for text, f in WRONG_SIZES.items() if single and got == [f(*case) for case in cases]}
    for result, (room, size, k, s, p, d) in zip(got, cases, strict=True):
        given = describe(size, k, stride=s, padding=p, dilation=d)
        if isinstance(result, float) or (isinstance(result, torch.Tensor) and result.is_floating_point()):
            raise Mistake(f"It returns the float {result} for {given}, and a size is a whole number: divide with `//`.")
        named = {text: wrong(room, size, k, s, p, d) for text, wrong in mistakes.items()}
        compare(result, room // s + 1, given=given, what="the output size", mistakes=named)
    if (alone := answer(13, 3)) != 11:
        raise Mistake(
            "Its defaults are not stride=1, padding=0 and dilation=1. "
            f"Given {describe(13, 3)} alone, the output size is {describe(alone)} where 11 is expected."
        )
    return f"{len(cases)} combinations of size, kernel, stride, padding and dilation"


register(
    "convolution.output_size",
    output_size,
    check_output_size,
    difficulty=2,
    importance=5,
    minutes=8,
    hints=(
        "Without stride: at how many places can a window of 3 start in a row of 5? Then spread its taps apart.",
        "A dilated kernel reaches over dilation · (kernel_size − 1) + 1 pixels; the row is size + 2 · padding long.",
        "Subtract the reach from the row: that is the room. The window stands once, and again after each stride.",
    ),
)


def conv2d(
    images: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> torch.Tensor:
    images = F.pad(images, (padding, padding, padding, padding))
    _, _, h, w = weight.shape
    height = (images.shape[2] - dilation * (h - 1) - 1) // stride + 1
    width = (images.shape[3] - dilation * (w - 1) - 1) // stride + 1
    out = torch.zeros(len(images), len(weight), height, width, dtype=images.dtype)
    for i in range(h):
        for j in range(w):
            top, left = i * dilation, j * dilation
            seen = images[:, :, top : top + stride * height : stride, left : left + stride * width : stride]
            seen = seen[:, :, :height, :width]  # (B, C, H', W'): what tap (i, j) meets at each place
            out = out + torch.einsum("bchw,kc->bkhw", seen, weight[:, :, i, j])
    return out if bias is None else out + bias[:, None, None]


def check_conv2d(answer: Answer) -> str:
    def inputs(size: tuple[int, int], channels: int, filters: int, kernel: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        # Small whole numbers, so that what a message shows can be followed by hand.
        return (
            torch.randint(-3, 4, (2, channels, *size)).float(),
            torch.randint(-3, 4, (filters, channels, *kernel)).float(),
            torch.randint(1, 5, (filters,)).float(),
        )

    one = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3), torch.tensor([[[[1.0, 2.0], [0.0, 5.0]]]])
    cases: list[tuple[tuple[torch.Tensor, ...], Options]] = [
        (one, {}),
        (inputs((4, 5), 1, 1, (2, 2))[:2], {}),
        (inputs((4, 4), 2, 2, (2, 2))[:2], {}),
        (inputs((4, 5), 3, 2, (2, 2)), {}),
        (inputs((5, 4), 2, 3, (3, 3)), {"padding": 1}),
        (inputs((7, 6), 2, 3, (3, 3)), {"stride": 2}),
        (inputs((8, 7), 2, 3, (3, 3)), {"dilation": 2}),
        (inputs((6, 9), 3, 4, (1, 1)), {"stride": 3}),
        (inputs((11, 14), 3, 5, (3, 2)), {"stride": 2, "padding": 2, "dilation": 3}),
        (inputs((9, 8), 3, 4, (2, 5)), {"stride": 3, "padding": 1}),
    ]
    for arguments, options in cases:
        got = answer(*arguments, **options)
        mistakes = _conv_mistakes(*arguments, options=options)
        compare(got, _torchs(*arguments, **options), given=describe(*arguments, **options), mistakes=mistakes)

    images, weight, bias = (t.double().requires_grad_() for t in inputs((5, 6), 2, 3, (3, 2)))
    out = answer(images, weight, bias, padding=1)
    want = F.conv2d(images, weight, bias, padding=1)
    compare(out, want, given="the same in float64, with gradients asked for")
    if not out.requires_grad:
        raise Mistake("It cuts the gradient: its result is not connected to the images and weights.")
    slopes = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).reshape(out.shape)
    for name, tensor in (("images", images), ("weight", weight), ("bias", bias)):
        ours = torch.autograd.grad((out * slopes).sum(), tensor, retain_graph=True, allow_unused=True)[0]
        theirs = torch.autograd.grad((want * slopes).sum(), tensor, retain_graph=True)[0]
        if ours is None:
            raise Mistake(f"It cuts the gradient of the {name}.")
        compare(ours, theirs, given="float64 input", what=f"the gradient of the {name}")
    return "channels, bias, padding, stride, dilation, odd and oblong sizes, float64, and every gradient"


def _conv_mistakes(
    images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, options: Options
) -> dict[str, Callable[[], torch.Tensor]]:
    stride, padding, dilation = options.get("stride", 1), options.get("padding", 0), options.get("dilation", 1)

    def conv(x: torch.Tensor = images, w: torch.Tensor = weight, **changed: Any) -> torch.Tensor:
        return _torchs(x, w, **{"bias": bias, **options, **changed})

    channels = images.shape[1]
    edges = (padding,) * 4
    return {
        "flips the kernel (the convolution of mathematics); networks slide it as it is":
            lambda: conv(w=weight.flip(2, 3)),
        "swaps the rows and columns of the kernel": lambda: conv(w=weight.transpose(2, 3)),
        "forgets the bias": lambda: conv(bias=None),
        "subtracts the bias": lambda: conv(bias=None if bias is None else -bias),
        "adds the bias once for every input channel": lambda: conv(bias=None if bias is None else channels * bias),
        "forgets the padding": lambda: conv(padding=0),
        "pads the height only": lambda: conv(padding=(padding, 0)),
        "pads the width only": lambda: conv(padding=(0, padding)),
        "pads above and to the left only": lambda: conv(F.pad(images, (padding, 0, padding, 0)), padding=0),
        "pads with copies of the edge instead of zeros":
            lambda: conv(F.pad(images, edges, mode="replicate"), padding=0),
        "ignores the stride": lambda: conv(stride=1),
        "applies the stride to the rows only": lambda: conv(stride=(stride, 1)),
        "applies the stride to the columns only": lambda: conv(stride=(1, stride)),
        "ignores the dilation": lambda: conv(dilation=1),
        "applies the dilation to the rows only": lambda: conv(dilation=(dilation, 1)),
        "applies the dilation to the columns only": lambda: conv(dilation=(1, dilation)),
        "uses the first input channel only": lambda: conv(images[:, :1], weight[:, :1]),
        "averages over the input channels; a convolution sums them": lambda: conv(w=weight / channels),
        "takes the average under the window; a convolution is the sum": lambda: conv(w=weight / weight[0, 0].numel()),
        "uses the same channel of the kernel for every input channel": lambda: conv(w=weight[:, :1].expand_as(weight)),
        "takes weight as (in, out, h, w); it is (out, in, h, w)": lambda: conv(w=weight.transpose(0, 1)),
    }


register(
    "convolution.conv2d",
    conv2d,
    check_conv2d,
    difficulty=4,
    importance=5,
    minutes=25,
    hints=(
        "Start from the loop above: pad first (F.pad), compute the size of the output, then fill it place by place.",
        "The place (y, x) of the output sees images[:, :, y·stride + i·dilation, x·stride + j·dilation] under the tap "
        "(i, j).",
        "A patch is a slice with a step: images[:, None, :, top:top + reach_h:dilation, left:left + reach_w:dilation], "
        "with reach = dilation · (kernel − 1) + 1. Multiply it by weight (K, C, h, w), sum over the last three axes, "
        "add the bias.",
    ),
)
