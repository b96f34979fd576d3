"""Wrong answers to the exercises on the blocks of efficient networks."""

import torch
from planting import mistake
from torch import nn
from torch.nn import functional as F

from dlcourse.models.mobilenet_v2 import conv_norm_act


def named(name, function):
    function.__name__ = name
    return function


class Separable(nn.Module):
    """Depthwise separable, with one part of it replaced."""

    def __init__(
        self, c, out, stride=1, *, dw_stride=None, pw_stride=1, padding=1, groups=None, bias=False, bn1=None, bn2=None,
        between=F.relu6, after=F.relu6, kernel=3, pw_kernel=1,
    ):  # fmt: skip
        super().__init__()
        self.conv_dw = nn.Conv2d(c, c, kernel, dw_stride or stride, padding, groups=groups or c, bias=bias)
        self.bn1 = bn1(c) if bn1 else nn.BatchNorm2d(c)
        self.conv_pw = nn.Conv2d(c, out, pw_kernel, pw_stride, padding=pw_kernel // 2, bias=bias)
        self.bn2 = bn2(out) if bn2 else nn.BatchNorm2d(out)
        self.between, self.after = between, after

    def forward(self, x):
        return self.after(self.bn2(self.conv_pw(self.between(self.bn1(self.conv_dw(x))))))


def separable(says, name, module=Separable, **parts):
    def build(in_channels, out_channels, *, stride=1):
        changed = {key: value(stride) if key.endswith("stride") else value for key, value in parts.items()}
        return module(in_channels, out_channels, stride, **changed)

    mistake("efficient.depthwise_separable", says=says)(named(name, build))


def identity(x):
    return x


separable("forgets groups", "groups_forgotten", groups=1)
separable("forgets the padding of the depthwise", "no_padding", padding=0)
separable("pads by 2", "too_much_padding", padding=2)
separable("puts the stride into the pointwise", "stride_in_the_pointwise", dw_stride=lambda s: 1, pw_stride=lambda s: s)
separable("ignores the stride", "no_stride", dw_stride=lambda s: 1)
separable("applies the stride twice", "stride_in_both", pw_stride=lambda s: s)
separable("no activation between", "nothing_between", between=identity)
separable("no activation after the pointwise", "linear_at_the_end", after=identity)
separable("no activation at all", "no_activation", between=identity, after=identity)
separable("activates with ReLU; ReLU6", "relu", between=F.relu, after=F.relu)
separable("gives a convolution a bias", "bias", bias=True)
separable(r"has no `bn1\.weight`", "batch_norm_missing", bn1=lambda c: nn.Identity(), bn2=lambda c: nn.Identity())
separable(r"takes a 5×5 kernel where 3×3", "large_kernel", kernel=5, padding=2)
separable(r"takes a 3×3 kernel where 1×1", "pointwise_of_nine_taps", pw_kernel=3)
separable(r"`bn1\.running_mean` afterwards", "slow_batch_norm", bn1=lambda c: nn.BatchNorm2d(c, momentum=0.01))


class ActivatesFirst(Separable):
    def forward(self, x):
        return self.bn2(F.relu6(self.conv_pw(self.bn1(F.relu6(self.conv_dw(x))))))


class WithoutBn1(Separable):
    def forward(self, x):
        return F.relu6(self.bn2(self.conv_pw(F.relu6(self.conv_dw(x)))))


class WithoutBn2(Separable):
    def forward(self, x):
        return F.relu6(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)))))


class PointwiseFirst(nn.Module):
    def __init__(self, c, out, stride):
        super().__init__()
        self.conv_pw, self.bn1 = nn.Conv2d(c, out, 1, bias=False), nn.BatchNorm2d(out)
        self.conv_dw = nn.Conv2d(out, out, 3, stride, 1, groups=out, bias=False)
        self.bn2 = nn.BatchNorm2d(out)

    def forward(self, x):
        return F.relu6(self.bn2(self.conv_dw(F.relu6(self.bn1(self.conv_pw(x))))))


class Detached(Separable):
    def forward(self, x):
        return super().forward(x).detach()


separable("activates before it normalises", "activation_before_norm", ActivatesFirst)
separable("does not apply bn1", "bn1_unused", WithoutBn1)
separable("does not apply bn2", "bn2_unused", WithoutBn2)
separable(r"`conv_dw\.weight` has shape \(3, 1, 3, 3\)", "pointwise_first", PointwiseFirst)
separable("cuts the gradient", "detached", Detached)


@mistake("efficient.depthwise_separable", says="an nn.Module is asked for")
def returns_a_tensor(in_channels, out_channels, *, stride=1):
    return torch.zeros(in_channels)


@mistake("efficient.depthwise_separable", says="has another default than stride=1")
def default_of_two(in_channels, out_channels, *, stride=2):
    return Separable(in_channels, out_channels, stride)


class Inverted(nn.Module):
    """V2's inverted residual, with one part of it replaced."""

    def __init__(
        self, c, out, stride, expansion, *, hidden=None, strides=None, groups=None, shortcut=None, acts=(nn.ReLU6, nn.ReLU6),
        projected=None, always_expand=False, bias=False, padding=None, added=identity,
    ):  # fmt: skip
        super().__init__()
        hidden = hidden(c, out, expansion) if hidden else c * expansion
        strides = strides(stride) if strides else (1, stride, 1)
        expand = [conv_norm_act(c, hidden, 1, stride=strides[0], activation=acts[0])] if expansion != 1 or always_expand else []
        look = conv_norm_act(hidden, hidden, 3, stride=strides[1], groups=groups or hidden, activation=acts[1])
        if padding is not None:
            look[0].padding = (padding, padding)
        project = [nn.Conv2d(hidden, out, 1, strides[2], bias=bias), nn.BatchNorm2d(out)]
        self.conv = nn.Sequential(*expand, look, *project, *([projected()] if projected else []))
        self.shortcut = stride == 1 and c == out if shortcut is None else shortcut(c, out, stride)
        self.added = added

    def forward(self, x):
        return self.added(x + self.conv(x)) if self.shortcut else self.conv(x)


def inverted(says, name, module=Inverted, **parts):
    def build(in_channels, out_channels, *, stride, expansion):
        return module(in_channels, out_channels, stride, expansion, **parts)

    mistake("efficient.inverted_residual", says=says)(named(name, build))


inverted("activates the projection; the bottleneck is linear", "relu6_on_the_projection", projected=nn.ReLU6)
inverted("activates the projection with ReLU; the bottleneck", "relu_on_the_projection", projected=nn.ReLU)
inverted("activates with ReLU; ReLU6 is asked for", "relu_for_relu6", acts=(nn.ReLU, nn.ReLU))
inverted("shortcut although the stride is 2", "shortcut_by_width_alone", shortcut=lambda c, out, stride: c == out)
inverted(
    "shortcut although the number of channels changes", "shortcut_by_stride_alone",
    shortcut=lambda c, out, stride: stride == 1,
)
inverted("has no shortcut, though", "no_shortcut", shortcut=lambda c, out, stride: False)
inverted("an expansion layer though expansion is 1", "always_expands", always_expand=True)
inverted("puts the stride into the expansion", "stride_in_the_expansion", strides=lambda s: (s, 1, 1))
inverted("puts the stride into the projection", "stride_in_the_projection", strides=lambda s: (1, 1, s))
inverted("ignores the stride", "no_stride_at_all", strides=lambda s: (1, 1, 1))
inverted("forgets groups", "no_groups", groups=1)
inverted("forgets the padding", "no_padding_v2", padding=0)
inverted("gives a convolution a bias", "bias_v2", bias=True)
inverted("has no activation after the expansion", "linear_expansion", acts=(None, nn.ReLU6))
inverted("has no activation after the depthwise", "linear_depthwise", acts=(nn.ReLU6, None))
inverted("has no activation at all", "linear_throughout", acts=(None, None))
inverted("activates the sum, as ResNet does", "relu6_on_the_sum", added=F.relu6)
inverted("activates the sum with ReLU, as ResNet", "relu_on_the_sum", added=F.relu)
inverted(
    r"`conv\.0\.0\.weight` has shape \(6, 1, 1, 1\) where \(2, 1, 1, 1\)", "expands_the_outputs_width",
    hidden=lambda c, out, expansion: out * expansion,
)


class InPlace(Inverted):
    def forward(self, x):
        if self.shortcut:
            x += self.conv(x)
            return x
        return self.conv(x)


inverted("It changes its input|leaf Variable", "adds_in_place", InPlace)


class Squeeze(nn.Module):
    """Squeeze-and-excitation, with one part of it replaced."""

    def __init__(
        self, channels, squeeze, *, pool=lambda x: x.mean((2, 3), keepdim=True), act=F.relu, gate=F.hardsigmoid,
        combine=torch.mul, bias=True, inner=None,
    ):  # fmt: skip
        super().__init__()
        squeeze = inner(channels, squeeze) if inner else squeeze
        self.fc1 = nn.Conv2d(channels, squeeze, 1, bias=bias)
        self.fc2 = nn.Conv2d(squeeze, channels, 1, bias=bias)
        self.pool, self.act, self.gate, self.combine = pool, act, gate, combine

    def forward(self, x):
        return self.combine(x, self.gate(self.fc2(self.act(self.fc1(self.pool(x))))))


def squeeze(says, name, **parts):
    def build(channels, squeeze):
        return Squeeze(channels, squeeze, **parts)

    mistake("efficient.squeeze_excitation", says=says)(named(name, build))


squeeze("gates with Sigmoid", "sigmoid", gate=torch.sigmoid)
squeeze("gates with a softmax", "softmax", gate=lambda x: x.softmax(1))
squeeze("gates with tanh", "tanh", gate=torch.tanh)
squeeze("has no gate function", "no_gate_function", gate=identity)
squeeze("has no ReLU between", "no_relu", act=identity)
squeeze("activates with SiLU", "silu", act=F.silu)
squeeze("activates with Hardswish", "hardswish", act=F.hardswish)
squeeze("averages over the batch too", "mean_over_the_batch", pool=lambda x: x.mean((0, 2, 3), keepdim=True))
squeeze("squeezes with the maximum", "maximum", pool=lambda x: x.amax((2, 3), keepdim=True))
squeeze("sums over the pixels", "sum_of_pixels", pool=lambda x: x.sum((2, 3), keepdim=True))
squeeze("a gate for each pixel", "no_pooling", pool=identity)
squeeze("averages over the rows only", "rows_only", pool=lambda x: x.mean(2, keepdim=True))
squeeze("adds the gate; it multiplies", "added", combine=torch.add)
squeeze("returns the gate alone", "gate_alone", combine=lambda x, gate: gate)
squeeze("adds its input to the gated one", "residual", combine=lambda x, gate: x + x * gate)
squeeze(r"has no `fc1\.bias`", "no_biases", bias=False)
squeeze(
    r"`fc1\.weight` has shape \(4, 4, 1, 1\) where \(3, 4, 1, 1\)", "no_squeeze", inner=lambda channels, squeeze: channels
)


@mistake("efficient.squeeze_excitation", says="takes a linear layer; a 1×1 convolution is asked for")
def linear_layers(channels, squeeze):
    module = nn.Module()
    module.fc1, module.fc2 = nn.Linear(channels, squeeze), nn.Linear(squeeze, channels)
    return module


@mistake("efficient.squeeze_excitation", says="cuts the gradient")
def detached_gate(channels, squeeze):
    return Squeeze(channels, squeeze, gate=lambda x: F.hardsigmoid(x.detach()))
