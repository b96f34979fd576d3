"""Exercise on attention rollout: how much each final token draws on each input token."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dlcourse.exercises.checking import Answer, compare, describe
from dlcourse.exercises.registry import register


def rollout(maps: torch.Tensor) -> torch.Tensor:
    mean = maps.mean(dim=2)  # (depth, B, heads, N, N) -> (depth, B, N, N)
    mixing = (mean + torch.eye(maps.shape[-1], dtype=maps.dtype)) / 2
    total = mixing[0]
    for block in mixing[1:]:
        total = block @ total
    return total


def check_rollout(answer: Answer) -> str:
    one = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    two = torch.tensor([[0.25, 0.75], [0.0, 1.0]])
    pair = torch.stack((one, two))
    cases = [pair[:, None, None], pair[None, None], one[None, None, None]]  # two blocks, two heads, one of each
    for depth, batch, heads, n in ((2, 1, 2, 3), (3, 2, 3, 4), (4, 4, 4, 4), (5, 3, 2, 6)):
        for dtype in (torch.float32, torch.float64):
            cases.append((3 * torch.randn(depth, batch, heads, n, n, dtype=dtype)).softmax(dim=-1))
    for maps in cases:
        compare(answer(maps), rollout(maps), given=describe(maps), mistakes=_mistakes(maps), atol=1e-6)
    return f"{len(cases)} stacks of maps, of one block and several, one head and several, float32 and float64"


def _mistakes(maps: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    eye = torch.eye(maps.shape[-1], dtype=maps.dtype)
    mean = maps.mean(2)
    half = (mean + eye) / 2

    def product(blocks: torch.Tensor, *, reverse: bool = False) -> torch.Tensor:
        total = blocks[0]
        for block in blocks[1:]:
            total = total @ block if reverse else block @ total
        return total

    def rows(x: torch.Tensor) -> torch.Tensor:
        return x / x.sum(dim=-1, keepdim=True)

    return {
        "forgets the identity: the shortcut carries each token on": lambda: product(mean),
        "does not renormalise: with the identity added a row sums to 2": lambda: product(mean + eye),
        "multiplies the blocks in the wrong order: the last block stands leftmost": lambda: product(half, reverse=True),
        "adds the identity to the product instead of to each block": lambda: (product(mean) + eye) / 2,
        "averages the blocks; they act one after the other, so multiply": lambda: half.mean(0),
        "averages the blocks, without the identity; they act one after the other": lambda: mean.mean(0),
        "takes the maximum over the heads; average them": lambda: product(rows(maps.amax(2) + eye)),
        "takes the minimum over the heads; average them": lambda: product(rows(maps.amin(2) + eye)),
        "takes the maximum over the heads, and its rows no longer sum to 1": lambda: product((maps.amax(2) + eye) / 2),
        "uses the first head only": lambda: product((maps[:, :, 0] + eye) / 2),
        "sums the heads instead of averaging them": lambda: product((maps.sum(2) + eye) / 2),
        "sums the heads, so that attention outweighs the shortcut": lambda: product(rows(maps.sum(2) + eye)),
        "multiplies each head by itself through the depth and averages at the end":
            lambda: product((maps + eye) / 2).mean(1),
        "returns the last block alone": lambda: half[-1],
        "returns the first block alone": lambda: half[0],
        "multiplies entry by entry; a matrix product is asked for": lambda: half.prod(0),
        "transposes the maps: a row is what one token looks at": lambda: product(half.mT),
        "returns the transpose: a row is to be one final token": lambda: product(half).mT,
        "returns the class token's row only; all rows are asked for": lambda: product(half)[:, 0],
        "averages over the batch": lambda: product(half).mean(0),
        "adds the identity with the weight 1 and divides by the sum over everything": lambda: product(
            (mean + eye) / (mean + eye).sum(dim=(-2, -1), keepdim=True)),
    }


register(
    "rollout.attention_rollout",
    rollout,
    check_rollout,
    difficulty=3,
    importance=3,
    minutes=12,
    hints=(
        "One block mixes the tokens by a matrix (B, N, N). What matrix are two blocks, one after the other?",
        "A block's matrix: the mean over the heads, plus the identity for the shortcut, divided by 2 so that rows sum to 1.",
        "Start with the first block's matrix, and multiply each later one from the left: total = block @ total.",
    ),
)
