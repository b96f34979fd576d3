"""Right answers to the exercises on cost and scaling, in other styles than the references'."""

import math

import numpy as np
from planting import right_answer
from torch import nn

from dlcourse.models import count_macs, count_parameters


@right_answer("scaling.separable_cost")
def cost_measured(in_channels, out_channels, size, *, kernel_size=3, stride=1):
    padding = kernel_size // 2
    standard = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
    separable = nn.Sequential(
        nn.Conv2d(in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
    )
    return [count(m) for m in (standard, separable) for count in (count_parameters, lambda m: count_macs(m, (in_channels, *size)))]


@right_answer("scaling.separable_cost")
def cost_by_ratio(in_channels, out_channels, size, *, kernel_size=3, stride=1):
    height, width = ((side - 1) // stride + 1 for side in size)
    standard = kernel_size * kernel_size * in_channels * out_channels
    separable = round(standard * (1 / out_channels + 1 / kernel_size**2))
    return standard, standard * height * width, separable, separable * height * width


@right_answer("scaling.separable_cost")
def cost_by_loops(in_channels, out_channels, size, *, kernel_size=3, stride=1):
    places = len(range(0, size[0], stride)) * len(range(0, size[1], stride))
    depthwise = sum(kernel_size**2 for _ in range(in_channels))
    pointwise = sum(in_channels for _ in range(out_channels))
    standard = sum(depthwise for _ in range(out_channels))
    return standard, standard * places, depthwise + pointwise, depthwise * places + pointwise * places


@right_answer("scaling.compound")
def scaled_by_the_package(stages, *, width, depth):
    from dlcourse.models.mobilenet_v3 import make_divisible

    return [(make_divisible(channels * width), math.ceil(blocks * depth)) for channels, blocks in stages]


@right_answer("scaling.compound")
def scaled_in_numpy(stages, *, width, depth):
    table = np.array(stages, dtype=float)
    wanted = table[:, 0] * width
    channels = np.maximum(np.floor(wanted / 8 + 0.5) * 8, 8)
    channels += np.where(channels < 0.9 * wanted, 8, 0)
    blocks = np.ceil(table[:, 1] * depth)
    return list(zip(channels.astype(int).tolist(), blocks.astype(int).tolist(), strict=True))


@right_answer("scaling.compound")
def scaled_by_torchvision(stages, *, width, depth):
    from torchvision.models._utils import _make_divisible

    scaled = []
    for channels, blocks in stages:
        scaled += [(_make_divisible(channels * width, 8), -int(-blocks * depth // 1))]
    return tuple(scaled)
