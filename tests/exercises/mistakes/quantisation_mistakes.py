"""Wrong answers to the exercises on quantisation."""

import torch
from planting import mistake


def affine(
    span=lambda x: (min(x.min().item(), 0.0), max(x.max().item(), 0.0)),
    step=lambda low, high: (high - low) / 255 or 1.0,
    zero=lambda low, scale: round(-low / scale),
    rounded=torch.round,
    shift=lambda q, zero: q + zero,
    cast=lambda q: q.clamp(0, 255).to(torch.uint8),
    give=lambda q, scale, zero: (q, scale, zero),
):
    """The right answer with one part of it replaced."""

    def affine_quantize(x):
        low, high = span(x)
        scale = step(low, high)
        zero_point = zero(low, scale)
        return give(cast(shift(rounded(x / scale), zero_point)), scale, zero_point)

    return affine_quantize


def plant(says, name, **parts):
    wrong = affine(**parts)
    wrong.__name__ = name
    mistake("quantisation.affine_quantize", says=says)(wrong)


def own_range(x):
    return x.min().item(), x.max().item()


plant("0 must lie in it", "range_without_zero", span=own_range, zero=lambda low, scale: max(min(round(-low / scale), 255), 0))
plant("so that the zero point leaves", "zero_point_outside", span=own_range)
plant("divides the range by 256", "step_of_256", step=lambda low, high: (high - low) / 256 or 1.0)
plant("cuts the fraction off", "truncates", rounded=torch.trunc)
plant("rounds down", "floors", rounded=torch.floor)
plant("rounds a half up", "half_up", rounded=lambda t: torch.floor(t + 0.5))
plant("rounds a half away from zero", "half_away", rounded=lambda t: torch.sign(t) * torch.floor(t.abs() + 0.5))
plant("begin again at 0", "wraps_around", cast=lambda q: (q.long() % 256).to(torch.uint8))
plant("leaves the zero point unrounded", "zero_point_unrounded", zero=lambda low, scale: -low / scale)
plant("subtracts the zero point", "zero_point_subtracted", shift=lambda q, zero: q - zero)
plant("forgets to add the zero point", "zero_point_forgotten", shift=lambda q, zero: q)
plant("returns the inverse of the scale", "scale_inverted", give=lambda q, scale, zero: (q, 1 / scale, zero))
plant("q is int8", "signed", cast=lambda q: (q - 128).clamp(-128, 127).to(torch.int8))
plant("three things are asked for", "q_alone", give=lambda q, scale, zero: q)
plant("the scale is 0", "divides_by_zero", step=lambda low, high: (high - low) / 255,
      zero=lambda low, scale: round(-low / scale) if scale else 0)  # fmt: skip
plant("has dtype torch.float32", "keeps_float", cast=lambda q: q.clamp(0, 255))
plant("returns the numbers back in float", "returns_dequantised",
      give=lambda q, scale, zero: ((q.float() - zero) * scale, scale, zero))  # fmt: skip


@mistake("quantisation.affine_quantize", says="a zero point of 0: negative")
def symmetric(x):
    scale = x.abs().max().item() / 127 or 1.0
    return torch.round(x / scale).clamp(0, 255).to(torch.uint8), scale, 0


@mistake("quantisation.affine_quantize", says="that is for weights")
def symmetric_around_128(x):
    scale = x.abs().max().item() / 127 or 1.0
    return (torch.round(x / scale) + 128).clamp(0, 255).to(torch.uint8), scale, 128


@mistake("quantisation.affine_quantize", says="It changes its input")
def divides_in_place(x):
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    scale = (high - low) / 255 or 1.0
    return (x.div_(scale).round() + round(-low / scale)).clamp(0, 255).to(torch.uint8), scale, round(-low / scale)


def scales(
    rows=lambda weight: weight.detach().flatten(1),
    size=lambda rows: rows.abs().amax(1),
    scale=lambda size: torch.where(size > 0, size / 127, 1.0),
):
    """The right answer with one part of it replaced."""
    return lambda weight: scale(size(rows(weight)))


def plant_scales(says, name, **parts):
    wrong = scales(**parts)
    wrong.__name__ = name
    mistake("quantisation.per_channel_scales", says=says)(wrong)


plant_scales("goes over the input channels", "input_channels", rows=lambda weight: weight.detach().transpose(0, 1).flatten(1))
plant_scales("takes the greatest number, where", "without_abs", size=lambda rows: rows.amax(1))
plant_scales("gives 0 for a channel of zeros", "zero_scale", scale=lambda size: size / 127)
plant_scales("gives a tiny scale", "tiny_scale", scale=lambda size: size.clamp(min=1e-8) / 127)
plant_scales("divides by 128", "over_128", scale=lambda size: torch.where(size > 0, size / 128, 1.0))
plant_scales("divides by 255", "over_255", scale=lambda size: torch.where(size > 0, size / 255, 1.0))
plant_scales("takes the span", "span", size=lambda rows: (rows.amax(1) - rows.amin(1)) * 127 / 255)
plant_scales("takes the mean magnitude", "mean_magnitude", size=lambda rows: rows.abs().mean(1))
plant_scales("gives the greatest magnitude itself", "not_divided", scale=lambda size: torch.where(size > 0, size, 1.0))
plant_scales("gives the inverse", "inverse", scale=lambda size: 127 / size)
plant_scales("changes the dtype", "always_float32", rows=lambda weight: weight.detach().float().flatten(1))
plant_scales("It raises IndexError", "four_axes_only", rows=lambda weight: weight.detach(), size=lambda w: w.abs().amax((1, 2, 3)))


@mistake("quantisation.per_channel_scales", says="gives one scale for the whole tensor")
def one_scale_repeated(weight):
    return (weight.detach().abs().max() / 127).repeat(len(weight))


@mistake("quantisation.per_channel_scales", says="gives one number for the whole tensor")
def one_scale(weight):
    return weight.detach().abs().max() / 127


@mistake("quantisation.per_channel_scales", says="keeps the axes")
def keeps_axes(weight):
    greatest = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    return torch.where(greatest > 0, greatest / 127, 1.0)


@mistake("quantisation.per_channel_scales", says="not a Tensor")
def a_list(weight):
    return [row.abs().max().item() / 127 or 1.0 for row in weight]
