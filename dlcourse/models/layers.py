"""The layers that the course writes by hand, and how a network's weights are first set.

`conv2d`, `BatchNorm2d`, `LayerNorm` and `GroupNorm` say in a few lines what torch's fast versions compute; tests hold
them equal, gradients and buffers included. Their parameters bear torch's names, so a state dict goes either way. The
models are built on torch.nn itself, and share `DropPath` and `check_images`.

Sources: Dumoulin and Visin 2016, A guide to convolution arithmetic (arXiv:1603.07285); Araujo, Norris and Sim 2019,
Computing receptive fields (doi:10.23915/distill.00021); Ioffe and Szegedy 2015, Batch normalization (1502.03167);
Ba, Kiros and Hinton 2016, Layer normalization (1607.06450); Wu and He 2018, Group normalization (1803.08494);
He et al. 2015, Delving deep into rectifiers (1502.01852); Huang et al. 2016, Deep networks with stochastic depth
(1603.09382).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

Model = TypeVar("Model", bound=nn.Module)


def conv_output_size(size: int, kernel_size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """The pixels along one side after a convolution or a pooling window, from `size` pixels before it.

    Raises ValueError when the window does not fit in once.
    """
    extent = dilation * (kernel_size - 1) + 1  # pixels from the kernel's first tap to its last
    room = size + 2 * padding - extent
    if room < 0:
        raise ValueError(f"size={size} with padding={padding} has no room for a window of {extent} pixels")
    return room // stride + 1


def receptive_field(layers: Iterable[tuple[int, int, int]]) -> int:
    """The input pixels, along one side, that one output pixel depends on.

    `layers` are the (kernel_size, stride, dilation) of each convolution and pooling, the first layer first.
    """
    field = step = 1  # step: input pixels between two neighbours of the current layer
    for kernel_size, stride, dilation in layers:
        field += (kernel_size - 1) * dilation * step
        step *= stride
    return field


def conv2d(
    images: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> torch.Tensor:
    """A convolution as one matrix product: (B, C, H, W), (K, C, h, w) -> (B, K, H', W').

    Like torch's it is a cross-correlation: the kernel is not flipped. H' and W' are what `conv_output_size` says.
    """
    _, _, h, w = weight.shape
    height = conv_output_size(images.shape[2], h, stride=stride, padding=padding, dilation=dilation)
    width = conv_output_size(images.shape[3], w, stride=stride, padding=padding, dilation=dilation)
    patches = F.unfold(images, (h, w), dilation=dilation, padding=padding, stride=stride)  # (B, C·h·w, H'·W')
    out = weight.flatten(1) @ patches  # (K, C·h·w) @ (B, C·h·w, H'·W') -> (B, K, H'·W')
    if bias is not None:
        out = out + bias[:, None]
    return out.unflatten(2, (height, width))  # (B, K, H'·W') -> (B, K, H', W')


class BatchNorm2d(nn.Module):
    """Normalise each channel over the batch and its pixels, then scale and shift it: (B, C, H, W) -> (B, C, H, W).

    In training the statistics are the batch's own, and the running ones move towards them by `momentum`; in eval mode
    the running ones are used. Raises ValueError when a training batch holds one value a channel.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            mean = x.mean(dim=(0, 2, 3))  # (B, C, H, W) -> (C,)
            var = x.var(dim=(0, 2, 3), correction=0)
            self.track(mean.detach(), var.detach(), values=x.numel() // x.shape[1])
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight / torch.sqrt(var + self.eps)
        return (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]

    def track(self, mean: torch.Tensor, var: torch.Tensor, *, values: int) -> None:
        """Move the running statistics. The batch was a sample, so its variance is first made unbiased."""
        if values < 2:
            raise ValueError("batch normalisation in training needs more than one value a channel")
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * values / (values - 1), self.momentum)
        self.num_batches_tracked += 1


class LayerNorm(nn.Module):
    """Normalise each sample over its last dimensions, those of `normalized_shape`; the same in training and in eval."""

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dims = tuple(range(-self.weight.ndim, 0))
        mean = x.mean(dim=dims, keepdim=True)
        var = x.var(dim=dims, correction=0, keepdim=True)
        return (x - mean) / torch.sqrt(var + self.eps) * self.weight + self.bias


class GroupNorm(nn.Module):
    """Normalise each sample over the pixels of each group of channels: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_channels={num_channels} cannot be split into num_groups={num_groups}")
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        groups = x.unflatten(1, (self.num_groups, -1))  # (B, C, H, W) -> (B, groups, C/groups, H, W)
        mean = groups.mean(dim=(2, 3, 4), keepdim=True)
        var = groups.var(dim=(2, 3, 4), correction=0, keepdim=True)
        x = ((groups - mean) / torch.sqrt(var + self.eps)).flatten(1, 2)  # back to (B, C, H, W)
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class DropPath(nn.Module):
    """Stochastic depth: in training each sample's branch is dropped with probability `p`, the others divided by 1 − p.

    It stands at the end of a residual branch, (B, …) -> (B, …), so that a dropped sample keeps its shortcut. Every sample
    is drawn by itself; the expected output is the input, and in eval mode the output is the input.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p={p} must lie in 0 ≤ p < 1: a branch that is always dropped cannot learn")
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.p == 0 or not self.training:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1 - self.p)  # (B, 1, …): one draw a sample
        return x * keep / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def check_images(images: torch.Tensor, channels: int, *, training: bool) -> None:
    """Raise ValueError unless `images` is a floating-point (B, channels, H, W), with B of at least 1 in training.

    An empty batch has no statistics: in training it would turn the running ones of every batch norm into NaN.
    """
    if images.ndim != 4 or images.shape[1] != channels or not images.is_floating_point():
        kind = f"{images.dtype} of shape {tuple(images.shape)}"
        raise ValueError(f"this model takes float images of shape (B, {channels}, H, W), not {kind}")
    if training and images.shape[0] == 0:
        raise ValueError(f"an empty batch, shape {tuple(images.shape)}, cannot be trained on")


def initialize(model: Model, head: nn.Linear | None = None, *, head_std: float = 0.001) -> Model:
    """Set a ReLU network's weights in place and return it: Kaiming in its layers, a small head, every bias zero.

    Kaiming keeps the size of the activations through the depth. The head (default: the last Linear of `model`) has no
    ReLU after it; drawn with `head_std` its first logits are nearly equal, and the first loss is ln(num_classes).
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    head = head or (linears[-1] if linears else None)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if module is head:
                nn.init.normal_(module.weight, std=head_std)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:  # a layer before a batch norm has none
                nn.init.zeros_(module.bias)
    return model
