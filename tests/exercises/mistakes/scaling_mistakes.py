"""Wrong answers to the exercises on cost and scaling."""

import math

from planting import mistake


def named(name, function):
    function.__name__ = name
    return function


def cost(
    says, name, *, places=lambda h, w, s: math.ceil(h / s) * math.ceil(w / s), standard=lambda m, n, d: d * d * m * n,
    depthwise=lambda m, n, d: d * d * m, pointwise=lambda m, n, d: m * n, join=lambda a, b: a + b, order=lambda *counts: counts,
    dw_places=None, pw_places=None, defaults=(3, 1),
):  # fmt: skip
    """Plant the cost with one part of it replaced."""

    def wrong(in_channels, out_channels, size, *, kernel_size=defaults[0], stride=defaults[1]):
        m, n, d, (h, w) = in_channels, out_channels, kernel_size, size
        count = places(h, w, stride)
        first, second = depthwise(m, n, d), pointwise(m, n, d)
        macs = join(first, second) * count
        if dw_places or pw_places:
            macs = first * (dw_places or places)(h, w, stride) + second * (pw_places or places)(h, w, stride)
        return order(standard(m, n, d), standard(m, n, d) * count, join(first, second), macs)

    mistake("scaling.separable_cost", says=says)(named(name, wrong))


cost("counts the places of the input", "places_of_the_input", places=lambda h, w, s: h * w)
cost("rounds the places down", "places_rounded_down", places=lambda h, w, s: (h // s) * (w // s))
cost("counts the depthwise convolution alone", "no_pointwise", pointwise=lambda m, n, d: 0)
cost("counts the pointwise convolution alone", "no_depthwise", depthwise=lambda m, n, d: 0)
cost("multiplies the two convolutions", "product", join=lambda a, b: a * b)
cost("gives the depthwise convolution the output's channels", "depthwise_of_outputs", depthwise=lambda m, n, d: d * d * n)
cost("takes kernel_size for the kernel's area", "kernel_not_squared", standard=lambda m, n, d: d * m * n)
cost("adds a bias", "with_bias", standard=lambda m, n, d: (d * d * m + 1) * n)
cost("counts a multiplication and an addition as two", "flops", order=lambda a, b, c, d: (a, 2 * b, c, 2 * d))
cost("gives the MACs of one place", "one_place", places=lambda h, w, s: 1)
cost("runs the depthwise convolution over all", "depthwise_before_the_stride", dw_places=lambda h, w, s: h * w)
cost("runs the pointwise convolution over all", "pointwise_before_the_stride", pw_places=lambda h, w, s: h * w)
cost("swaps parameters and MACs", "macs_first", order=lambda a, b, c, d: (b, a, d, c))
cost("gives the separable convolution first", "separable_first", order=lambda a, b, c, d: (c, d, a, b))
cost("a count is a whole number", "floats", order=lambda *counts: tuple(map(float, counts)))
cost("four whole numbers are asked for", "two_numbers", order=lambda *counts: counts[:2])
cost("Its defaults are not", "other_defaults", defaults=(5, 1))


def divisible(value):
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def compound(says, name, *, channels=lambda c, w, d: divisible(c * w), blocks=lambda n, w, d: math.ceil(n * d),
             change=lambda scaled, stages: scaled):  # fmt: skip
    """Plant the scaling with one part of it replaced."""

    def wrong(stages, *, width, depth):
        return change([(channels(c, width, depth), blocks(n, width, depth)) for c, n in stages], stages)

    mistake("scaling.compound", says=says)(named(name, wrong))


compound("rounds the blocks to the nearest number", "blocks_rounded", blocks=lambda n, w, d: round(n * d))
compound("rounds the blocks down", "blocks_floored", blocks=lambda n, w, d: math.floor(n * d))
compound("leaves the number of blocks a fraction", "blocks_fraction", blocks=lambda n, w, d: n * d)
compound("leaves the blocks as they are", "blocks_unscaled", blocks=lambda n, w, d: n)
compound("adds one block", "one_block_more", blocks=lambda n, w, d: int(n * d) + 1)
compound("does not round the channels to a multiple", "not_divisible", channels=lambda c, w, d: int(c * w))
compound("rounds the channels to a whole number", "whole_channels", channels=lambda c, w, d: round(c * w))
compound("leaves the channels a fraction", "channels_fraction", channels=lambda c, w, d: c * w)
compound("forgets the 10 % rule", "no_tenth", channels=lambda c, w, d: max(8, int(c * w + 4) // 8 * 8))
compound(
    r"rounds the channels down to a multiple of 8; the nearest", "channels_floored",
    channels=lambda c, w, d: max(8, int(c * w) // 8 * 8),
)
compound(
    "rounds the channels down to a multiple of 8 and then applies", "floor_and_tenth",
    channels=lambda c, w, d: (r := max(8, int(c * w) // 8 * 8)) + 8 * (r < 0.9 * c * w),
)
compound("rounds the channels up", "channels_ceiled", channels=lambda c, w, d: 8 * math.ceil(c * w / 8))
compound(
    "rounds halves to the even multiple", "bankers",
    channels=lambda c, w, d: (r := max(8, round(c * w / 8) * 8)) + 8 * (r < 0.9 * c * w),
)
compound(
    "applies the 10 % rule to the unscaled channels", "tenth_of_unscaled",
    channels=lambda c, w, d: (r := max(8, int(c * w + 4) // 8 * 8)) + 8 * (r < 0.9 * c),
)
compound("leaves the channels as they are", "channels_unscaled", channels=lambda c, w, d: c)
compound("rounds a few channels to none", "no_channels", channels=lambda c, w, d: int(c * w + 4) // 8 * 8)
compound(
    "swaps width and depth", "width_and_depth_swapped",
    channels=lambda c, w, d: divisible(c * d), blocks=lambda n, w, d: math.ceil(n * w),
)
compound("scales the first stage only", "first_stage_only", change=lambda scaled, stages: scaled[:1] + stages[1:])
compound("a list of pairs", "channels_alone", change=lambda scaled, stages: [c for c, _ in scaled])
compound("whole numbers", "floats_of_whole_value", change=lambda scaled, stages: [(float(c), n) for c, n in scaled])


@mistake("scaling.compound", says="It changes its input")
def scales_in_place(stages, *, width, depth):
    for i, (channels, blocks) in enumerate(stages):
        stages[i] = divisible(channels * width), math.ceil(blocks * depth)
    return stages
