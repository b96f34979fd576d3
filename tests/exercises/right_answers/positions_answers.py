"""Right answers to the exercise on resizing positions, in other styles than the reference's."""

import torch
from planting import right_answer
from torch.nn import functional as F

from dlcourse.models import interpolate_position_embedding


@right_answer("positions.interpolate")
def by_the_package(pos_embed, old_grid, new_grid, num_prefix_tokens=1):
    return interpolate_position_embedding(pos_embed, new_grid, old_grid=old_grid, num_prefix_tokens=num_prefix_tokens)


@right_answer("positions.interpolate")
def by_timm(pos_embed, old_grid, new_grid, num_prefix_tokens=1):
    from timm.layers import resample_abs_pos_embed

    prefix, places = pos_embed.tensor_split([num_prefix_tokens], dim=1)
    if pos_embed.dtype == torch.float64:  # timm computes in float32
        image = places.mT.unflatten(2, old_grid)
        places = F.interpolate(image, list(new_grid), mode="bicubic", align_corners=False, antialias=True).flatten(2).mT
    else:
        places = resample_abs_pos_embed(places, list(new_grid), list(old_grid), num_prefix_tokens=0)
    return torch.cat((prefix, places), dim=1)


@right_answer("positions.interpolate")
def channel_by_channel(pos_embed, old_grid, new_grid, num_prefix_tokens=1):
    if tuple(old_grid) == tuple(new_grid):
        return pos_embed.clone()
    columns = []
    for d in range(pos_embed.shape[2]):
        image = pos_embed[0, num_prefix_tokens:, d].view(1, 1, *old_grid)
        image = F.interpolate(image, size=new_grid, mode="bicubic", antialias=True)
        columns.append(torch.cat((pos_embed[0, :num_prefix_tokens, d], image.flatten())))
    return torch.stack(columns, dim=-1)[None]
