"""Attention and the transformer's encoder block, written to be read, and held equal to torch's and timm's.

A mask is boolean, True where a query may look, and broadcasts to (B, heads, N, M), as in
torch.nn.functional.scaled_dot_product_attention. (nn.MultiheadAttention's masks say the opposite.) A query that may
look nowhere gets zeros instead of NaN. `qkv` has timm's layout (3, heads, head_dim), so that timm's weights load.

Sources: Vaswani et al. 2017, Attention is all you need (arXiv:1706.03762); Xiong et al. 2020, On layer normalization
in the transformer architecture (2002.04745); Dao et al. 2022, FlashAttention (2205.14135); Abnar and Zuidema 2020,
Quantifying attention flow in transformers (2005.00928).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.models.layers import DropPath


def attention_weights(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """softmax(q kᵀ / √d) over the keys: (…, N, d), (…, M, d) -> (…, N, M); each row sums to 1, or to 0 if all masked."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (…, N, d) @ (…, d, M) -> (…, N, M)
    if mask is None:
        return scores.softmax(dim=-1)
    # The lowest number rather than −inf: a row masked completely would otherwise be NaN.
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).masked_fill(~mask, 0)


def causal_mask(n: int, *, device: torch.device | None = None) -> torch.Tensor:
    """Each position may look at itself and those before it: bool (n, n), True on and below the diagonal."""
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()


def padding_mask(lengths: torch.Tensor, n: int) -> torch.Tensor:
    """Nobody may look at padding: the true lengths (B,) of sequences padded to n -> bool (B, 1, 1, n)."""
    return (torch.arange(n, device=lengths.device) < lengths[:, None])[:, None, None]  # (B, n) -> (B, 1, 1, n)


class SelfAttention(nn.Module):
    """One head: every position gathers the values of the others by how well its query meets their keys.

    (B, N, dim) -> (B, N, head_dim)
    """

    def __init__(self, dim: int, head_dim: int | None = None) -> None:
        super().__init__()
        head_dim = head_dim or dim
        self.query = nn.Linear(dim, head_dim)
        self.key = nn.Linear(dim, head_dim)
        self.value = nn.Linear(dim, head_dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        weights = attention_weights(self.query(x), self.key(x), mask)  # (B, N, N)
        return weights @ self.value(x)  # (B, N, N) @ (B, N, d) -> (B, N, d)


class MultiHeadSelfAttention(nn.Module):
    """`num_heads` heads side by side in one matrix product, then a linear layer: (B, N, dim) -> (B, N, dim).

    With a `context` (B, M, dim) the queries come from x and the keys and values from it: cross-attention. `mask` is as
    in this module's docstring. `fused` chooses torch's fused kernel, which never holds the (N, M) weights; the explicit
    path computes the same and passes its weights (B, heads, N, M) through `attn_drop`, where `attention_maps` sees them.

    Raises ValueError for heads that do not divide dim, and for a mask of another dtype or shape.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim={dim} cannot be split evenly into num_heads={num_heads}")
        self.num_heads, self.fused = num_heads, fused
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self, x: torch.Tensor, context: torch.Tensor | None = None, *, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        q, k, v = self.project(x, context)  # (B, heads, N, d), (B, heads, M, d) twice
        if mask is not None:
            check_mask(mask, (*q.shape[:3], k.shape[2]))
        if self.fused:
            p = self.attn_drop.p if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        else:
            out = self.attn_drop(attention_weights(q, k, mask)) @ v  # (B, heads, N, M) @ (B, heads, M, d)
        out = out.transpose(1, 2).flatten(2)  # (B, heads, N, d) -> (B, N, heads, d) -> (B, N, dim)
        return self.proj_drop(self.proj(out))

    def project(
        self, x: torch.Tensor, context: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries of x, keys and values of the context (of x without one), each (B, heads, length, d)."""
        if context is None:
            parts = self.qkv(x).chunk(3, dim=-1)  # (B, N, 3·dim) -> three of (B, N, dim)
        else:
            weights = self.qkv.weight.chunk(3)
            biases = (None,) * 3 if self.qkv.bias is None else self.qkv.bias.chunk(3)
            sources = (x, context, context)
            parts = tuple(F.linear(s, w, b) for s, w, b in zip(sources, weights, biases, strict=True))
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        return q, k, v


def check_mask(mask: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `mask` is boolean and broadcasts to `shape`, (B, heads, N, M)."""
    if mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype}; it must be torch.bool, True where a query may look")
    fits = mask.ndim <= 4 and all(m in (1, s) for m, s in zip(mask.shape[::-1], shape[::-1], strict=False))
    if not fits:
        raise ValueError(
            f"mask of shape {tuple(mask.shape)} does not broadcast to (B, heads, N, M) = {shape}; one for each sample is "
            "(B, 1, N, M), and padding (B, 1, 1, M)"
        )


class Mlp(nn.Module):
    """The feed-forward part of a block, each token by itself: dim -> hidden_dim -> GELU -> dim."""

    def __init__(self, dim: int, hidden_dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop2 = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(x)))))


class TransformerEncoderBlock(nn.Module):
    """Attention, then an MLP, each with a shortcut: (B, N, dim) -> (B, N, dim).

    Pre-LN (`norm_first`, the default) is x + f(LN(x)); Post-LN, that of 2017, is LN(x + f(x)). `dropout` acts in the MLP
    and after the attention, `drop_path` drops whole branches by sample.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        norm_first: bool = True,
        dropout: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = MultiHeadSelfAttention(dim, num_heads, attn_drop=attn_drop, proj_drop=dropout)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dropout=dropout)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor | None = None) -> torch.Tensor:
        if self.norm_first:
            x = x + self.drop_path1(self.attn(self.norm1(x), mask=mask))
            return x + self.drop_path2(self.mlp(self.norm2(x)))
        x = self.norm1(x + self.drop_path1(self.attn(x, mask=mask)))
        return self.norm2(x + self.drop_path2(self.mlp(x)))


def sinusoidal_positions(length: int, dim: int) -> torch.Tensor:
    """A code for each position, (length, dim): sines in the even columns, cosines in the odd, from fast to slow.

    The wavelengths run from 2π to 10000 · 2π. Raises ValueError for an odd dim.
    """
    if dim % 2:
        raise ValueError(f"dim={dim} must be even: each frequency takes a sine and a cosine")
    frequencies = 10_000 ** (-torch.arange(0, dim, 2) / dim)  # (dim/2,)
    angles = torch.arange(length)[:, None] * frequencies  # (length, 1) · (dim/2,) -> (length, dim/2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)  # (length, dim/2, 2) -> (length, dim)


@torch.no_grad()
def attention_maps(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The attention weights of every `MultiHeadSelfAttention` in the model, in the order of their use, for one input.

    Returns (depth, B, heads, N, M). The model is in eval mode and on the explicit path meanwhile, and as before after.
    Raises ValueError for a model without such a layer.
    """
    layers = [module for module in model.modules() if isinstance(module, MultiHeadSelfAttention)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no MultiHeadSelfAttention to look into")
    maps: list[torch.Tensor] = []
    modes, paths = [(module, module.training) for module in model.modules()], [layer.fused for layer in layers]
    hooks = [layer.attn_drop.register_forward_hook(lambda *call: maps.append(call[2])) for layer in layers]
    try:
        model.eval()
        for layer in layers:
            layer.fused = False
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
        for layer, fused in zip(layers, paths, strict=True):
            layer.fused = fused
        for module, training in modes:
            module.training = training
    return torch.stack(maps)


def attention_rollout(maps: torch.Tensor) -> torch.Tensor:
    """How much each final token draws on each input token, through all blocks: (depth, B, heads, N, N) -> (B, N, N).

    Heads are averaged, the shortcut adds the identity, and the blocks are multiplied; each row sums to 1.
    """
    mixing = (maps.mean(dim=2) + torch.eye(maps.shape[-1], device=maps.device)) / 2  # (depth, B, N, N)
    rollout = mixing[0]
    for block in mixing[1:]:
        rollout = block @ rollout
    return rollout
