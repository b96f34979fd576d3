"""Vision transformers: Dosovitskiy et al. 2020, An image is worth 16×16 words (arXiv:2010.11929).

Ti and S are the sizes of Touvron et al. 2020, DeiT (2012.12877). Names and shapes are timm's, so its weights load by
name (`vit_base_patch16_224` and its kin, with one class token). The image size is fixed when a model is built; for
another one, build it with `img_size=` and load weights whose `pos_embed` went through `interpolate_position_embedding`.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.models.attention import TransformerEncoderBlock
from dlcourse.models.layers import check_images
from dlcourse.models.registry import register_model

ImageSize = int | tuple[int, int]

# Table 1 of the paper (B, L, H), table 1 of DeiT (Ti, S).
TINY = {"dim": 192, "depth": 12, "num_heads": 3}
SMALL = {"dim": 384, "depth": 12, "num_heads": 6}
BASE = {"dim": 768, "depth": 12, "num_heads": 12}
LARGE = {"dim": 1024, "depth": 24, "num_heads": 16}
HUGE = {"dim": 1280, "depth": 32, "num_heads": 16}


def as_pair(size: ImageSize) -> tuple[int, int]:
    """A side, or (height, width), as (height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def patchify(images: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Cut images into patches, row by row: (B, C, H, W) -> (B, N, C·P·P) with N = (H/P)·(W/P).

    Raises ValueError when P does not divide H and W.
    """
    _, _, height, width = images.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"patch_size={patch_size} does not divide images of {height}×{width} pixels")
    rows = images.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))  # (B, C, H/P, P, W/P, P)
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # -> (B, H/P, W/P, C, P, P) -> (B, N, C·P·P)


class PatchEmbedding(nn.Module):
    """One token a patch, (B, C, H, W) -> (B, N, dim): a convolution whose stride is its kernel.

    as_linear=True computes the same from `patchify` and a linear layer, with the same parameters. `img_size` is a side or
    (height, width) in pixels. Raises ValueError when the patch does not divide it, and for images of another size.
    """

    def __init__(
        self,
        img_size: ImageSize,
        patch_size: int,
        dim: int,
        in_channels: int = 3,
        *,
        as_linear: bool = False,
    ) -> None:
        super().__init__()
        self.img_size, self.patch_size, self.as_linear = as_pair(img_size), patch_size, as_linear
        height, width = self.img_size
        if patch_size < 1 or height % patch_size or width % patch_size or min(self.img_size) < 1:
            raise ValueError(f"patch_size={patch_size} does not divide img_size={height}×{width} pixels")
        self.grid = (height // patch_size, width // patch_size)
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = self.img_size
        if images.shape[2] != height or images.shape[3] != width:
            raise ValueError(
                f"images of {images.shape[2]}×{images.shape[3]} pixels, but the positions are those of {height}×{width}: "
                "resize them, or build the model with img_size= and interpolate its pos_embed"
            )
        if self.as_linear:
            # The kernels (dim, C, P, P) laid out as the patches are; in any other order the result differs.
            return F.linear(patchify(images, self.patch_size), self.proj.weight.flatten(1), self.proj.bias)
        return self.proj(images).flatten(2).transpose(1, 2)  # (B, dim, H/P, W/P) -> (B, dim, N) -> (B, N, dim)


def interpolate_position_embedding(
    pos_embed: torch.Tensor,
    grid: tuple[int, int],
    *,
    old_grid: tuple[int, int] | None = None,
    num_prefix_tokens: int = 1,
    antialias: bool = True,
) -> torch.Tensor:
    """Resize learned positions to another grid of patches: (1, prefix + N, D) -> (1, prefix + rows · columns, D).

    The prefix tokens (class, distillation) have no place and are kept. `old_grid` is taken to be square when it is not
    given. Bicubic; antialias=True is timm's way, the original JAX code and older PyTorch ports have it off.
    Raises ValueError when the tokens do not fill the old grid.
    """
    prefix, places = pos_embed[:, :num_prefix_tokens], pos_embed[:, num_prefix_tokens:]
    rows, columns = old_grid or (math.isqrt(places.shape[1]),) * 2
    if rows * columns != places.shape[1]:
        raise ValueError(
            f"{pos_embed.shape[1]} positions with num_prefix_tokens={num_prefix_tokens} leave {places.shape[1]}, which "
            f"do not fill a grid of {rows}×{columns}"
        )
    if (rows, columns) == tuple(grid):
        return pos_embed
    places = places.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)  # (1, N, D) -> (1, D, rows, columns)
    places = F.interpolate(places, size=grid, mode="bicubic", antialias=antialias)
    return torch.cat((prefix, places.flatten(2).transpose(1, 2)), dim=1)  # (1, D, N') -> (1, prefix + N', D)


class VisionTransformer(nn.Module):
    """Patches and a class token through an encoder; the class token's last state is classified.

    (B, in_channels, H, W) -> (B, num_classes), H and W those of `img_size`. `drop_path` grows linearly with the depth.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        img_size: ImageSize = 224,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(img_size, patch_size, dim, in_channels)
        rows, columns = self.patch_embed.grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, dim))
        self.pos_drop = nn.Dropout(dropout)
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.Sequential(
            *[
                TransformerEncoderBlock(dim, num_heads, mlp_ratio=mlp_ratio, dropout=dropout, drop_path=rate)
                for rate in rates
            ]
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal with a standard deviation of 0.02 everywhere, a head smaller still, biases zero."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=0.02 if module is not self.head else 0.001)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        check_images(images, self.patch_embed.proj.in_channels, training=self.training)
        x = self.patch_embed(images)  # (B, C, H, W) -> (B, N, D)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)  # -> (B, 1 + N, D)
        x = self.pos_drop(x + self.pos_embed)
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0])  # (B, 1 + N, D) -> (B, D) -> (B, num_classes)


@register_model
def vit_tiny_patch16(
    num_classes: int = 1000, in_channels: int = 3, *, img_size: ImageSize = 224, patch_size: int = 16, drop_path: float = 0.0
) -> VisionTransformer:
    """ViT-Ti/16: 5.7 M parameters with 1000 classes at 224 pixels."""
    return VisionTransformer(
        num_classes, in_channels, img_size=img_size, patch_size=patch_size, drop_path=drop_path, **TINY
    )


@register_model
def vit_small_patch16(
    num_classes: int = 1000, in_channels: int = 3, *, img_size: ImageSize = 224, patch_size: int = 16, drop_path: float = 0.0
) -> VisionTransformer:
    """ViT-S/16: 22.1 M parameters with 1000 classes at 224 pixels."""
    return VisionTransformer(
        num_classes, in_channels, img_size=img_size, patch_size=patch_size, drop_path=drop_path, **SMALL
    )


@register_model
def vit_base_patch16(
    num_classes: int = 1000, in_channels: int = 3, *, img_size: ImageSize = 224, patch_size: int = 16, drop_path: float = 0.0
) -> VisionTransformer:
    """ViT-B/16: 86.6 M parameters with 1000 classes at 224 pixels."""
    return VisionTransformer(
        num_classes, in_channels, img_size=img_size, patch_size=patch_size, drop_path=drop_path, **BASE
    )


@register_model
def vit_base_patch32(
    num_classes: int = 1000, in_channels: int = 3, *, img_size: ImageSize = 224, patch_size: int = 32, drop_path: float = 0.0
) -> VisionTransformer:
    """ViT-B/32: 88.2 M parameters with 1000 classes at 224 pixels."""
    return VisionTransformer(
        num_classes, in_channels, img_size=img_size, patch_size=patch_size, drop_path=drop_path, **BASE
    )


@register_model
def vit_large_patch16(
    num_classes: int = 1000, in_channels: int = 3, *, img_size: ImageSize = 224, patch_size: int = 16, drop_path: float = 0.0
) -> VisionTransformer:
    """ViT-L/16: 304.3 M parameters with 1000 classes at 224 pixels."""
    return VisionTransformer(
        num_classes, in_channels, img_size=img_size, patch_size=patch_size, drop_path=drop_path, **LARGE
    )


@register_model
def vit_huge_patch14(
    num_classes: int = 1000, in_channels: int = 3, *, img_size: ImageSize = 224, patch_size: int = 14, drop_path: float = 0.0
) -> VisionTransformer:
    """ViT-H/14: 632.0 M parameters with 1000 classes at 224 pixels."""
    return VisionTransformer(
        num_classes, in_channels, img_size=img_size, patch_size=patch_size, drop_path=drop_path, **HUGE
    )
