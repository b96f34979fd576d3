"""Exercises on the blocks of efficient networks: depthwise separable, squeeze-and-excitation, inverted residual.

Each answer builds a module under given names, so that it takes the weights of a known one; what it then computes is
compared in training and in eval mode, and told apart from variants of the block that share the very same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.exercises._blocks import Act, Forward, State, built_as, compare_blocks, norm, same
from dlcourse.exercises.checking import Answer, Mistake
from dlcourse.exercises.registry import register
from dlcourse.models.mobilenet_v2 import conv_norm_act


def depthwise_separable(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Module:
    class DepthwiseSeparable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv_dw = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
            self.bn1 = nn.BatchNorm2d(in_channels)
            self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out_channels)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu6(self.bn1(self.conv_dw(x)))
            return F.relu6(self.bn2(self.conv_pw(x)))

    return DepthwiseSeparable()


def check_depthwise_separable(answer: Answer) -> str:
    for given in ((2, 3, 1, (3, 3)), (3, 4, 2, (5, 5)), (4, 4, 1, (4, 7)), (4, 6, 2, (6, 9))):
        c, out, stride, size = given
        called = f"({c}, {out}, stride={stride})"
        built = built_as(answer(c, out, stride=stride), depthwise_separable(c, out, stride=stride), called)
        compare_blocks(built, partial(_separable, stride=stride), (3, c, *size), called, _separable_mistakes(stride))
    alone = built_as(answer(2, 3), depthwise_separable(2, 3), "(2, 3)")
    ignored = {"has another default than stride=1": partial(_separable, stride=2)}
    compare_blocks(alone, partial(_separable, stride=1), (3, 2, 4, 4), "(2, 3)", ignored)
    return "names and shapes, strides 1 and 2, odd sizes, both modes, running statistics, float64, every gradient"


def _separable(
    x: torch.Tensor, state: State, training: bool, *, stride: int, padding: int = 1, dilation: int = 1,
    pw_stride: int = 1, between: Act = F.relu6, after: Act = F.relu6, bn1: bool = True, bn2: bool = True,
    act_first: bool = False,
) -> torch.Tensor:  # fmt: skip
    x = F.conv2d(x, state["conv_dw.weight"], None, stride, padding, dilation, groups=x.shape[1])
    for name, used, act, last in (("bn1", bn1, between, False), ("bn2", bn2, after, True)):
        if last:
            x = F.conv2d(x, state["conv_pw.weight"], stride=pw_stride)
        x = act(x) if act_first else x
        x = norm(x, state, name, training) if used else x
        x = x if act_first else act(x)
    return x


def _separable_mistakes(stride: int) -> dict[str, Forward]:
    block = partial(_separable, stride=stride)

    def pointwise_first(x: torch.Tensor, state: State, training: bool) -> torch.Tensor:
        x = F.relu6(norm(F.conv2d(x, state["conv_pw.weight"]), state, "bn2", training))
        x = F.conv2d(x, state["conv_dw.weight"], stride=stride, padding=1, groups=x.shape[1])
        return F.relu6(norm(x, state, "bn1", training))

    return {
        "ignores the stride": partial(block, stride=1),
        "puts the stride into the pointwise convolution: the depthwise one then computes four times the places, and bn1 "
        "takes its statistics over all of them": partial(block, stride=1, pw_stride=stride),
        "applies the stride twice": partial(block, pw_stride=stride),
        "forgets the padding of the depthwise convolution": partial(block, padding=0),
        "pads by 2; a 3×3 kernel reaches 1 pixel over": partial(block, padding=2),
        "has no activation between the two convolutions": partial(block, between=same),
        "has no activation after the pointwise convolution": partial(block, after=same),
        "has no activation at all": partial(block, between=same, after=same),
        "activates with ReLU; ReLU6 is asked for": partial(block, between=F.relu, after=F.relu),
        "activates before it normalises": partial(block, act_first=True),
        "does not apply bn1": partial(block, bn1=False),
        "does not apply bn2": partial(block, bn2=False),
        "mixes the channels first and looks around afterwards; depthwise comes first": pointwise_first,
    }


def inverted_residual(in_channels: int, out_channels: int, *, stride: int, expansion: int) -> nn.Module:
    class InvertedResidual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            hidden = in_channels * expansion
            self.conv = nn.Sequential(
                *([conv_norm_act(in_channels, hidden, 1)] if expansion != 1 else []),
                conv_norm_act(hidden, hidden, 3, stride=stride, groups=hidden),
                nn.Conv2d(hidden, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.conv(x) if stride == 1 and in_channels == out_channels else self.conv(x)

    return InvertedResidual()


def check_inverted_residual(answer: Answer) -> str:
    from torchvision.models.mobilenetv2 import InvertedResidual

    # One channel or 2×2 pixels first: a shortcut that does not belong there fits by broadcasting, and has a name.
    for c, out, stride, expansion, size in (
        (1, 3, 1, 2, (3, 3)), (2, 2, 2, 3, (2, 2)), (2, 2, 1, 1, (3, 2)), (3, 3, 1, 2, (4, 5)), (3, 4, 2, 6, (5, 7)),
        (4, 2, 1, 1, (3, 3)), (4, 4, 1, 6, (6, 3)),
    ):  # fmt: skip
        called = f"({c}, {out}, stride={stride}, expansion={expansion})"
        built = answer(c, out, stride=stride, expansion=expansion)
        if expansion == 1 and isinstance(built, Answer) and "conv.3.weight" in built.state_dict():
            raise Mistake(f"It has an expansion layer though expansion is 1. Built with {called}, leave the first 1×1 away.")
        built = built_as(built, InvertedResidual(c, out, stride, expansion), called)
        block = partial(_inverted, stride=stride, shortcut=stride == 1 and c == out)
        compare_blocks(built, block, (3, c, *size), called, _inverted_mistakes(block, stride, c == out))
    return "torchvision's weights in seven blocks, with and without shortcut, both modes, running statistics, every gradient"


def _inverted(
    x: torch.Tensor, state: State, training: bool, *, stride: int, shortcut: bool, first: Act = F.relu6,
    second: Act = F.relu6, projected: Act = same, added: Act = same, strides: tuple[int, int, int] | None = None,
    padding: int = 1,
) -> torch.Tensor:  # fmt: skip
    expanding = "conv.3.weight" in state  # expand, look around, project and its batch norm; without expansion one less
    at = 1 if expanding else 0
    strides = strides or (1, stride, 1)
    out = x
    if expanding:
        out = first(norm(F.conv2d(out, state["conv.0.0.weight"], stride=strides[0]), state, "conv.0.1", training))
    weight = state[f"conv.{at}.0.weight"]
    out = F.conv2d(out, weight, stride=strides[1], padding=padding, groups=len(weight))
    out = second(norm(out, state, f"conv.{at}.1", training))
    out = F.conv2d(out, state[f"conv.{at + 1}.weight"], stride=strides[2])
    out = projected(norm(out, state, f"conv.{at + 2}", training))
    return added(x + out if shortcut else out)


def _inverted_mistakes(block: Callable[..., torch.Tensor], stride: int, same_width: bool) -> dict[str, Forward]:
    has = block.keywords["shortcut"] if isinstance(block, partial) else False
    adds = "adds a shortcut although " + (
        "the number of channels changes" if stride == 1 else "the stride is 2: the block no longer keeps its shape"
    )
    return {
        **({"has no shortcut, though the block keeps its shape": partial(block, shortcut=False)} if has else
           {adds: partial(block, shortcut=True)}),
        "activates the projection; the bottleneck is linear": partial(block, projected=F.relu6),
        "activates the projection with ReLU; the bottleneck is linear": partial(block, projected=F.relu),
        "activates the sum, as ResNet does; here it stays linear": partial(block, added=F.relu6),
        "activates the sum with ReLU, as ResNet does; here it stays linear": partial(block, added=F.relu),
        "activates with ReLU; ReLU6 is asked for": partial(block, first=F.relu, second=F.relu),
        "has no activation after the expansion": partial(block, first=same),
        "has no activation after the depthwise convolution": partial(block, second=same),
        "has no activation at all": partial(block, first=same, second=same),
        "puts the stride into the expansion; the depthwise convolution takes it": partial(block, strides=(stride, 1, 1)),
        "puts the stride into the projection; the depthwise convolution takes it": partial(block, strides=(1, 1, stride)),
        "ignores the stride": partial(block, strides=(1, 1, 1)),
        "forgets the padding of the depthwise convolution": partial(block, padding=0),
    }  # fmt: skip


def squeeze_excitation(channels: int, squeeze: int) -> nn.Module:
    class SqueezeExcitation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Conv2d(channels, squeeze, 1)
            self.fc2 = nn.Conv2d(squeeze, channels, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            squeezed = F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))  # (B, C, H, W) -> (B, squeeze, 1, 1)
            return x * F.hardsigmoid(self.fc2(squeezed))  # (B, C, H, W) · (B, C, 1, 1)

    return SqueezeExcitation()


def check_squeeze_excitation(answer: Answer) -> str:
    from torchvision.ops import SqueezeExcitation

    for c, squeeze, size in ((4, 3, (2, 2)), (3, 2, (1, 2)), (6, 4, (5, 3)), (8, 8, (3, 3))):
        called = f"({c}, {squeeze})"
        built = built_as(answer(c, squeeze), SqueezeExcitation(c, squeeze), called)
        compare_blocks(built, _squeeze, (3, c, *size), called, _squeeze_mistakes())
    return "torchvision's names and shapes, gates at 0, between and at 1, both modes, float64, every gradient"


def _squeeze(
    x: torch.Tensor, state: State, training: bool, *, pool: Act = lambda x: x.mean((2, 3), keepdim=True),
    act: Act = F.relu, gate: Act = F.hardsigmoid, combine: Callable[..., torch.Tensor] = torch.mul,
) -> torch.Tensor:  # fmt: skip
    squeezed = act(F.conv2d(pool(x), state["fc1.weight"], state["fc1.bias"]))
    return combine(x, gate(F.conv2d(squeezed, state["fc2.weight"], state["fc2.bias"])))


def _squeeze_mistakes() -> dict[str, Forward]:
    return {
        "gates with Sigmoid; Hardsigmoid is asked for": partial(_squeeze, gate=torch.sigmoid),
        "gates with a softmax: the channels then compete for a sum of 1": partial(_squeeze, gate=lambda x: x.softmax(1)),
        "gates with tanh, whose values lie between −1 and 1": partial(_squeeze, gate=torch.tanh),
        "has no gate function: the factors are not held between 0 and 1": partial(_squeeze, gate=same),
        "has no ReLU between fc1 and fc2": partial(_squeeze, act=same),
        "activates with SiLU between fc1 and fc2; ReLU is asked for": partial(_squeeze, act=F.silu),
        "activates with Hardswish between fc1 and fc2; ReLU is asked for": partial(_squeeze, act=F.hardswish),
        "averages over the batch too: an image's gate then depends on its neighbours":
            partial(_squeeze, pool=lambda x: x.mean((0, 2, 3), keepdim=True)),
        "squeezes with the maximum; the mean is asked for": partial(_squeeze, pool=lambda x: x.amax((2, 3), keepdim=True)),
        "sums over the pixels; the mean is asked for": partial(_squeeze, pool=lambda x: x.sum((2, 3), keepdim=True)),
        "computes a gate for each pixel: squeeze to one mean a channel first": partial(_squeeze, pool=same),
        "averages over the rows only": partial(_squeeze, pool=lambda x: x.mean(2, keepdim=True)),
        "adds the gate; it multiplies": partial(_squeeze, combine=torch.add),
        "returns the gate alone": partial(_squeeze, combine=lambda x, gate: gate),
        "adds its input to the gated one": partial(_squeeze, combine=lambda x, gate: x + x * gate),
    }  # fmt: skip


register(
    "efficient.depthwise_separable",
    depthwise_separable,
    check_depthwise_separable,
    difficulty=2,
    importance=5,
    minutes=15,
    hints=(
        "Two convolutions, each followed by batch norm and activation. Which of the two looks at neighbours, which "
        "mixes channels? Only the first one needs padding and the stride.",
        "nn.Conv2d(C, C, 3, stride, padding=1, groups=C, bias=False) filters each channel by itself.",
        "Give the module conv_dw, bn1, conv_pw and bn2 in this order; forward is "
        "relu6(bn1(conv_dw(x))), then relu6(bn2(conv_pw(x))).",
    ),
)

register(
    "efficient.squeeze_excitation",
    squeeze_excitation,
    check_squeeze_excitation,
    difficulty=2,
    importance=4,
    minutes=12,
    hints=(
        "Squeeze each channel to one number, let a small network turn the C numbers into C gates, multiply.",
        "x.mean(dim=(2, 3), keepdim=True) has shape (B, C, 1, 1), which two 1×1 convolutions take as it is.",
        "gate = F.hardsigmoid(fc2(F.relu(fc1(mean)))); the result is x * gate, broadcast over the pixels.",
    ),
)

register(
    "efficient.inverted_residual",
    inverted_residual,
    check_inverted_residual,
    difficulty=3,
    importance=5,
    minutes=20,
    hints=(
        "Thin, wide, thin: expand by 1×1, look around within each channel, project by 1×1. One of the three has no "
        "activation, and with expansion 1 one of the three is missing.",
        "self.conv is an nn.Sequential whose entries are: conv_norm_act(…, 1) unless expansion is 1, conv_norm_act(…, 3, "
        "stride=stride, groups=hidden), nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels).",
        "forward returns x + self.conv(x) where stride is 1 and in_channels equals out_channels, else self.conv(x).",
    ),
)
