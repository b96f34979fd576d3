"""Exercises on the vision transformer: cut an image into patches, embed them, put the whole network together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from dlcourse.exercises._parity import compare_gradients
from dlcourse.exercises._vit_network import VisionTransformer, check_vision_transformer
from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Wrong = dict[str, Callable[[], torch.Tensor]]


def patchify(images: torch.Tensor, patch_size: int) -> torch.Tensor:
    b, c, height, width = images.shape
    p = patch_size
    rows, columns = height // p, width // p
    x = images.reshape(b, c, rows, p, columns, p)
    x = x.permute(0, 2, 4, 1, 3, 5)  # (B, C, H/P, P, W/P, P) -> (B, H/P, W/P, C, P, P)
    return x.reshape(b, rows * columns, c * p * p)


def check_patchify(answer: Answer) -> str:
    def numbered(*shape: int) -> torch.Tensor:
        return torch.arange(float(torch.Size(shape).numel())).reshape(shape)

    cases = [(numbered(1, 1, 4, 6), 2), (numbered(1, 2, 4, 4), 2), (numbered(2, 3, 6, 6), 3), (numbered(2, 3, 4, 10), 2)]
    cases += [(numbered(3, 2, 9, 3), 3), (numbered(2, 5, 4, 6), 1), (torch.randn(1, 3, 8, 12, dtype=torch.float64), 4)]
    # Arguments that lie otherwise in memory: a view that is no plain block, and whole numbers.
    cases += [(torch.randn(2, 8, 6, 3).permute(0, 3, 1, 2), 2), (torch.arange(96).reshape(2, 3, 4, 4), 2)]
    for images, p in cases:
        try:
            got = answer(images, p)
        except Mistake as mistake:
            if images.shape[2] == images.shape[3] or not str(mistake).startswith("It raises"):
                raise
            raise Mistake(f"It takes images for square: height and width may differ. {mistake}") from None
        compare(got, patchify(images, p), given=describe(images, p), mistakes=_patchify_mistakes(images, p))
    images = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    compare_gradients(answer(images, 2), patchify(images, 2), {"the images": images}, "float64 images")
    return "order of the patches and of the numbers in each, oblong images, several channels, dtypes, and the gradient"


def _patchify_mistakes(images: torch.Tensor, p: int) -> Wrong:
    b, c, height, width = images.shape
    grid = images.reshape(b, c, height // p, p, width // p, p)  # (B, C, row, y, column, x)
    n, size = grid.shape[2] * grid.shape[4], c * p * p

    def order(*dims: int) -> torch.Tensor:
        return grid.permute(dims).reshape(b, n, size)

    return {
        "reshapes without a permute, so that each row holds neighbours in memory instead of a square of the image":
            lambda: images.reshape(b, n, size),
        "orders the numbers of a patch as (P, P, C); the channels come first, as in a convolution's kernel":
            lambda: order(0, 2, 4, 3, 5, 1),
        "goes down the columns of patches; they are numbered row by row": lambda: order(0, 4, 2, 1, 3, 5),
        "swaps rows and columns inside each patch": lambda: order(0, 2, 4, 1, 5, 3),
        "swaps rows and columns, of the patches and inside them": lambda: order(0, 4, 2, 1, 5, 3),
        "keeps the channels of a patch apart as patches of their own": lambda: grid.permute(0, 1, 2, 4, 3, 5).reshape(
            b, c * n, p * p),
        "mixes the channels of different patches: channels, then places, then a reshape": lambda: order(
            0, 1, 2, 4, 3, 5),
        "returns (B, C·P·P, N), the layout of F.unfold: transpose the last two": lambda: order(0, 2, 4, 1, 3, 5).mT,
        "keeps the grid (B, H/P, W/P, C·P·P): flatten its rows and columns into N": lambda: grid.permute(
            0, 2, 4, 1, 3, 5).flatten(3),
        "keeps the patches as (B, N, C, P, P): flatten each": lambda: grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2),
        "takes every (H/P)-th pixel: a patch is made of neighbours": lambda: images.reshape(
            b, c, p, height // p, p, width // p).permute(0, 3, 5, 1, 2, 4).reshape(b, n, size),
        "lets the patches overlap: the stride is P": lambda: F.unfold(images, p).mT,
        "uses the first image for the whole batch": lambda: order(0, 2, 4, 1, 3, 5)[:1].expand(b, -1, -1),
    }


register(
    "vit.patchify",
    patchify,
    check_patchify,
    difficulty=2,
    importance=5,
    minutes=12,
    hints=(
        "Split the height into (H/P, P) and the width into (W/P, P). Now you have six axes: which four are one patch?",
        "The axes are (B, C, row, y, column, x). Bring them into the order (B, row, column, C, y, x) with permute.",
        "After the permute, reshape to (B, (H/P)·(W/P), C·P·P). Without it a reshape cuts the memory, not the image.",
    ),
)


def embed(patches: torch.Tensor, cls_token: torch.Tensor, pos_embed: torch.Tensor) -> torch.Tensor:
    tokens = cls_token.expand(len(patches), -1, -1)  # (1, 1, D) -> (B, 1, D)
    return torch.cat((tokens, patches), dim=1) + pos_embed  # (B, 1 + N, D)


def check_embed(answer: Answer) -> str:
    one = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[10.0, 20.0]]])
    cases = [(*one, torch.tensor([[[100.0, 0.0], [0.0, 200.0], [300.0, 300.0]]]))]
    for b, n, d in ((2, 1, 3), (1, 4, 5), (3, 3, 3), (4, 6, 2), (5, 4, 5)):
        cases.append((torch.randn(b, n, d), torch.randn(1, 1, d), torch.randn(1, 1 + n, d)))
    patches, cls_token, pos_embed = cases[-1]
    cases.append((patches.double(), cls_token.double(), pos_embed.double()))
    for given in cases:
        compare(answer(*given), embed(*given), given=describe(*given), mistakes=_embed_mistakes(*given))
    tensors = [t.double().requires_grad_() for t in cases[4]]
    names = ("the patches", "the class token", "the positions")
    compare_gradients(answer(*tensors), embed(*tensors), dict(zip(names, tensors, strict=True)), "float64 tensors")
    return "the class token first in every image, a position for each token, float64, and every gradient"


def _embed_mistakes(patches: torch.Tensor, cls: torch.Tensor, pos: torch.Tensor) -> Wrong:
    b, n, d = patches.shape
    first = cls.expand(b, -1, -1)
    return {
        "puts the class token last; timm's weights expect it first": lambda: torch.cat((patches, first), 1) + pos,
        "adds the positions to the patches only; the class token has one too":
            lambda: torch.cat((first, patches + pos[:, 1:]), 1),
        "gives the patches the positions from the first on, the class token's included":
            lambda: torch.cat((first, patches + pos[:, :n]), 1),
        "gives the last position to the class token": lambda: torch.cat((first, patches), 1) + pos.roll(1, dims=1),
        "forgets the positions": lambda: torch.cat((first, patches), 1),
        "forgets the class token": lambda: patches + pos[:, 1:],
        "adds the class token to each patch; it is a token of its own": lambda: patches + cls + pos[:, 1:],
        "adds the class token to the positions and leaves no place for it": lambda: patches + pos[:, :1] + cls,
        "joins the tokens along the batch axis": lambda: torch.cat((first, patches), 0),
        "joins the class token along the channels": lambda: torch.cat((first.expand(-1, n, -1), patches), 2),
        "multiplies by the positions; they are added": lambda: torch.cat((first, patches), 1) * pos,
        "adds the positions twice": lambda: torch.cat((first, patches), 1) + 2 * pos,
        "adds the class token's own position to every token": lambda: torch.cat((first, patches), 1) + pos[:, :1],
        "gives only the first image the class token, the others zeros": lambda: torch.cat(
            (torch.cat((cls, cls.new_zeros(b - 1, 1, d))), patches), 1) + pos,
        "replaces the first patch by the class token": lambda: torch.cat((first, patches[:, 1:]), 1) + pos[:, :n],
        "draws a class token of its own instead of using the one that is given (zeros, it seems)": lambda: torch.cat(
            (torch.zeros_like(first), patches), 1) + pos,
    }


register(
    "vit.embed",
    embed,
    check_embed,
    difficulty=2,
    importance=4,
    minutes=8,
    hints=(
        "Every image of the batch needs the same class token in front of its patches: first (1, 1, D) to (B, 1, D).",
        "cls_token.expand(B, -1, -1), then torch.cat along the tokens' axis. How many tokens are there now?",
        "1 + N tokens meet 1 + N positions: add them after the concatenation, the batch axis broadcasts.",
    ),
)


register(
    "vit.vision_transformer",
    VisionTransformer,
    check_vision_transformer,
    difficulty=3,
    importance=5,
    minutes=20,
    hints=(
        "Five parts in a row: patches, class token and positions, blocks, norm, head. What is the shape after each?",
        "timm's names: patch_embed, cls_token (1, 1, D), pos_embed (1, 1 + N, D), blocks (nn.Sequential), norm, head. N is "
        "the product of patch_embed.grid.",
        "The norm is nn.LayerNorm(dim, eps=1e-6) after the last block; the head sees x[:, 0] of what comes out of it.",
    ),
)
