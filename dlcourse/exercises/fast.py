"""Exercises on fast training (chapter 19): a crop of a whole batch at once, and filters that whiten patches.

Whitening, as for a first convolution in Jordan 2024 (arXiv:2404.00498). `fast.whitening` asks for one filter a row, with
uncorrelated outputs of variance ≈ 1. That leaves the filters free, and the check accepts every W (D, D) with
W (covariance + 5e-4 · I) Wᵀ = I: the scaled eigenvectors with any signs and in any order, and what comes of them by a
rotation, such as the symmetric root (ZCA) or a Cholesky factor. The covariance may be divided by N or by N − 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Mistakes = dict[str, Callable[[], Tensor]]
EPS = 5e-4


def batch_crop(images: Tensor, top: Tensor, left: Tensor, padding: int) -> Tensor:
    height, width = images.shape[2:]
    padded = F.pad(images, [padding] * 4)  # (B, C, H + 2p, W + 2p)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (B, C, 2p + 1, 2p + 1, H, W)
    return windows[torch.arange(len(images)), :, top, left]  # (B, C, H, W)


def check_batch_crop(answer: Answer) -> str:
    # The first is such that no two of the mistakes cut the same window.
    cases = [
        (_numbered(1, 1, 3, 4), [3], [4], 2),
        (_numbered(1, 1, 3, 2), [2], [0], 1),
        (_numbered(2, 1, 2, 3), [0, 2], [1, 2], 1),
        (_numbered(3, 2, 4, 6).to(torch.uint8), [0, 2, 1], [2, 2, 0], 1),
        (_numbered(2, 5, 3, 4), [0, 0], [0, 0], 0),
        (_numbered(5, 4, 6, 5).double(), [4, 0, 3, 2, 1], [0, 4, 1, 2, 2], 2),
        (torch.randn(7, 3, 6, 6), [6, 0, 0, 6, 3, 5, 1], [6, 0, 6, 0, 3, 2, 4], 3),
        (torch.randint(256, (3, 3, 8, 5), dtype=torch.uint8), [8, 0, 5], [1, 8, 7], 4),
    ]
    for images, rows, columns, padding in cases:
        top, left = torch.tensor(rows), torch.tensor(columns)
        compare(
            answer(images, top, left, padding), batch_crop(images, top, left, padding), rtol=0, atol=0,
            given=describe(images, top, left, padding=padding), mistakes=_crop_mistakes(images, top, left, padding),
        )  # fmt: skip
    return "every image at its own place, up to all four corners, not square, bytes and floats, 1 to 5 channels, no padding"


def _numbered(size: int, channels: int, height: int, width: int) -> Tensor:
    """Images in which no two pixels are the same."""
    return torch.arange(1.0, size * channels * height * width + 1).reshape(size, channels, height, width)


def _crop_mistakes(images: Tensor, top: Tensor, left: Tensor, p: int) -> Mistakes:
    height, width = images.shape[2:]
    nothing, middle, beyond = torch.zeros_like(top), torch.full_like(top, p), 2 * p + 1

    def cut(top: Tensor, left: Tensor, mode: str = "constant", value: float = 0) -> Tensor:
        """The windows at `top` and `left`, which may lie up to `beyond` outside what is padded."""
        padded = F.pad(F.pad(images, [p] * 4, mode, value), [beyond] * 4)
        starts = zip(padded, (top + beyond).tolist(), (left + beyond).tolist(), strict=True)
        return torch.stack([image[:, row : row + height, column : column + width] for image, row, column in starts])

    return {
        "swaps the two: `top` says where the rows begin, `left` where the columns do": lambda: cut(left, top),
        "moves the other way: the window begins at row top[b] and column left[b] of the padded image":
            lambda: cut(2 * p - top, 2 * p - left),
        "swaps the two and moves the other way: the window begins at row top[b] and column left[b]":
            lambda: cut(2 * p - left, 2 * p - top),
        "counts top and left from the corner of the image: they count from the padded one's, `padding` further up and left":
            lambda: cut(top + p, left + p),
        "pads too much above and on the left: `padding` zeros on each side, not twice as many": lambda: cut(top - p, left - p),
        "leaves the images where they are: cut each at top[b] and left[b]": lambda: cut(middle, middle),
        "cuts every image at row 0 and column 0: cut each at top[b] and left[b]": lambda: cut(nothing, nothing),
        "cuts the whole batch at the place of the first image: each has its own": lambda: cut(
            top[:1].expand_as(top), left[:1].expand_as(left)),
        "cuts the whole batch at the place of the last image: each has its own": lambda: cut(
            top[-1:].expand_as(top), left[-1:].expand_as(left)),
        "gives the images each other's places (in reverse): image b is cut at top[b] and left[b]":
            lambda: cut(top.flip(0), left.flip(0)),
        "gives the images each other's places (sorted): image b is cut at top[b] and left[b]":
            lambda: cut(top.sort().values, left.sort().values),
        "ignores `left`: rows move, columns stay": lambda: cut(top, middle),
        "ignores `top`: columns move, rows stay": lambda: cut(middle, left),
        "ignores `left`: all columns begin at 0": lambda: cut(top, nothing),
        "ignores `top`: all rows begin at 0": lambda: cut(nothing, left),
        "takes `top` for both directions": lambda: cut(top, top),
        "takes `left` for both directions": lambda: cut(left, left),
        "begins one row and one column too late: top and left count from 0": lambda: cut(top + 1, left + 1),
        "begins one row and one column too early: top and left count from 0": lambda: cut(top - 1, left - 1),
        "lets what leaves on one side come in on the other (as torch.roll does): pad with zeros":
            lambda: cut(top, left, "circular"),
        "fills the border with copies of the edge: pad with zeros": lambda: cut(top, left, "replicate"),
        "fills the border with a mirror image: pad with zeros": lambda: cut(top, left, "reflect"),
        "fills the border with the mean: pad with zeros": lambda: cut(top, left, value=images.mean().item()),
        "fills the border with ones: pad with zeros": lambda: cut(top, left, value=1),
        "turns the windows on their side: H comes before W": lambda: cut(top, left).transpose(2, 3),
        "does not pad: a window that is moved reaches beyond the image":
            lambda: images[:, :, int(top[0]) : int(top[0]) + height, int(left[0]) : int(left[0]) + width],
        "returns the padded images whole: cut a window (H, W) from each": lambda: F.pad(images, [p] * 4),
        "makes floats of them: keep the dtype of the images, bytes stay bytes": lambda: cut(top, left).float(),
    }  # fmt: skip


register(
    "fast.batch_crop", batch_crop, check_batch_crop, difficulty=3, importance=4, minutes=15,
    hints=(
        "Pad the whole batch once: F.pad(images, [padding] * 4) keeps the dtype. Image b then needs rows top[b] … top[b] + H − 1.",
        "padded.unfold(2, H, 1).unfold(3, W, 1) is a view of every window there is: (B, C, 2·padding + 1, 2·padding + 1, H, W).",
        "Index that view with three tensors (B,): windows[torch.arange(B), :, top, left]. They are read side by side, so each "
        "image gets its own place, and the result is (B, C, H, W).",
    ),
)  # fmt: skip


def whitening(patches: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(patches.T.cov())  # (D,) and (D, D), an eigenvector a column
    return (vectors / (values + 5e-4).sqrt()).T  # (D, D), a filter a row


def check_whitening(answer: Answer) -> str:
    # The two eigenvalues of the first are some 1.5e-3 and 2e-4, so that 5e-4 matters to both.
    few = torch.tensor([[0.51, 0.40], [0.55, 0.45], [0.47, 0.38], [0.52, 0.41], [0.48, 0.42]])
    cases = [
        few,
        torch.tensor([[0.0, 0.1, 0.9], [0.4, 0.5, 0.2], [0.3, 0.0, 0.4], [0.8, 0.9, 0.8]]),
        _pixels(60, 4) - 0.5,
        _pixels(400, 12),
        _pixels(300, 7).double(),
        _pixels(50, 3)[:, [0, 1, 2, 1]],  # one value twice: an eigenvalue is 0
        _pixels(5, 8),  # fewer patches than values: several are
        0.02 * torch.randn(200, 6),
    ]
    for patches in cases:
        _check_filters(answer(patches), patches)
    return "uncorrelated outputs of variance 1 for patches of 2 to 12 values, in both precisions, and with eigenvalues of 0"


def _pixels(size: int, values: int) -> Tensor:
    """Patches whose values go together, as those of neighbouring pixels do, of unequal spread."""
    return 0.4 + 0.2 * torch.randn(size, 1) + torch.randn(size, values) * torch.linspace(0.01, 0.15, values)


def _check_filters(got: Any, patches: Tensor) -> None:
    size, values = patches.shape
    if not isinstance(got, Tensor):
        raise Mistake(f"It returns {describe(got)}, where a tensor of filters is asked for.")
    shapes = {
        patches.shape: "returns the whitened patches: the filters that whiten them are asked for",
        (size, size): "takes the covariance between patches: it is that between their values, (D, D)",
        (2 * values, values): "returns every filter and its negative: D filters are asked for",
    }
    says = shapes.get(tuple(got.shape), "")
    if got.is_complex():
        says = "returns complex numbers: a covariance is symmetric, and torch.linalg.eigh keeps it real"
    if got.shape != (values, values) or got.dtype != patches.dtype:
        want = torch.zeros(values, values, dtype=patches.dtype)
        compare(got, want, given=describe(patches), mistakes={says: got} if says else None)
    filters, spread = got.detach().double(), [_covariance(patches, correction) + EPS * _eye(patches) for correction in (1, 0)]
    if not filters.isfinite().all():
        raise Mistake(f"Some of its filters are nan or inf. Given {describe(patches)}.")
    if any(_whitens(filters, matrix) for matrix in spread):
        return
    says = next((says for correction in (1, 0) for says in _filter_mistakes(filters, patches, correction)), "")
    outputs = filters @ spread[0] @ filters.T
    compare(
        outputs, _eye(patches), given=describe(patches), rtol=0, atol=1e-2, mistakes={says: outputs} if says else None,
        what="filters @ (covariance + 5e-4 · I) @ filters.T",
    )  # fmt: skip


def _eye(patches: Tensor) -> Tensor:
    return torch.eye(patches.shape[1], dtype=torch.float64)


def _covariance(patches: Tensor, correction: int) -> Tensor:
    return patches.double().T.cov(correction=correction)


def _whitens(filters: Tensor, covariance: Tensor) -> bool:
    """Whether what the filters give has variance 1 and no correlation, for patches of this covariance."""
    return bool(((filters @ covariance @ filters.T - torch.eye(len(filters))).abs() < 1e-2).all())


def _filter_mistakes(filters: Tensor, patches: Tensor, correction: int) -> Iterator[str]:
    """What may be wrong with the filters: most mistakes whiten patches of another covariance than theirs."""
    x, eye, covariance = patches.double(), _eye(patches), _covariance(patches, correction)
    divisor, right, deviations = len(x) - correction, covariance + EPS * eye, covariance.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp_min(0)
    own = x - x.mean(1, keepdim=True)

    def of(eigenvalues: Tensor) -> Tensor:
        return vectors @ eigenvalues.diag() @ vectors.T

    eps = "adds no 5e-4 to the eigenvalues: one near 0 then makes a filter huge"
    by_patch = "subtracts from each patch its own mean: what is subtracted is the mean patch, x.mean(0)"
    others = [
        (eps, covariance),
        ("does not subtract the mean: the covariance is that of patches − patches.mean(0)", x.T @ x / divisor + EPS * eye),
        (by_patch, own.T @ own / divisor + EPS * eye),
        (by_patch, own.T.cov(correction=correction) + EPS * eye),
        ("adds 5e-4 to the root: add it to the eigenvalue, inside the root", of((values.sqrt() + EPS) ** 2)),
        ("divides by the eigenvalue: divide by its square root", right @ right),
        ("divides by the eigenvalue: divide by its square root", covariance @ covariance),
        ("does not scale the eigenvectors: divide each by the root of its eigenvalue + 5e-4", eye),
        ("multiplies by the root: divide by it", of(1 / (values + EPS))),
        ("does not divide the covariance by the number of patches", divisor * covariance + EPS * eye),
        ("takes singular values for eigenvalues: an eigenvalue of the covariance is s² / (N − 1)",
            of((divisor * values).sqrt() + EPS)),
        ("scales each value by itself: the values stay correlated, so take the eigenvectors of the covariance",
            (deviations**2 + EPS).diag()),
        ("scales each value by itself: the values stay correlated, so take the eigenvectors of the covariance",
            (deviations**2).diag()),
        ("whitens patches whose values it has scaled to variance 1: the filters will be given the patches as they are",
            covariance / torch.outer(deviations, deviations) + EPS * eye),
    ]  # fmt: skip
    yield from (says for says, matrix in others if _whitens(filters, matrix))
    if _whitens(filters.T, right):
        yield "has the filters in its columns: transpose, one filter a row"
    lengths, wanted = (filters @ filters.T).diagonal(), 1 / (values + EPS)
    if torch.allclose(lengths.sort().values, wanted.sort().values, rtol=1e-2):
        outputs = filters @ right @ filters.T
        if torch.allclose(outputs, outputs.diagonal().diag(), rtol=0, atol=1e-2):
            yield "divides eigenvectors by the roots of others' eigenvalues: sort both alike"
        yield "scales rows that are no eigenvectors: torch.linalg.eigh has them in the columns of its second result"
    used = torch.linalg.pinv(filters.T @ filters) - covariance
    if _whitens(filters, covariance + used.diagonal().mean() * eye):
        yield f"adds {used.diagonal().mean():.1g} to the eigenvalues: 5e-4 is asked for"


register(
    "fast.whitening", whitening, check_whitening, difficulty=3, importance=3, minutes=15,
    hints=(
        "Along the eigenvectors of the covariance the patches are uncorrelated, and the eigenvalue is their variance there.",
        "patches.T.cov() is the covariance (D, D), the mean subtracted. torch.linalg.eigh gives its eigenvalues (D,) and, in "
        "columns, its eigenvectors (D, D).",
        "vectors / (values + 5e-4).sqrt() divides each column by its own root. Transpose that, and every row is a filter.",
    ),
)  # fmt: skip
