"""Right answers to the exercises on fast training, in other styles than the references'."""

import numpy as np
import torch
from planting import right_answer
from torch.nn import functional as F


@right_answer("fast.batch_crop")
def crop_image_by_image(images, top, left, padding):
    height, width = images.shape[2:]
    crops = torch.empty_like(images)
    for b, image in enumerate(F.pad(images, (padding, padding, padding, padding))):
        crops[b] = image[:, top[b] : top[b] + height, left[b] : left[b] + width]
    return crops


@right_answer("fast.batch_crop")
def crop_by_index(images, top, left, padding):
    size, channels, height, width = images.shape
    rows = (top[:, None] + torch.arange(height))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width))[:, None, None, :]
    samples, colours = torch.arange(size)[:, None, None, None], torch.arange(channels)[:, None, None]
    return F.pad(images, [padding] * 4)[samples, colours, rows, columns]


@right_answer("fast.batch_crop")
def crop_by_gathering_twice(images, top, left, padding):
    size, channels, height, width = images.shape
    padded = F.pad(images, [padding] * 4)
    rows = (top[:, None] + torch.arange(height)).view(size, 1, height, 1)
    columns = (left[:, None] + torch.arange(width)).view(size, 1, 1, width)
    cut = padded.gather(2, rows.expand(-1, channels, -1, padded.shape[3]))
    return cut.gather(3, columns.expand(-1, channels, height, -1))


@right_answer("fast.batch_crop")
def crop_by_padding_each_as_needed(images, top, left, padding):
    shifts = zip(images, (padding - top).tolist(), (padding - left).tolist(), strict=True)
    return torch.stack([F.pad(image, (right, -right, down, -down)) for image, down, right in shifts])


@right_answer("fast.batch_crop")
def crop_with_numpy(images, top, left, padding):
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(images.shape[2:]), axis=(2, 3))
    return torch.from_numpy(windows[np.arange(len(images)), :, top.numpy(), left.numpy()])


@right_answer("fast.batch_crop")
def crop_by_masking_outside(images, top, left, padding):
    rows = top[:, None] - padding + torch.arange(images.shape[2])
    columns = left[:, None] - padding + torch.arange(images.shape[3])
    inside = ((rows >= 0) & (rows < images.shape[2]))[:, :, None] & ((columns >= 0) & (columns < images.shape[3]))[:, None]
    rows, columns = rows.clamp(0, images.shape[2] - 1), columns.clamp(0, images.shape[3] - 1)
    crops = images.movedim(1, 3)[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None]]
    return crops.movedim(3, 1).masked_fill(~inside[:, None], 0)


@right_answer("fast.whitening")
def whitening_by_svd_of_the_patches(patches):
    centred = patches - patches.mean(0)
    _, singular, vectors = torch.linalg.svd(centred)
    values = F.pad(singular.square() / (len(patches) - 1), (0, len(vectors) - len(singular)))
    return vectors / torch.sqrt(values + 5e-4).unsqueeze(1)


@right_answer("fast.whitening")
def whitening_with_the_covariance_divided_by_n(patches):
    centred = patches - patches.mean(0, keepdim=True)
    values, vectors = torch.linalg.eigh(centred.T @ centred / patches.shape[0])
    return torch.stack([vector / (value + 5e-4) ** 0.5 for value, vector in zip(values, vectors.T, strict=True)])


@right_answer("fast.whitening")
def whitening_largest_first_with_other_signs(patches):
    values, vectors = np.linalg.eigh(np.cov(patches.numpy(), rowvar=False))
    order = np.argsort(values)[::-1]
    return torch.tensor(-vectors.T[order] / np.sqrt(values[order] + 5e-4)[:, None], dtype=patches.dtype)


@right_answer("fast.whitening")
def whitening_by_the_symmetric_root(patches):
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    return vectors @ torch.diag((values + 5e-4) ** -0.5) @ vectors.T


@right_answer("fast.whitening")
def whitening_by_a_triangle(patches):
    spread = torch.cov(patches.T).double() + 5e-4 * torch.eye(patches.shape[1], dtype=torch.float64)
    return torch.linalg.inv(torch.linalg.cholesky(spread)).to(patches.dtype)
