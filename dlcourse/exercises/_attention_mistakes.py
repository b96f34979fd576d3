"""The wrong formulas that the checks of `attention` know by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

Mistakes = dict[str, Callable[[], torch.Tensor]]


def weight_mistakes(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> Mistakes:
    root = math.sqrt(q.shape[-1])

    def weigh(q: torch.Tensor = q, k: torch.Tensor = k, *, divide: float = root, dim: int = -1) -> torch.Tensor:
        scores = q @ k.transpose(-2, -1) / divide
        return _softmax(scores, mask, dim)

    mistakes: Mistakes = {
        "divides by d instead of √d": lambda: weigh(divide=root**2),
        "does not scale the scores: divide them by √d": lambda: weigh(divide=1),
        "multiplies by √d; it divides": lambda: weigh(divide=1 / root),
        "scales by the root of the number of keys; d is the length of one key": lambda: weigh(divide=math.sqrt(k.shape[-2])),
        "scales by the root of the number of queries; d is the length of one query":
            lambda: weigh(divide=math.sqrt(q.shape[-2])),
        "takes the softmax over the queries: each query's weights over the keys, the last axis, sum to 1":
            lambda: weigh(dim=-2),
        "takes the softmax over the first axis (the batch)": lambda: weigh(dim=0),
        "takes the softmax over the second axis (the heads)": lambda: weigh(dim=1),
        "compares the queries with the values; they meet the keys": lambda: weigh(k=v),
        "swaps queries and keys": lambda: weigh(k, q),
        "transposes the wrong axes of the keys": lambda: weigh(k=k.transpose(-3, -2)),
        "transposes the wrong axes of the keys; the last two change places":
            lambda: weigh(k=k.transpose(-3, -2).transpose(-2, -1)),
        "does not transpose the keys": lambda: weigh(k=k.transpose(-2, -1)),
        "forgets the softmax": lambda: q @ k.transpose(-2, -1) / root,
        "overflows: exp of a large score is infinite. Subtract the row's largest score first, or call softmax":
            lambda: (lambda e: e / e.sum(-1, keepdim=True))((q @ k.transpose(-2, -1) / root).exp()),
    }
    if mask is None:
        return mistakes
    scores = q @ k.transpose(-2, -1) / root
    low = {  # what masked scores are filled with
        f"fills masked scores with {text}, which is not low enough: exp of it must be 0 beside any other score":
            lambda fill=fill: scores.masked_fill(~mask, fill).softmax(-1)
        for text, fill in (("about 0", 0), ("-10", -10), ("-100", -100), ("-1000", -1000))
    }
    return {
        "ignores the mask": lambda: scores.softmax(-1),
        "takes the mask the wrong way round: True is where a query may look": lambda: _softmax(scores, ~mask),
        "masks the weights after the softmax, so that the rest no longer sums to 1": lambda: scores.softmax(-1) * mask,
        "gives NaN to a query that may look nowhere: its weights are to be 0":
            lambda: scores.masked_fill(~mask, -math.inf).softmax(-1),
        "spreads a query that may look nowhere over the masked keys: its weights are to be 0":
            lambda: scores.masked_fill(~mask, -1e9).softmax(-1),
        "adds the mask to the scores as the numbers 0 and 1": lambda: (scores + mask).softmax(-1),
        "masks the queries instead of the keys: rows and columns of the mask are swapped":
            lambda: _softmax(scores, mask.transpose(-2, -1)),
    } | low | mistakes


def _softmax(scores: torch.Tensor, mask: torch.Tensor | None, dim: int = -1) -> torch.Tensor:
    if mask is None:
        return scores.softmax(dim)
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim).masked_fill(~mask, 0)


def mask_mistakes(lengths: torch.Tensor, n: int) -> Mistakes:
    at, ones = torch.arange(n), torch.ones(n, n, dtype=torch.bool)
    causal, keys = ones.tril(), (at < lengths[:, None])[:, None, None]  # (n, n), (B, 1, 1, n)
    queries, right = keys.transpose(-2, -1), causal & keys
    longer, shorter = (at <= lengths[:, None])[:, None, None], (at < lengths[:, None] - 1)[:, None, None]
    return {
        "says the opposite: True is where a query may look": lambda: ~right,
        "uses the upper triangle: row i may look at columns 0 … i": lambda: ones.triu() & keys,
        "leaves out the diagonal: a position may look at itself": lambda: ones.tril(-1) & keys,
        "lets a position see one step ahead": lambda: ones.tril(1) & keys,
        "joins the two with or: a query may look where both allow it": lambda: causal | keys,
        "masks the rows, queries that are padding; it is the columns, keys that are padding, that nobody may look at":
            lambda: causal & queries,
        "takes lengths as the last real position: a sequence of length 2 has positions 0 and 1": lambda: causal & longer,
        "cuts each sequence one too short": lambda: causal & shorter,
        "ignores the lengths": lambda: causal.expand_as(right),
        "ignores the order: a position may not look ahead": lambda: keys.expand_as(right),
        "takes the padding to stand at the start of a sequence; it stands at its end":
            lambda: causal & (at >= n - lengths[:, None])[:, None, None],
        "masks the real positions instead of the padding": lambda: causal & ~keys,
    }


def heads_mistakes(x: torch.Tensor, state: dict[str, torch.Tensor], heads: int, mask: torch.Tensor | None) -> Mistakes:
    """Wrong multi-head attention of x (B, N, dim), with the weights qkv.weight, qkv.bias, proj.weight, proj.bias."""
    length, dim = x.shape[1:]
    d = dim // heads

    def split(t: torch.Tensor) -> torch.Tensor:
        return t.unflatten(-1, (heads, d)).transpose(1, 2)  # (B, N, dim) -> (B, heads, N, d)

    def merge(t: torch.Tensor) -> torch.Tensor:
        return t.transpose(1, 2).flatten(2)  # (B, heads, N, d) -> (B, N, dim)

    def view(t: torch.Tensor) -> torch.Tensor:
        return t.reshape(len(x), heads, length, d)

    def halves(qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return qkv.chunk(3, dim=-1)

    def attend(
        *, parts: Callable = halves, split: Callable = split, merge: Callable = merge, order: str = "qkv",
        divide: float = d**0.5, mask: torch.Tensor | None = mask, dim: int = -1, softmax: bool = True,
        bias: bool = True, project: bool = True,
    ) -> torch.Tensor:
        qkv = F.linear(x, state["qkv.weight"], state["qkv.bias"] if bias else None)
        named = dict(zip("qkv", map(split, parts(qkv)), strict=True))
        q, k, v = (named[letter] for letter in order)
        scores = q @ k.transpose(-2, -1) / divide
        out = merge((_softmax(scores, mask, dim) if softmax else scores) @ v)
        return F.linear(out, state["proj.weight"], state["proj.bias"] if bias else None) if project else out

    mixes = "splits the heads with view alone, which mixes positions and heads: unflatten, then transpose"
    return {
        mixes: lambda: attend(split=view),
        mixes + " (and merges them so)": lambda: attend(split=view, merge=lambda t: t.reshape(x.shape)),
        "merges the heads with view alone: transpose the positions to the front first":
            lambda: attend(merge=lambda t: t.reshape(x.shape)),
        "merges the heads in the wrong order: head by head, not number by number":
            lambda: attend(merge=lambda t: t.permute(0, 2, 3, 1).flatten(2)),
        "gives a head every num_heads-th number of a query; it gets d neighbouring ones":
            lambda: attend(split=lambda t: t.unflatten(-1, (d, heads)).permute(0, 3, 1, 2)),
        "reads qkv as (heads, 3, d); the layout is (3, heads, d): all queries first":
            lambda: attend(parts=lambda t: [p.flatten(2) for p in t.unflatten(-1, (heads, 3, d)).unbind(-2)]),
        "reads qkv as (heads, d, 3); the layout is (3, heads, d): all queries first":
            lambda: attend(parts=lambda t: [p.flatten(2) for p in t.unflatten(-1, (heads, d, 3)).unbind(-1)]),
        "scales by √dim; each head's queries and keys have dim / num_heads numbers": lambda: attend(divide=dim**0.5),
        "does not scale the scores: divide them by √d": lambda: attend(divide=1),
        "divides by d instead of √d": lambda: attend(divide=d),
        "forgets the output projection": lambda: attend(project=False),
        "ignores the biases": lambda: attend(bias=False),
        "ignores the mask": lambda: attend(mask=None),
        "takes the mask the wrong way round: True is where a query may look":
            lambda: attend(mask=None if mask is None else ~mask),
        "takes the softmax over the queries: each query's weights over the keys sum to 1": lambda: attend(dim=-2),
        "takes the softmax over the heads": lambda: attend(dim=1),
        "forgets the softmax": lambda: attend(softmax=False),
        "takes the parts of qkv for keys, queries, values": lambda: attend(order="kqv"),
        "takes the parts of qkv for queries, values, keys": lambda: attend(order="qvk"),
        "attends over the batch: positions are the second axis":
            lambda: attend(split=lambda t: t.unflatten(-1, (heads, d)).permute(1, 2, 0, 3),
                           merge=lambda t: t.permute(2, 0, 1, 3).flatten(2)),
        "attends from head to head within each position: transpose to (B, heads, N, d) first":
            lambda: attend(split=lambda t: t.unflatten(-1, (heads, d)), merge=lambda t: t.flatten(2)),
    }
