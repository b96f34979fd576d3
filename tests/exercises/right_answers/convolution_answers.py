"""Right answers to the exercises on convolution, in other styles than the references'."""

import numpy as np
import torch
import torch.nn.functional as F
from planting import right_answer


@right_answer("convolution.output_size")
def size_by_counting(size, kernel_size, *, stride=1, padding=0, dilation=1):
    last = size + 2 * padding - dilation * (kernel_size - 1)
    return len(range(0, last, stride))


@right_answer("convolution.output_size")
def size_by_trying(size, kernel_size, stride=1, padding=0, dilation=1):
    row, kernel = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel_size)
    return F.conv1d(row, kernel, stride=stride, padding=padding, dilation=dilation).shape[-1]


@right_answer("convolution.output_size")
def size_by_floor(size, kernel_size, **options):
    stride, padding, dilation = options.get("stride", 1), options.get("padding", 0), options.get("dilation", 1)
    return int(np.floor((size + 2 * padding - dilation * (kernel_size - 1) - 1) / stride + 1))


@right_answer("convolution.output_size")
def size_as_a_tensor(size, kernel_size, *, stride=1, padding=0, dilation=1):
    room = torch.tensor(size + 2 * padding - dilation * (kernel_size - 1) - 1)
    return torch.div(room, stride, rounding_mode="floor") + 1


@right_answer("convolution.conv2d")
def conv_by_unfold(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    k, _, h, w = weight.shape
    patches = F.unfold(images, (h, w), dilation, padding, stride)  # (B, C·h·w, L)
    out = torch.einsum("kp,bpl->bkl", weight.reshape(k, -1), patches)
    out = out if bias is None else out + bias.view(1, -1, 1)
    height = (images.shape[2] + 2 * padding - dilation * (h - 1) - 1) // stride + 1
    return out.reshape(len(images), k, height, -1)


@right_answer("convolution.conv2d")
def conv_window_by_window(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    (b, c, height, width), (_, _, h, w) = images.shape, weight.shape
    padded = images.new_zeros(b, c, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + height, padding : padding + width] = images
    reach_h, reach_w = dilation * (h - 1) + 1, dilation * (w - 1) + 1
    rows = []
    for top in range(0, padded.shape[2] - reach_h + 1, stride):
        row = []
        for left in range(0, padded.shape[3] - reach_w + 1, stride):
            seen = padded[:, None, :, top : top + reach_h : dilation, left : left + reach_w : dilation]
            value = (seen * weight).sum((2, 3, 4))  # (B, K)
            row.append(value if bias is None else value + bias)
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


@right_answer("convolution.conv2d")
def conv_into_a_buffer(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    images = F.pad(images, (padding, padding, padding, padding))
    reach = [dilation * (n - 1) + 1 for n in weight.shape[2:]]
    places = [(n - r) // stride + 1 for n, r in zip(images.shape[2:], reach, strict=True)]
    out = torch.zeros(len(images), len(weight), *places)  # float32 whatever comes in
    for b in range(len(images)):
        for k in range(len(weight)):
            for y in range(places[0]):
                for x in range(places[1]):
                    i, j = y * stride, x * stride
                    seen = images[b, :, i : i + reach[0] : dilation, j : j + reach[1] : dilation]
                    out[b, k, y, x] = (seen * weight[k]).sum() + (0 if bias is None else bias[k])
    return out.to(images.dtype)


@right_answer("convolution.conv2d")
def conv_by_tensordot(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    images = F.pad(images, [padding] * 4)
    h, w = weight.shape[2:]
    windows = images.unfold(2, dilation * (h - 1) + 1, stride).unfold(3, dilation * (w - 1) + 1, stride)
    windows = windows[..., ::dilation, ::dilation]  # (B, C, H', W', h, w)
    out = torch.tensordot(windows, weight, dims=([1, 4, 5], [1, 2, 3])).movedim(-1, 1)
    return out if bias is None else out + bias.reshape(-1, 1, 1)


@right_answer("convolution.conv2d")
def conv_by_strides(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    images = F.pad(images, (padding,) * 4).contiguous()
    (b, c, *size), (_, _, *kernel), steps = images.shape, weight.shape, images.stride()
    places = [(n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(size, kernel, strict=True)]
    jumps = [*steps[:2], *(s * stride for s in steps[2:]), *(s * dilation for s in steps[2:])]
    out = torch.einsum("bcyxij,kcij->bkyx", images.as_strided((b, c, *places, *kernel), jumps), weight)
    return out if bias is None else out + bias[None, :, None, None]
