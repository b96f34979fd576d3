"""Wrong answers to the exercises on attention."""

import math

import torch
from planting import mistake
from torch import nn


def mask_scores(scores, mask):
    return scores if mask is None else scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


def mask_weights(weights, mask):
    return weights if mask is None else weights.masked_fill(~mask, 0)


def weigh(
    q,
    k,
    mask,
    divide=lambda q, k: math.sqrt(q.shape[-1]),
    before=mask_scores,
    softmax=lambda scores: scores.softmax(-1),
    after=mask_weights,
):
    scores = q @ k.transpose(-2, -1) / divide(q, k)
    return after(softmax(before(scores, mask)), mask)


def build(mix=lambda weights, v, k: weights @ v, **parts):
    """One scaled dot product with one part of it replaced."""

    def scaled_dot_product(q, k, v, mask=None):
        weights = weigh(q, k, mask, **parts)
        return mix(weights, v, k), weights

    return scaled_dot_product


def plant(says, name, **parts):
    wrong = build(**parts)
    wrong.__name__ = name
    mistake("attention.scaled_dot_product", says=says)(wrong)


plant("divides by d instead of √d", "by_d", divide=lambda q, k: q.shape[-1])
plant("does not scale the scores", "unscaled", divide=lambda q, k: 1)
plant("multiplies by √d", "times_root", divide=lambda q, k: q.shape[-1] ** -0.5)
plant("root of the number of keys", "by_keys", divide=lambda q, k: math.sqrt(k.shape[-2]))
plant("root of the number of queries", "by_queries", divide=lambda q, k: math.sqrt(q.shape[-2]))
plant("softmax over the queries", "over_queries", softmax=lambda s: s.softmax(-2))
plant("softmax over the first axis", "over_batch", softmax=lambda s: s.softmax(0 if s.ndim > 2 else -1))
plant("softmax over the second axis", "over_heads", softmax=lambda s: s.softmax(1 if s.ndim > 3 else -1))
plant("forgets the softmax", "no_softmax", softmax=lambda s: s, before=lambda s, mask: s)
plant("ignores the mask", "no_mask", before=lambda s, mask: s, after=lambda w, mask: w)
plant(
    "mask the wrong way round", "inverted",
    before=lambda s, mask: mask_scores(s, None if mask is None else ~mask),
    after=lambda w, mask: mask_weights(w, None if mask is None else ~mask),
)
plant("after the softmax, so that the rest", "late_mask", before=lambda s, mask: s)
plant(
    "gives NaN to a query that may look nowhere", "minus_infinity",
    before=lambda s, mask: s if mask is None else s.masked_fill(~mask, -math.inf), after=lambda w, mask: w,
)
plant("spreads a query that may look nowhere", "uniform_row", after=lambda w, mask: w)
plant(
    "with about 0, which is not low enough", "tiny_fill",
    before=lambda s, mask: s if mask is None else s.masked_fill(~mask, -1e-9), after=lambda w, mask: w,
)
plant(
    "with -10, which is not low enough", "fill_of_ten",
    before=lambda s, mask: s if mask is None else s.masked_fill(~mask, -10), after=lambda w, mask: w,
)
plant(
    "adds the mask to the scores as the numbers", "adds_the_mask",
    before=lambda s, mask: s if mask is None else s + mask, after=lambda w, mask: w,
)
plant("overflows", "plain_exp", softmax=lambda s: s.exp() / s.exp().sum(-1, keepdim=True))
plant(r"mixes the keys", "keys_for_values", mix=lambda w, v, k: w @ k)
plant("plain mean of the values", "mean_of_values", mix=lambda w, v, k: v.mean(-2, keepdim=True).expand(*w.shape[:-1], -1))


@mistake("attention.scaled_dot_product", says=r"transposes the wrong axes of the keys\.")
def wrong_axes(q, k, v, mask=None):
    keys = k.transpose(-3, -2).transpose(-2, -1) if k.ndim > 2 else k.T
    scores = mask_scores(q @ keys / math.sqrt(q.shape[-1]), mask)
    weights = mask_weights(scores.softmax(-1), mask)
    return weights @ v, weights


@mistake("attention.scaled_dot_product", says="wrong axes of the keys; the last two")
def first_two_axes(q, k, v, mask=None):
    return build()(q, k.transpose(0, 1).transpose(-2, -1) if k.ndim == 3 else k, v, mask)


@mistake("attention.scaled_dot_product", says=r"raises IndexError for tensor \[\[2.0, 4.0, 0.0, 0.0\]")
def three_axes_only(q, k, v, mask=None):
    return build()(q, k.transpose(1, 2).transpose(-1, -2), v, mask)


@mistake("attention.scaled_dot_product", says="two tensors are asked for")
def output_only(q, k, v, mask=None):
    return build()(q, k, v, mask)[0]


@mistake("attention.scaled_dot_product", says="returns the weights first")
def weights_first(q, k, v, mask=None):
    return build()(q, k, v, mask)[::-1]


@mistake("attention.scaled_dot_product", says="cuts the gradient of q")
def detached(q, k, v, mask=None):
    return build()(q.detach(), k, v, mask)


@mistake("attention.scaled_dot_product", says="dtype torch.float32 where torch.float64")
def always_float32(q, k, v, mask=None):
    return tuple(t.float() for t in build()(q, k, v, mask))


@mistake("attention.scaled_dot_product", says="It changes its input")
def scales_in_place(q, k, v, mask=None):
    with torch.no_grad():
        q /= math.sqrt(q.shape[-1])
    return build(divide=lambda q, k: 1)(q, k, v, mask)


def masks(
    causal=lambda n: torch.ones(n, n, dtype=torch.bool).tril(),
    keys=lambda lengths, n: torch.arange(n) < lengths[:, None],
    place=lambda keys: keys[:, None, None],
    join=torch.logical_and,
    end=lambda mask: mask,
):
    """The causal and padding mask with one part replaced."""
    return lambda lengths, n: end(join(causal(n), place(keys(lengths, n))))


def plant_mask(says, name, **parts):
    wrong = masks(**parts)
    wrong.__name__ = name
    mistake("attention.causal_and_padding", says=says)(wrong)


plant_mask("says the opposite", "inverted_mask", end=torch.logical_not)
plant_mask("uses the upper triangle", "upper", causal=lambda n: torch.ones(n, n, dtype=torch.bool).triu())
plant_mask("leaves out the diagonal", "strict", causal=lambda n: torch.ones(n, n, dtype=torch.bool).tril(-1))
plant_mask("one step ahead", "ahead", causal=lambda n: torch.ones(n, n, dtype=torch.bool).tril(1))
plant_mask("joins the two with or", "or_for_and", join=torch.logical_or)
plant_mask("masks the rows, queries that are padding", "padded_queries", place=lambda keys: keys[:, None, :, None])
plant_mask(
    "takes lengths as the last real position", "off_by_one", keys=lambda lengths, n: torch.arange(n) <= lengths[:, None],
)
plant_mask("one too short", "too_short", keys=lambda lengths, n: torch.arange(n) + 1 < lengths[:, None])
plant_mask("ignores the lengths", "only_causal", keys=lambda lengths, n: torch.ones(len(lengths), n, dtype=torch.bool))
plant_mask("ignores the order", "only_padding", causal=lambda n: torch.ones(n, n, dtype=torch.bool))
plant_mask(
    "padding to stand at the start", "padding_first",
    keys=lambda lengths, n: torch.arange(n) >= n - lengths[:, None],
)
plant_mask("masks the real positions", "real_for_padding", keys=lambda lengths, n: torch.arange(n) >= lengths[:, None])
plant_mask("dtype torch.float32 where torch.bool", "float_mask", end=lambda mask: mask.float())
plant_mask(r"shape \(1, 5, 5\) where \(1, 1, 5, 5\)", "no_head_axis", place=lambda keys: keys[:, None])


@mistake("attention.causal_and_padding", says="It changes its input")
def counts_down(lengths, n):
    mask = masks()(lengths, n)
    lengths -= 1
    return mask


def multi_head(
    parts=lambda qkv, heads: qkv.chunk(3, -1),
    split=lambda t, heads: t.unflatten(-1, (heads, -1)).transpose(1, 2),
    merge=lambda t: t.transpose(1, 2).flatten(2),
    order=(0, 1, 2),
    dropout=lambda w, p, training: nn.functional.dropout(w, p, training),
    project=lambda self, out: self.proj(out),
    bias=True,
    see=lambda mask: mask,
    **weighing,
):
    """Multi-head attention with one part of it replaced."""

    class MultiHead(nn.Module):
        def __init__(self, dim, num_heads, *, attn_drop=0.0):
            super().__init__()
            self.num_heads, self.attn_drop = num_heads, attn_drop
            self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=bias), nn.Linear(dim, dim)

        def forward(self, x, mask=None):
            found = [split(t, self.num_heads) for t in parts(self.qkv(x), self.num_heads)]
            q, k, v = (found[i] for i in order)
            weights = weigh(q, k, see(mask), **weighing)
            return project(self, merge(dropout(weights, self.attn_drop, self.training) @ v))

    return MultiHead


def plant_heads(says, name, **parts):
    wrong = multi_head(**parts)
    wrong.__name__ = name
    mistake("attention.multi_head", says=says)(wrong)


def view(t, heads):
    return t.reshape(len(t), heads, t.shape[1], -1)


plant_heads(r"mixes positions and heads: unflatten, then transpose\.", "view_split", split=view)
plant_heads(r"\(and merges them so\)", "view_both_ways", split=view, merge=lambda t: t.reshape(len(t), t.shape[2], -1))
plant_heads("merges the heads with view alone", "view_merge", merge=lambda t: t.reshape(len(t), t.shape[2], -1))
plant_heads("merges the heads in the wrong order", "interleaved_merge", merge=lambda t: t.permute(0, 2, 3, 1).flatten(2))
plant_heads(
    "every num_heads-th number", "strided_heads", split=lambda t, heads: t.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)
)
plant_heads(
    r"reads qkv as \(heads, 3, d\)", "heads_first",
    parts=lambda qkv, heads: [t.flatten(2) for t in qkv.unflatten(-1, (heads, 3, -1)).unbind(-2)],
)
plant_heads(
    r"reads qkv as \(heads, d, 3\)", "three_last",
    parts=lambda qkv, heads: [t.flatten(2) for t in qkv.unflatten(-1, (heads, -1, 3)).unbind(-1)],
)
plant_heads("scales by √dim", "root_of_dim", divide=lambda q, k: math.sqrt(q.shape[1] * q.shape[-1]))
plant_heads("does not scale the scores", "unscaled_heads", divide=lambda q, k: 1)
plant_heads("divides by d instead of √d", "heads_by_d", divide=lambda q, k: q.shape[-1])
plant_heads("forgets the output projection", "no_projection", project=lambda self, out: out + 0 * self.proj(out))
plant_heads("has no parameter `qkv.bias`", "no_bias", bias=False)
plant_heads("ignores the mask", "maskless", see=lambda mask: None)
plant_heads("mask the wrong way round", "torchs_mask", see=lambda mask: None if mask is None else ~mask)
plant_heads("softmax over the queries", "heads_over_queries", softmax=lambda s: s.softmax(-2))
plant_heads("softmax over the heads", "heads_over_heads", softmax=lambda s: s.softmax(1))
plant_heads("for keys, queries, values", "keys_first", order=(1, 0, 2))
plant_heads("for queries, values, keys", "values_second", order=(0, 2, 1))
plant_heads("drops weights in eval mode", "always_drops", dropout=lambda w, p, training: nn.functional.dropout(w, p))
plant_heads("does not drop weights in training", "never_drops", dropout=lambda w, p, training: w)
plant_heads(
    "drops numbers of the output", "drops_the_output", dropout=lambda w, p, training: w,
    project=lambda self, out: nn.functional.dropout(self.proj(out), self.attn_drop, self.training),
)
plant_heads(
    "from head to head within each position", "no_transpose",
    split=lambda t, heads: t.unflatten(-1, (heads, -1)), merge=lambda t: t.flatten(2),
)
plant_heads(
    "attends over the batch", "batch_second",
    split=lambda t, heads: t.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3),
    merge=lambda t: t.permute(2, 0, 1, 3).flatten(2),
)


@mistake("attention.multi_head", says="cuts the gradient of `qkv.weight`")
class WithoutGradient(multi_head()):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        layer, self.qkv_of = self.qkv, None
        self.qkv_of = lambda x: nn.functional.linear(x, layer.weight.detach(), layer.bias)

    def forward(self, x, mask=None):
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in self.qkv_of(x).chunk(3, -1))
        weights = nn.functional.dropout(weigh(q, k, mask), self.attn_drop, self.training)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


@mistake("attention.multi_head", says="an nn.Module is asked for")
def a_function(dim, num_heads, *, attn_drop=0.0):
    return lambda x, mask=None: x


@mistake("attention.multi_head", says="raises RuntimeError .* view size is not compatible")
class ViewOnly(multi_head()):
    def forward(self, x, mask=None):
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return self.proj((weigh(q, k, mask) @ v).transpose(1, 2).view(x.shape))
