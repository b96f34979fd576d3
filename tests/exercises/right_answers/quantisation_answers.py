"""Right answers to the exercises on quantisation, in other styles than the references'."""

import numpy as np
import torch
from planting import right_answer


@right_answer("quantisation.affine_quantize")
def affine_quantize_by_numpy(x):
    values = x.numpy().astype(np.float64)
    low, high = min(values.min(), 0), max(values.max(), 0)
    scale = (high - low) / 255 if high > low else 1.0
    zero_point = int(np.rint(-low / scale))
    return torch.from_numpy(np.clip(np.rint(values / scale) + zero_point, 0, 255).astype(np.uint8)), float(scale), zero_point


@right_answer("quantisation.affine_quantize")
def affine_quantize_by_torch(x):
    low, high = torch.aminmax(torch.cat([x.flatten().double(), torch.zeros(1, dtype=torch.float64)]))
    scale = ((high - low) / 255).item() or 0.1
    zero_point = int((-low / scale).round())
    q = torch.quantize_per_tensor(x.float(), scale, zero_point, torch.quint8).int_repr()
    return q, scale, zero_point


@right_answer("quantisation.affine_quantize")
def affine_quantize_number_by_number(x):
    numbers = x.flatten().tolist()
    low, high = min([*numbers, 0.0]), max([*numbers, 0.0])
    scale = (high - low) / 255
    if scale == 0:
        scale = 1.0
    zero_point = round(-low / scale)
    stored = [min(max(round(number / scale) + zero_point, 0), 255) for number in numbers]
    return [torch.tensor(stored, dtype=torch.uint8).reshape(x.shape), torch.tensor(scale), torch.tensor(zero_point)]


@right_answer("quantisation.per_channel_scales")
def scales_in_a_loop(weight):
    scales = [row.abs().max().item() / 127 or 1.0 for row in weight]
    return torch.tensor(scales, dtype=weight.dtype)


@right_answer("quantisation.per_channel_scales")
def scales_by_norm(weight):
    scales = torch.linalg.vector_norm(weight.detach(), ord=float("inf"), dim=tuple(range(1, weight.ndim))) / 127
    scales[scales == 0] = 1
    return scales


@right_answer("quantisation.per_channel_scales")
def scales_from_both_ends(weight):
    rows = weight.detach().reshape(len(weight), -1)
    greatest = torch.maximum(rows.max(dim=1).values, -rows.min(dim=1).values)
    return (greatest / 127).masked_fill(greatest == 0, 1.0)
