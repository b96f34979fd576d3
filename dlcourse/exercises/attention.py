"""Exercises on attention: one scaled dot product, a mask for it, and several heads."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.exercises._attention_mistakes import Mistakes, heads_mistakes, mask_mistakes, weight_mistakes
from dlcourse.exercises._parity import compare_gradients, with_weights
from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register


def scaled_dot_product(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (…, N, d) @ (…, d, M) -> (…, N, M)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0)
    return weights @ v, weights


def check_scaled_dot_product(answer: Answer) -> str:
    # Two queries, three keys, d = 4: the scores are (2, 4, 0) and (0, 4, 2), halved (1, 2, 0) and (0, 2, 1).
    q, k, v = torch.tensor([[2.0, 4, 0, 0], [0, 4, 2, 0]]), torch.eye(4)[:3], torch.tensor([[1.0], [2.0], [4.0]])
    seen = torch.tensor([[True, False, True], [True, True, False]])
    cases: list[tuple[torch.Tensor, ...]] = [
        (q, k, v),
        (q, k, v, seen),
        (q, k, v, torch.tensor([[True, True, False], [False, False, False]])),
        (torch.randn(3, 5), torch.randn(4, 5), torch.randn(4, 2)),
        (torch.randn(3, 3, 3), torch.randn(3, 3, 3), torch.randn(3, 3, 3)),  # so square that a wrong axis fits
        (*torch.randn(3, 4, 4, 4, 4).unbind(), torch.ones(4, 4, dtype=torch.bool).tril()),
        (torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 6), torch.rand(2, 1, 1, 7) < 0.7),
        (torch.tensor([[40.0]]), torch.tensor([[2.0], [1.0]]), torch.eye(2)),  # exp(80) is 5e34, and float32 ends at 3e38
        (torch.tensor([[40.0]]), torch.tensor([[3.0], [2.0]]), torch.eye(2)),
        (torch.tensor([[400.0]]), torch.tensor([[-30.0], [-29.0], [5.0]]), torch.eye(3), seen[1:]),
    ]
    for tensors in cases:
        _compare_attention(answer, tensors)
    _check_gradients_of_attention(answer, (q, k, v), seen)
    return "output and weights for any leading axes, masks, a row masked completely, large scores, and every gradient"


def _compare_attention(answer: Answer, tensors: tuple[torch.Tensor, ...]) -> None:
    result, given = answer(*tensors), describe(*tensors)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Mistake(f"It returns {describe(result)}; two tensors are asked for: the output, then the weights.")
    (q, k, v, *_), (out, weights) = tensors, scaled_dot_product(*tensors)
    if all(isinstance(r, torch.Tensor) for r in result) and result[0].shape == weights.shape != out.shape:
        raise Mistake("It returns the weights first: the output comes first, then the weights.")
    compare(result[1], weights, given=given, what="the matrix of weights", mistakes=weight_mistakes(*tensors))
    mistakes: Mistakes = {
        "mixes the keys; it is the values that are mixed": lambda: weights @ k,
        "mixes the queries; it is the values that are mixed": lambda: weights @ q,
        "uses the transposed weights to mix the values": lambda: weights.transpose(-2, -1) @ v,
        "takes the plain mean of the values": lambda: v.mean(-2, keepdim=True).expand_as(out),
    }
    compare(result[0], out, given=given, what="the output", mistakes=mistakes)


def _check_gradients_of_attention(answer: Answer, tensors: tuple[torch.Tensor, ...], mask: torch.Tensor) -> None:
    q, k, v = (tensor.double().requires_grad_() for tensor in tensors)
    for text, seen in (("", None), (" and a mask", mask), (" and a row masked completely", mask.logical_and(mask[:, 1:2]))):
        ours, theirs = answer(q, k, v, seen), scaled_dot_product(q, k, v, seen)
        for what, got, want in zip(("output", "matrix of weights"), ours, theirs, strict=True):
            given = f"float64 tensors with gradients asked for{text}"
            compare(got, want, given=given, what=f"the {what}")
            compare_gradients(got, want, {"q": q, "k": k} | ({"v": v} if what == "output" else {}), f"{given}, of the {what}")


register(
    "attention.scaled_dot_product",
    scaled_dot_product,
    check_scaled_dot_product,
    difficulty=3,
    importance=5,
    minutes=15,
    hints=(
        "Every query meets every key in one matrix product. Which two axes of the keys must trade places for that?",
        "k.transpose(-2, -1) works for any leading axes. Divide by the root of q.shape[-1], then softmax(dim=-1).",
        "Before the softmax, masked_fill(~mask, torch.finfo(scores.dtype).min); after it, masked_fill(~mask, 0), which "
        "changes only rows that are masked completely. The output is weights @ v.",
    ),
)


def causal_and_padding(lengths: torch.Tensor, n: int) -> torch.Tensor:
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    real = torch.arange(n) < lengths[:, None]  # (B, n)
    return causal & real[:, None, None]  # (n, n) & (B, 1, 1, n) -> (B, 1, n, n)


def check_causal_and_padding(answer: Answer) -> str:
    for lengths, n in (([3], 5), ([1, 3], 3), ([4, 0, 3, 1], 4), ([5, 2], 7), ([3, 3, 2], 3), ([1], 1)):
        tensor = torch.tensor(lengths)
        compare(
            answer(tensor, n), causal_and_padding(tensor, n), given=describe(tensor, n), what="the mask",
            mistakes=mask_mistakes(tensor, n),
        )
    return "who may look at whom for six batches, lengths 0, 1 and n among them; bool of shape (B, 1, n, n)"


register(
    "attention.causal_and_padding",
    causal_and_padding,
    check_causal_and_padding,
    difficulty=2,
    importance=4,
    minutes=10,
    hints=(
        "Two questions for each pair (query i, key j): is j at or before i, and is j a real position? Both must be true.",
        "torch.ones(n, n, dtype=torch.bool).tril() answers the first; torch.arange(n) < lengths[:, None] the second.",
        "The second has shape (B, n) and is about keys, the last axis: index it with [:, None, None] and join with &.",
    ),
)


class MultiHead(nn.Module):
    def __init__(self, dim: int, num_heads: int, *, attn_drop: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.attn_drop = num_heads, attn_drop
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3·dim) -> (B, N, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # three of (B, heads, N, d)
        p = self.attn_drop if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        return self.proj(out.transpose(1, 2).flatten(2))  # (B, heads, N, d) -> (B, N, heads, d) -> (B, N, dim)


def check_multi_head(answer: Answer) -> str:
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    padded = (torch.arange(5) < torch.tensor([5, 3, 1])[:, None])[:, None, None]  # (3, 1, 1, 5)
    each_head = torch.rand(2, 3, 4, 4) < 0.5
    each_head.diagonal(dim1=-2, dim2=-1).fill_(True)  # no row is masked completely
    cases: list[tuple[int, int, torch.Tensor, torch.Tensor | None]] = [
        (6, 2, torch.randn(2, 4, 6), None),
        (3, 1, torch.randn(1, 2, 3), None),
        (6, 3, torch.randn(1, 3, 6), None),
        (16, 4, torch.randn(4, 4, 16), None),  # so square that a wrong axis fits
        (12, 4, torch.randn(5, 2, 12).transpose(0, 1), None),  # not contiguous
        (6, 6, torch.randn(2, 1, 6), None),
        (8, 2, torch.randn(2, 4, 8), causal),
        (8, 4, torch.randn(3, 5, 8), padded),
        (6, 3, torch.randn(2, 4, 6), each_head),
    ]
    for dim, heads, x, mask in cases:
        ours, torchs = _build(answer, dim, heads)
        given = f"dim={dim}, num_heads={heads}, {describe(x)}" + ("" if mask is None else f", mask={describe(mask)}")
        want = _torchs(torchs, x, mask, heads)
        mistakes = heads_mistakes(x, _weights_of(torchs), heads, mask)
        for training in (True, False):
            ours.value.train(training)
            got = ours(x) if mask is None else ours(x, mask)
            compare(got, want, given=given, mistakes=mistakes)
    _check_gradients_of_heads(answer, causal)
    _check_dropout(answer)
    return "equal to nn.MultiheadAttention for eight shapes and three masks, with every gradient, and dropout's two modes"


def _build(answer: Answer, dim: int, heads: int, **options: float) -> tuple[Answer, nn.MultiheadAttention]:
    """The learner's module with the weights of torch's, and torch's."""
    torchs = nn.MultiheadAttention(dim, heads, batch_first=True)
    for parameter in torchs.parameters():  # its biases begin as zeros
        nn.init.normal_(parameter, std=0.7)
    return with_weights(answer(dim, heads, **options), _weights_of(torchs)), torchs


def _weights_of(torchs: nn.MultiheadAttention) -> dict[str, torch.Tensor]:
    names = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias", "out_proj.weight": "proj.weight"}
    return {names.get(name, "proj.bias"): tensor.detach() for name, tensor in torchs.named_parameters()}


def _torchs(layer: nn.MultiheadAttention, x: torch.Tensor, mask: torch.Tensor | None, heads: int) -> torch.Tensor:
    if mask is not None:
        shape = (len(x), heads, x.shape[1], x.shape[1])
        mask = (~mask).expand(shape).flatten(0, 1)  # torch's says True where a query may NOT look
    return layer(x, x, x, attn_mask=mask, need_weights=False)[0]


def _check_gradients_of_heads(answer: Answer, mask: torch.Tensor) -> None:
    ours, torchs = _build(answer, 6, 2)
    ours.value.double(), torchs.double()
    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    got, want = ours(x, mask), _torchs(torchs, x, mask, 2)
    compare(got, want, given="float64 input with gradients asked for")
    compare_gradients(got, want, {"the input": x}, "float64 input")
    theirs = dict(zip(_weights_of(torchs), torchs.parameters(), strict=True))
    slopes = torch.linspace(-1, 2, want.numel(), dtype=want.dtype).reshape(want.shape)
    for name, parameter in ours.named_parameters():
        wanted = torch.autograd.grad(want, theirs[name], slopes, retain_graph=True)[0]
        own = torch.autograd.grad(got, parameter, slopes, retain_graph=True, allow_unused=True)[0]
        if own is None:
            raise Mistake(f"It cuts the gradient of `{name}`.")
        compare(own, wanted, given="float64 input", what=f"the gradient of `{name}`")


def _check_dropout(answer: Answer) -> None:
    x = torch.randn(2, 5, 8)
    ours, torchs = _build(answer, 8, 2, attn_drop=1.0)
    ours.value.eval()
    wrong = {"drops weights in eval mode": lambda: torchs.out_proj.bias.detach().expand(2, 5, 8)}
    compare(ours(x), _torchs(torchs, x, None, 2), given="attn_drop=1 in eval mode", mistakes=wrong)
    ours.value.train()
    mistakes = {
        "does not drop weights in training": lambda: _torchs(torchs, x, None, 2),
        "drops numbers of the output; attn_drop is for the weights": lambda: torch.zeros(2, 5, 8),
    }
    want = torchs.out_proj.bias.detach().expand(2, 5, 8)
    given = "attn_drop=1 in training, where no weight is left and proj's bias remains"
    compare(ours(x), want, given=given, mistakes=mistakes)


register(
    "attention.multi_head",
    MultiHead,
    check_multi_head,
    difficulty=4,
    importance=5,
    minutes=25,
    hints=(
        "Follow the shapes: (B, N, 3·dim), three of (B, N, dim), each split into heads of (B, heads, N, d). What must "
        "change places so that the last two axes are positions and d?",
        "self.qkv(x).chunk(3, dim=-1), then t.unflatten(-1, (heads, -1)).transpose(1, 2) for each. d is dim // heads.",
        "The way back is out.transpose(1, 2).flatten(2), and then proj. "
        "F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=…) does the middle; dropout_p must be 0 in "
        "eval mode, or use nn.Dropout on the weights.",
    ),
)
