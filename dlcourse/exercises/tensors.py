"""Exercises on tensors (chapter 01): reductions along axes, the order of axes, broadcasting."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Mistakes = dict[str, Callable[[], Tensor]]


def standardize(images: Tensor) -> Tensor:
    """Give each channel of a batch (N, C, H, W) mean 0 and standard deviation 1, over all images and pixels."""
    mean = images.mean(dim=(0, 2, 3), keepdim=True)  # (N, C, H, W) -> (1, C, 1, 1)
    std = images.std(dim=(0, 2, 3), keepdim=True, correction=0)
    return (images - mean) / std


def check_standardize(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    smallest = torch.tensor([0.0, 2, 10, 14, 4, 6, 18, 31]).reshape(2, 2, 1, 2)  # as many columns as channels
    shapes = ((3, 3, 3, 3), (2, 3, 5, 7), (1, 1, 4, 6))
    scale = torch.tensor([1.0, 3, 9]).reshape(3, 1, 1)  # channels that differ, or mixing them up would go unseen
    batches = [smallest, *(scale[: c] * torch.rand(n, c, h, w, generator=generator) + scale[:c] for n, c, h, w in shapes)]
    batches.append(batches[2].double())
    batches.append(batches[2].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))  # not contiguous, as an HWC image is
    for images in batches:
        compare(answer(images), standardize(images), given=describe(images), mistakes=_standardize_mistakes(images))
    return "each channel has mean 0 and standard deviation 1: six batches, wide, high and square, float32 and float64"


def _standardize_mistakes(x: Tensor) -> Mistakes:
    def over(*dims: int, correction: int = 0) -> Tensor:
        return (x - x.mean(dims, keepdim=True)) / x.std(dims, keepdim=True, correction=correction)

    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0)  # (C,): without keepdim
    columns, rows = mean.reshape(1, -1, 1, 1), std.reshape(1, -1, 1, 1)
    return {
        "treats each image on its own: the batch axis 0 belongs to the mean and the standard deviation too": lambda: over(2, 3),
        "takes one mean and one standard deviation an image, over its channels": lambda: over(1, 2, 3),
        "takes one mean and one standard deviation over all channels": lambda: over(0, 1, 2, 3),
        "averages over the batch axis alone, so that each pixel has its own mean": lambda: over(0),
        "averages over the channels (axis 1), the one axis that must stay": lambda: over(1),
        "divides by n − 1 (the default of torch.std) where n is asked for: correction=0": lambda: over(0, 2, 3, correction=1),
        "divides by the variance instead of the standard deviation": lambda: (x - columns) / rows**2,
        "loses the axes it averages over (no keepdim), so that C numbers line up with the columns": lambda: (x - mean) / std,
        "subtracts the mean but does not divide by the standard deviation": lambda: x - columns,
        "divides by the standard deviation but does not subtract the mean": lambda: x / rows,
        "divides the mean alone: (images − mean) needs brackets": lambda: x - columns / rows,
        "averages the standard deviations of the single images, which is too small": lambda: (
            (x - columns) / x.std((2, 3), keepdim=True, correction=0).mean(0, keepdim=True)
        ),
        "scales to the range 0 … 1 by minimum and maximum": lambda: (
            (x - x.amin((0, 2, 3), keepdim=True)) / (x.amax((0, 2, 3), keepdim=True) - x.amin((0, 2, 3), keepdim=True))
        ),
    }


register(
    "tensors.standardize",
    standardize,
    check_standardize,
    difficulty=2,
    importance=5,
    minutes=10,
    hints=(
        "A channel's mean is taken over everything but the channel: which of the axes 0, 1, 2, 3 of (N, C, H, W) are that?",
        "`mean` and `std` take several axes at once: dim=(0, 2, 3). Keep those axes as size 1, so that the result, of shape "
        "(1, C, 1, 1), lines up with the images.",
        "mean = images.mean(dim=(0, 2, 3), keepdim=True); std likewise, with correction=0; return (images - mean) / std.",
    ),
)


def chw_from_hwc(photos: Tensor) -> Tensor:
    """Photos as files hold them, (N, H, W, C) bytes, as networks take them: (N, C, H, W), float32 from 0 to 1."""
    return photos.permute(0, 3, 1, 2).to(torch.float32) / 255  # (N, H, W, C) -> (N, C, H, W)


def check_chw_from_hwc(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    smallest = torch.tensor([0, 51, 102, 153, 204, 255], dtype=torch.uint8).reshape(1, 1, 2, 3)
    shapes = ((1, 2, 2, 3), (2, 3, 3, 3), (2, 4, 6, 3), (3, 5, 7, 1), (1, 3, 8, 4))
    dark = torch.randint(0, 90, (2, 4, 5, 3), generator=generator, dtype=torch.uint8)
    batches = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes]
    for photos in (smallest, *batches, dark):
        got, want = answer(photos), chw_from_hwc(photos)
        if isinstance(got, Tensor) and got.shape == want.shape and got.dtype == torch.float64:
            raise Mistake(f"It returns float64, twice the memory of the float32 that networks compute in. Given {describe(photos)}.")
        compare(got, want, given=describe(photos), mistakes=_chw_mistakes(photos), rtol=1e-5, atol=1e-6)
    return "bytes to floats, the axes in order: seven batches with 1, 3 and 4 channels, wide, high and square"


def _chw_mistakes(x: Tensor) -> Mistakes:
    n, h, w, c = x.shape
    moved, values = x.permute(0, 3, 1, 2), x.float() / 255
    return {
        "reshapes where axes must be permuted: the numbers keep their order, so each channel holds a mix of all": lambda: (
            values.reshape(n, c, h, w)
        ),
        "moves the channels but leaves the bytes as they are: float32 from 0 to 1 is asked for": lambda: moved,
        "moves the channels but leaves the values from 0 to 255: divide by 255": lambda: moved.float(),
        "swaps height and width too (W before H)": lambda: values.transpose(1, 3),
        "leaves the channels last": lambda: values,
        "divides by 256, so that white is not 1": lambda: moved.float() / 256,
        "rounds to 0 and 1: a division of whole numbers (//), or a conversion too early": lambda: (moved // 255).float(),
        "divides by the largest value of this batch: a dark photo would turn bright": lambda: moved.float() / x.max(),
        "reverses the channels (red and blue change places)": lambda: values.permute(0, 3, 1, 2).flip(1),
        "scales to −1 … 1": lambda: values.permute(0, 3, 1, 2) * 2 - 1,
    }


register(
    "tensors.chw_from_hwc",
    chw_from_hwc,
    check_chw_from_hwc,
    difficulty=2,
    importance=5,
    minutes=10,
    hints=(
        "Two steps: put the axes in the new order, and change bytes to floats from 0 to 1. `reshape` does neither.",
        "`permute` takes the old axes in their new order. In (N, H, W, C), C is axis 3 and comes second now.",
        "photos.permute(0, 3, 1, 2).float() / 255",
    ),
)


def pairwise_distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance of each point of `a` (N, D) from each point of `b` (M, D), without a loop: (N, M)."""
    difference = a[:, None, :] - b[None, :, :]  # (N, 1, D) - (1, M, D) -> (N, M, D)
    return difference.square().sum(dim=2).sqrt()  # (N, M, D) -> (N, M)


def check_pairwise_distances(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    cases = [(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, -4.0], [-6.0, 8.0]]))]
    cases.append((torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0], [1.0, 3.0]])))
    for n, m, d in ((3, 3, 3), (4, 2, 5), (1, 6, 3), (5, 3, 1)):
        cases.append((torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator)))
    cases.append((cases[3][0].double(), cases[3][1].double()))
    for a, b in cases:
        compare(
            answer(a, b), pairwise_distances(a, b), given=describe(a, b), mistakes=_distance_mistakes(a, b),
            rtol=1e-3, atol=1e-3,
        )  # fmt: skip
    points = torch.randn(64, 8, generator=generator)
    got = answer(points, points)
    if isinstance(got, Tensor) and bool(got.isnan().any()):
        raise Mistake(
            "It gives nan for a point and itself: |a|² − 2a·b + |b|² is 0 there, rounding makes it slightly negative, and "
            "its root is nan. Subtract the points first, or clamp at 0."
        )
    compare(got, pairwise_distances(points, points), given="64 points and themselves", rtol=1e-2, atol=1e-2)
    return "seven pairs of sizes, N ≠ M, float32 and float64, and 64 points against themselves"


def _distance_mistakes(a: Tensor, b: Tensor) -> Mistakes:
    difference = a[:, None, :] - b[None, :, :]
    distances = pairwise_distances(a, b)
    return {
        "forgets the square root: these are squared distances": lambda: distances**2,
        "is transposed: row i belongs to point i of a, column j to point j of b": lambda: distances.T,
        "adds absolute values (or takes each root before the sum): that is the Manhattan distance": lambda: difference.abs().sum(2),
        "compares point i with point i alone: a new axis in each makes all pairs": lambda: (a - b).square().sum(1).sqrt(),
        "averages over the D coordinates where they are summed": lambda: difference.square().mean(2).sqrt(),
        "gives the dot products a·b, not distances": lambda: a @ b.T,
        "adds the differences before it squares them, so that they cancel": lambda: difference.sum(2).abs(),
        "sums over the points of b instead of over the coordinates": lambda: difference.square().sum(1).sqrt(),
        "sums over the points of a instead of over the coordinates": lambda: difference.square().sum(0).sqrt(),
        "leaves out the sum over the coordinates": lambda: difference.abs(),
        "measures a against itself": lambda: pairwise_distances(a, a),
        "forgets the term −2a·b": lambda: (a.square().sum(1)[:, None] + b.square().sum(1)).sqrt(),
    }


register(
    "tensors.pairwise_distances",
    pairwise_distances,
    check_pairwise_distances,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "You need all N·M differences. Which shapes broadcast to (N, M, D)?",
        "a[:, None, :] has shape (N, 1, D) and b[None, :, :] has (1, M, D). Subtract, then reduce the axis of the coordinates.",
        "difference = a[:, None] - b[None]; return difference.square().sum(dim=2).sqrt().",
    ),
)
