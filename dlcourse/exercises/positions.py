"""Exercise on learned positions: resize them to another grid of patches."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any

import torch
from torch.nn import functional as F

from dlcourse.exercises._parity import compare_gradients
from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Grid = tuple[int, int]


def interpolate(pos_embed: torch.Tensor, old_grid: Grid, new_grid: Grid, num_prefix_tokens: int = 1) -> torch.Tensor:
    prefix, places = pos_embed[:, :num_prefix_tokens], pos_embed[:, num_prefix_tokens:]
    places = places.reshape(1, *old_grid, -1).permute(0, 3, 1, 2)  # (1, N, D) -> (1, D, rows, columns)
    places = F.interpolate(places, size=new_grid, mode="bicubic", antialias=True)
    return torch.cat((prefix, places.flatten(2).transpose(1, 2)), dim=1)  # (1, D, N') -> (1, prefix + N', D)


def check_interpolate(answer: Answer) -> str:
    cases: list[tuple[int, Grid, Grid, int]] = [
        (2, (3, 3), (2, 2), 1),
        (2, (2, 2), (3, 3), 1),
        (3, (4, 4), (2, 2), 1),
        (3, (6, 6), (9, 9), 2),
        (2, (3, 5), (6, 7), 1),
        (4, (4, 4), (3, 6), 1),
        (5, (8, 3), (3, 5), 2),
        (3, (4, 6), (7, 4), 0),
        (4, (9, 9), (4, 4), 1),
    ]
    for dim, old, new, prefix in cases:
        for dtype in (torch.float32, torch.float64):
            pos = torch.randn(1, prefix + old[0] * old[1], dim, dtype=dtype)
            want = interpolate(pos, old, new, prefix)
            given = describe(pos, old, new, num_prefix_tokens=prefix)
            got = _call(answer, pos, old, new, prefix)
            compare(got, want, given=given, mistakes=_mistakes(pos, old, new, prefix), atol=1e-6)
    pos = torch.randn(1, 7, 3)
    same = answer(pos, (2, 3), (2, 3))
    compare(same, pos, given=describe(pos, (2, 3), (2, 3)) + " (the same grid)", what="the positions", atol=1e-6)
    _check_gradient(answer)
    return "larger and smaller grids, oblong ones, no, one and two prefix tokens, float64, the same grid, the gradient"


def _call(answer: Answer, pos: torch.Tensor, old: Grid, new: Grid, prefix: int) -> Any:
    """The answer's result; a failure that one prefix token or a square grid explains is said to be that."""
    try:
        return answer(pos, old, new) if prefix == 1 else answer(pos, old, new, num_prefix_tokens=prefix)
    except Mistake as mistake:
        if not str(mistake).startswith("It raises"):
            raise
        square = isqrt(pos.shape[1] - prefix) ** 2 == pos.shape[1] - prefix
        if prefix != 1 and square:
            raise Mistake(f"It fails with {prefix} prefix tokens: cut off num_prefix_tokens of them. {mistake}") from None
        if not square:
            raise Mistake(f"It takes the old grid for square: use old_grid. {mistake}") from None
        raise


def _check_gradient(answer: Answer) -> None:
    pos = torch.randn(1, 13, 2, dtype=torch.float64, requires_grad=True)
    got, want = answer(pos, (3, 4), (5, 2)), interpolate(pos, (3, 4), (5, 2))
    compare_gradients(got, want, {"the positions": pos}, "float64 positions")


def _mistakes(pos: torch.Tensor, old: Grid, new: Grid, prefix: int) -> dict[str, Callable[[], torch.Tensor]]:
    def resized(
        places: torch.Tensor = pos[:, prefix:], start: Grid = old, end: Grid = new, *, back: bool = False, **how: Any
    ) -> torch.Tensor:
        image = places.reshape(1, *start, -1).permute(0, 3, 1, 2)
        image = F.interpolate(image, size=end, **{"mode": "bicubic", "antialias": True, **how})
        if back:
            image = image.mT
        return torch.cat((pos[:, :prefix], image.flatten(2).mT), dim=1)

    def line(places: torch.Tensor, length: int, **how: Any) -> torch.Tensor:
        return F.interpolate(places.mT, size=length, **how).mT

    def without_permute() -> torch.Tensor:
        image = pos[:, prefix:].reshape(1, -1, *old)
        image = F.interpolate(image, size=new, mode="bicubic", antialias=True)
        return torch.cat((pos[:, :prefix], image.flatten(2).mT), dim=1)

    def without_permute_back() -> torch.Tensor:
        image = pos[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
        image = F.interpolate(image, size=new, mode="bicubic", antialias=True)
        return torch.cat((pos[:, :prefix], image.reshape(1, new[0] * new[1], -1)), dim=1)

    n = new[0] * new[1]
    return {
        "interpolates without antialias=True, as older ports do; timm's default has it": lambda: resized(antialias=False),
        "interpolates bilinearly; bicubic is asked for": lambda: resized(mode="bilinear"),
        "interpolates bilinearly and without antialias; bicubic with it is asked for":
            lambda: resized(mode="bilinear", antialias=False),
        "takes the nearest position; bicubic is asked for": lambda: resized(mode="nearest", antialias=False),
        "aligns the corners": lambda: resized(align_corners=True),
        "aligns the corners, without antialias": lambda: resized(align_corners=True, antialias=False),
        "reads the old grid as (columns, rows)": lambda: resized(start=(old[1], old[0])),
        "makes the new grid (columns, rows)": lambda: resized(end=(new[1], new[0])),
        "reads and makes both grids as (columns, rows)": lambda: resized(start=old[::-1], end=new[::-1]),
        "goes down the columns when it flattens the new grid": lambda: resized(back=True),
        "cuts the channels where the places are: (1, N, D) has the channels last, permute after the reshape": without_permute,
        "does not bring the channels back to the end before it flattens": without_permute_back,
        "drops the prefix tokens; they have no place and are kept": lambda: resized()[:, prefix:],
        "puts the prefix tokens last": lambda: resized().roll(-prefix, dims=1),
        "sets the prefix tokens to zero; they are kept": lambda: torch.cat(
            (torch.zeros_like(pos[:, :prefix]), resized()[:, prefix:]), 1),
        "keeps one prefix token, whatever num_prefix_tokens says": lambda: torch.cat(
            (pos[:, :1], resized()[:, prefix:]), 1),
        "resizes the row of all tokens, prefix included, as a line": lambda: line(pos, prefix + n, mode="linear"),
        "resizes the places as a line; they are a grid": lambda: torch.cat(
            (pos[:, :prefix], line(pos[:, prefix:], n, mode="linear")), 1),
    }


register(
    "positions.interpolate",
    interpolate,
    check_interpolate,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "Which tokens have a place in the image? Set the others aside first, and put them back in front at the end.",
        "F.interpolate wants an image (1, D, rows, columns): reshape the N tokens to (1, rows, columns, D), then permute.",
        'F.interpolate(image, size=new_grid, mode="bicubic", antialias=True), then flatten(2).transpose(1, 2), then torch.cat '
        "with the prefix.",
    ),
)
