"""Wrong answers to the exercise on resizing positions."""

import math

import torch
from planting import mistake
from torch.nn import functional as F

from dlcourse.exercises.positions import interpolate as right


def build(
    name,
    says,
    split=lambda pos, prefix: (pos[:, :prefix], pos[:, prefix:]),
    start=lambda places, old: places.reshape(1, *old, -1).permute(0, 3, 1, 2),
    end=lambda new: new,
    resize=lambda image, size: F.interpolate(image, size=size, mode="bicubic", antialias=True),
    back=lambda image: image.flatten(2).transpose(1, 2),
    join=lambda prefix, places: torch.cat((prefix, places), dim=1),
):
    """The right answer with one part of it replaced, planted."""

    def interpolate(pos_embed, old_grid, new_grid, num_prefix_tokens=1):
        prefix, places = split(pos_embed, num_prefix_tokens)
        return join(prefix, back(resize(start(places, old_grid), end(new_grid))))

    interpolate.__name__ = name
    mistake("positions.interpolate", says=says)(interpolate)


def mode(**options):
    return lambda image, size: F.interpolate(image, size=size, **options)


build("no_antialias", r"without antialias=True", resize=mode(mode="bicubic"))
build("bilinear", r"interpolates bilinearly; bicubic", resize=mode(mode="bilinear", antialias=True))
build("plain_bilinear", r"bilinearly and without antialias", resize=mode(mode="bilinear"))
build("nearest", "takes the nearest position", resize=mode(mode="nearest"))
build("aligned_corners", r"aligns the corners\.", resize=mode(mode="bicubic", antialias=True, align_corners=True))
build(
    "aligned_corners_without_antialias", "aligns the corners, without antialias",
    resize=mode(mode="bicubic", align_corners=True),
)  # fmt: skip
build("old_grid_swapped", "reads the old grid as", start=lambda p, old: p.reshape(1, old[1], old[0], -1).permute(0, 3, 1, 2))
build("new_grid_swapped", "makes the new grid", end=lambda new: new[::-1])
build(
    "both_swapped", "reads and makes both grids",
    start=lambda p, old: p.reshape(1, old[1], old[0], -1).permute(0, 3, 1, 2), end=lambda new: new[::-1],
)  # fmt: skip
build("down_the_columns", "goes down the columns", back=lambda image: image.mT.flatten(2).mT)
build("no_permute", "cuts the channels where the places are", start=lambda p, old: p.reshape(1, -1, *old))
build("no_permute_back", "bring the channels back", back=lambda image: image.reshape(1, -1, image.shape[1]))
build("drops_the_prefix", "drops the prefix tokens", join=lambda prefix, places: places)
build("prefix_last", "puts the prefix tokens last", join=lambda prefix, places: torch.cat((places, prefix), dim=1))
build("zero_prefix", "sets the prefix tokens to zero", join=lambda prefix, places: torch.cat((0 * prefix, places), dim=1))
build("one_prefix_token", "It fails with 2 prefix tokens", split=lambda pos, prefix: (pos[:, :1], pos[:, 1:]))
build("keeps_one_prefix_token", "keeps one prefix token", join=lambda prefix, places: torch.cat((prefix[:, :1], places), dim=1))
build(
    "square_old_grid", "takes the old grid for square",
    start=lambda p, old: p.reshape(1, math.isqrt(p.shape[1]), math.isqrt(p.shape[1]), -1).permute(0, 3, 1, 2),
)  # fmt: skip


@mistake("positions.interpolate", says="resizes the row of all tokens")
def one_line_of_tokens(pos_embed, old_grid, new_grid, num_prefix_tokens=1):
    length = num_prefix_tokens + new_grid[0] * new_grid[1]
    return F.interpolate(pos_embed.transpose(1, 2), size=length, mode="linear").transpose(1, 2)


@mistake("positions.interpolate", says="cuts the gradient")
@torch.no_grad()
def without_gradient(*args, **kwargs):
    return right(*args, **kwargs)


@mistake("positions.interpolate", says="has dtype torch.float32 where torch.float64")
def always_float32(pos_embed, *args, **kwargs):
    return right(pos_embed.float(), *args, **kwargs)


@mistake("positions.interpolate", says="It changes its input")
def in_place(pos_embed, *args, **kwargs):
    return right(pos_embed.detach().mul_(2), *args, **kwargs) / 2
