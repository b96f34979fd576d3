"""Right answers to the exercises on attention, in other styles than the references'."""

import math

import numpy as np
import torch
from planting import right_answer
from torch import nn
from torch.nn import functional as F


@right_answer("attention.scaled_dot_product")
def with_einsum(q, k, v, mask=None):
    scores = torch.einsum("...nd,...md->...nm", q, k) * k.size(-1) ** -0.5
    if mask is not None:
        scores = torch.where(mask, scores, -1e9)
    weights = F.softmax(scores, -1)
    if mask is not None:
        weights = weights * mask
    return torch.einsum("...nm,...me->...ne", weights, v), weights


@right_answer("attention.scaled_dot_product")
def with_nan_to_num(q, k, v, mask=None):
    scores = (q / math.sqrt(q.shape[-1])).matmul(k.mT)
    if mask is not None:
        scores = scores.masked_fill(mask.logical_not(), float("-inf"))
    weights = torch.nan_to_num(scores.softmax(-1), nan=0.0)
    return [weights @ v, weights]


@right_answer("attention.scaled_dot_product")
def with_exp_by_hand(q, k, v, mask=None):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    seen = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.expand(scores.shape)
    top = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).amax(-1, keepdim=True)
    e = torch.where(seen, scores - top, -1e4).exp() * seen
    weights = e / e.sum(-1, keepdim=True).clamp(min=1e-30)
    return weights @ v, weights


@right_answer("attention.scaled_dot_product")
def with_the_fused_kernel(q, k, v, mask=None):
    def fused(values):
        return F.scaled_dot_product_attention(q, k, values, attn_mask=mask)

    identity = torch.eye(k.shape[-2], dtype=k.dtype).expand(*k.shape[:-2], -1, -1)
    return fused(v), fused(identity)


@right_answer("attention.causal_and_padding")
def comparing_positions(lengths, n):
    query, key = torch.arange(n).view(1, 1, n, 1), torch.arange(n).view(1, 1, 1, n)
    return (key <= query) * (key < lengths.view(-1, 1, 1, 1))


@right_answer("attention.causal_and_padding")
def in_loops(lengths, n):
    mask = torch.zeros(len(lengths), 1, n, n).bool()
    for b, length in enumerate(lengths.tolist()):
        for i in range(n):
            mask[b, 0, i, : min(i + 1, length)] = True
    return mask


@right_answer("attention.causal_and_padding")
def through_numpy(lengths, n):
    mask = np.tri(n, dtype=bool) & (np.arange(n) < lengths.numpy()[:, None, None, None])
    return torch.from_numpy(mask)


@right_answer("attention.causal_and_padding")
def from_what_is_forbidden(lengths, n):
    ahead = torch.full((n, n), 1).triu(diagonal=1).bool()
    padding = torch.stack([torch.arange(n) >= length for length in lengths])
    return ~(ahead[None, None] | padding[:, None, None, :])


class Named(nn.Module):
    def __init__(self, dim, num_heads, *, attn_drop=0.0):
        super().__init__()
        self.heads, self.d = num_heads, dim // num_heads
        self.qkv, self.proj, self.drop = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), nn.Dropout(attn_drop)


@right_answer("attention.multi_head")
class HeadByHead(Named):
    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).split(self.heads * self.d, dim=-1)
        outputs = []
        for h in range(self.heads):
            part = slice(h * self.d, (h + 1) * self.d)
            seen = None if mask is None else mask.expand(len(x), self.heads, x.shape[1], x.shape[1])[:, h]
            scores = q[..., part] @ k[..., part].mT / math.sqrt(self.d)
            if seen is not None:
                scores = scores.masked_fill(~seen, float("-inf"))
            outputs.append(self.drop(scores.softmax(-1)) @ v[..., part])
        return self.proj(torch.cat(outputs, dim=-1))


@right_answer("attention.multi_head")
class WithEinsum(Named):
    def forward(self, x, mask=None):
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, self.d)
        scores = torch.einsum("bnhd,bmhd->bhnm", qkv[:, :, 0], qkv[:, :, 1]) / self.d**0.5
        if mask is not None:
            scores = scores + torch.zeros(mask.shape, dtype=scores.dtype).masked_fill(~mask, -1e9)
        out = torch.einsum("bhnm,bmhd->bnhd", self.drop(F.softmax(scores, dim=-1)), qkv[:, :, 2])
        return self.proj(out.flatten(2))


@right_answer("attention.multi_head")
class Contiguous(Named):
    def forward(self, x, mask=None):
        b, n, dim = x.shape
        q, k, v = (t.view(b, n, self.heads, self.d).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=2))
        out = F.scaled_dot_product_attention(q, k, v, mask, self.drop.p if self.training else 0)
        return self.proj(out.transpose(1, 2).contiguous().view(b, n, dim))


@right_answer("attention.multi_head")
class ThroughTorchs(Named):
    def forward(self, x, mask=None):
        time_first = x.transpose(0, 1)
        if mask is not None:
            mask = ~mask.expand(len(x), self.heads, x.shape[1], x.shape[1]).flatten(0, 1)
        out, _ = F.multi_head_attention_forward(
            time_first, time_first, time_first, x.shape[-1], self.heads, self.qkv.weight, self.qkv.bias, None, None,
            False, self.drop.p, self.proj.weight, self.proj.bias, self.training, attn_mask=mask, need_weights=False,
        )  # fmt: skip
        return out.transpose(0, 1)
