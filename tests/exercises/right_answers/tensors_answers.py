"""Right answers to the exercises on tensors, in other styles than the references'."""

import numpy as np
import torch
import torch.nn.functional as F
from planting import right_answer


@right_answer("tensors.standardize")
def standardize_by_batch_norm(images):
    return F.batch_norm(images, None, None, training=True, eps=1e-12)


@right_answer("tensors.standardize")
def standardize_by_rows(images):
    rows = images.transpose(0, 1).flatten(1)  # (N, C, H, W) -> (C, N·H·W)
    mean, variance = rows.mean(1), rows.var(1, unbiased=False)
    return (images - mean[:, None, None]) * variance.rsqrt()[:, None, None]


@right_answer("tensors.standardize")
def standardize_channel_by_channel(images):
    channels = [(c - c.mean()) / c.std(correction=0) for c in images.unbind(1)]
    return torch.stack(channels, dim=1)


@right_answer("tensors.chw_from_hwc")
def chw_by_einsum(photos):
    return torch.einsum("nhwc->nchw", photos.float()).div(255)


@right_answer("tensors.chw_from_hwc")
def chw_through_numpy(photos):
    return torch.from_numpy(photos.numpy().transpose(0, 3, 1, 2).astype(np.float32) / 255)


@right_answer("tensors.chw_from_hwc")
def chw_by_moving_the_axis(photos):
    return (torch.movedim(photos, -1, 1).double() / 255.0).float().contiguous()


@right_answer("tensors.pairwise_distances")
def distances_by_cdist(a, b):
    return torch.cdist(a, b)


@right_answer("tensors.pairwise_distances")
def distances_by_the_norm(a, b):
    return torch.linalg.vector_norm(a.unsqueeze(1) - b, dim=-1)


@right_answer("tensors.pairwise_distances")
def distances_by_the_binomial(a, b):
    squares = (a * a).sum(1, keepdim=True) - 2 * a @ b.T + (b * b).sum(1)
    return squares.clamp(min=0).sqrt()
