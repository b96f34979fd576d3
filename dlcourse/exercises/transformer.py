"""Exercises on the transformer: codes for positions, and the encoder's block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.exercises._parity import compare_gradients, with_weights
from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register
from dlcourse.models import MultiHeadSelfAttention

Mistakes = dict[str, Callable[[], torch.Tensor]]


def sinusoidal_positions(length: int, dim: int) -> torch.Tensor:
    frequencies = 10_000 ** (-torch.arange(0, dim, 2) / dim)  # (dim/2,)
    angles = torch.arange(length)[:, None] * frequencies  # (length, 1) · (dim/2,) -> (length, dim/2)
    codes = torch.empty(length, dim)
    codes[:, 0::2], codes[:, 1::2] = angles.sin(), angles.cos()
    return codes


def check_sinusoidal_positions(answer: Answer) -> str:
    cases = [(3, 2), (2, 4), (1, 4), (5, 6), (16, 16), (50, 8), (7, 64)]
    got = [answer(length, dim) for length, dim in cases]
    # Wrong codes agree by chance for a small dim: a mistake is named only when it explains the first four answers.
    named = {text: wrong for text, wrong in WRONG_CODES.items() if all(map(partial(_explains, wrong), got[:4], cases))}
    for result, (length, dim) in zip(got, cases, strict=True):
        mistakes: Mistakes = {text: partial(wrong, length, dim) for text, wrong in named.items()}
        compare(result, sinusoidal_positions(length, dim), given=describe(length, dim), mistakes=mistakes)
    return f"{len(cases)} combinations of length and dim, float32 of shape (length, dim)"


def _explains(wrong: Callable[[int, int], torch.Tensor], got: object, case: tuple[int, int]) -> bool:
    want = wrong(*case)
    if not isinstance(got, torch.Tensor) or got.shape != want.shape or got.is_complex():
        return False
    return torch.allclose(got.detach().float(), want, rtol=0, atol=1e-3)  # float32 is no finer where angles are in the thousands


def _codes(
    length: int, dim: int, *, base: float = 10_000, start: int = 0, slope: float = 1.0, angle: float = 1.0,
    join: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = lambda a: (a.sin(), a.cos()),
) -> torch.Tensor:
    """The codes with one part changed: frequency i of dim/2 is base^(−slope · 2i / dim) · angle."""
    frequencies = angle * base ** (-slope * torch.arange(0, dim, 2) / dim)
    angles = torch.arange(start, start + length)[:, None] * frequencies
    return torch.stack(join(angles), dim=-1).flatten(1)


def _own_frequency(length: int, dim: int) -> torch.Tensor:
    angles = torch.arange(length)[:, None] * 10_000 ** (-torch.arange(dim) / dim)
    return torch.where(torch.arange(dim) % 2 == 0, angles.sin(), angles.cos())


def _halves(length: int, dim: int) -> torch.Tensor:
    codes = sinusoidal_positions(length, dim)
    return torch.cat((codes[:, 0::2], codes[:, 1::2]), dim=1)


WRONG_CODES: dict[str, Callable[[int, int], torch.Tensor]] = {
    "puts all sines before all cosines; they alternate, column by column": _halves,
    "swaps sine and cosine: sines stand in the even columns": partial(_codes, join=lambda a: (a.cos(), a.sin())),
    "takes i / dim for the exponent, where i counts the pairs: it is 2i / dim, the number of the even column":
        partial(_codes, slope=0.5),
    "takes 4i / dim for the exponent; the number of the even column, 2i, is over dim": partial(_codes, slope=2),
    "gives each cosine a frequency of its own: columns 2i and 2i + 1 share one": _own_frequency,
    "takes the angles for degrees; they are radians": partial(_codes, angle=torch.pi / 180),
    "multiplies the angles by 2π; they are radians as they are": partial(_codes, angle=2 * torch.pi),
    "runs from slow to fast: the first pair of columns turns fastest":
        lambda length, dim: _codes(length, dim).unflatten(1, (-1, 2)).flip(1).flatten(1),
    "lets the frequencies grow above 1: the exponent is negative": partial(_codes, slope=-1),
    "starts at position 1; the first position is 0": partial(_codes, start=1),
    "does not divide the exponent by dim": lambda length, dim: _codes(length, dim, slope=dim),
    "uses the same frequency in every column": partial(_codes, slope=0),
    "takes the base 1000; it is 10000": partial(_codes, base=1_000),
    "takes the base 100000; it is 10000": partial(_codes, base=100_000),
    "uses sines only": partial(_codes, join=lambda a: (a.sin(), a.sin())),
}

register(
    "transformer.sinusoidal_positions",
    sinusoidal_positions,
    check_sinusoidal_positions,
    difficulty=2,
    importance=3,
    minutes=12,
    hints=(
        "Make the angles first, a table (length, dim / 2): position times frequency.",
        "frequencies = 10_000 ** (-torch.arange(0, dim, 2) / dim), and torch.arange(length)[:, None] * frequencies.",
        "codes = torch.empty(length, dim), then codes[:, 0::2] gets the sines and codes[:, 1::2] the cosines.",
    ),
)


class EncoderBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int, hidden_dim: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.attn = MultiHeadSelfAttention(dim, num_heads)
        self.fc1, self.fc2 = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), mask=mask)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def check_encoder_block(answer: Answer) -> str:
    cases = [
        (4, 2, 8, 1e-6, torch.randn(1, 2, 4), None),
        (6, 3, 10, 1e-6, torch.randn(2, 5, 6), None),
        (8, 2, 12, 1e-6, torch.randn(3, 4, 8), torch.ones(4, 4, dtype=torch.bool).tril()),
        (8, 4, 8, 1e-2, 0.1 * torch.randn(8, 8, 8), None),  # so square that a wrong axis fits, and eps matters
        (4, 1, 4, 1e-6, 1e-3 * torch.randn(2, 3, 4), None),  # so small that 1e-5 for eps is seen
    ]
    for dim, heads, hidden, eps, x, mask in cases:
        options = {} if eps == 1e-6 else {"eps": eps}
        torchs = _torchs(dim, heads, hidden, eps)
        ours = with_weights(answer(dim, heads, hidden, **options), _weights_of(torchs))
        want = torchs(x, src_mask=None if mask is None else ~mask)
        given = f"{describe(dim, heads, hidden, **options)}, {describe(x)}" + ", a causal mask" * (mask is not None)
        for training in (True, False):
            ours.value.train(training)
            got = ours(x) if mask is None else ours(x, mask)
            compare(got, want, given=given, mistakes=_block_mistakes(x, torchs, mask, eps))
    torchs = _torchs(6, 2, 5, 1e-6).double()
    ours = with_weights(answer(6, 2, 5), _weights_of(torchs))
    ours.value.double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    got, want = ours(x), torchs(x)
    compare(got, want, given="float64 input with gradients asked for")
    compare_gradients(got, want, {"the input": x}, "float64 input")
    for name, parameter in ours.named_parameters():
        theirs = torch.autograd.grad(want.square().sum(), dict(torchs.named_parameters())[_NAMES[name]], retain_graph=True)[0]
        own = torch.autograd.grad(got.square().sum(), parameter, retain_graph=True, allow_unused=True)[0]
        if own is None:
            raise Mistake(f"It cuts the gradient of `{name}`.")
        compare(own, theirs, given="float64 input", what=f"the gradient of `{name}`")
    return "equal to nn.TransformerEncoderLayer(norm_first=True) for five shapes, a mask, two eps, and every gradient"


_NAMES = {f"{ours}.{part}": f"{theirs}{sign}{part}" for ours, theirs, sign in (
    ("norm1", "norm1", "."), ("attn.qkv", "self_attn.in_proj", "_"), ("attn.proj", "self_attn.out_proj", "."),
    ("norm2", "norm2", "."), ("fc1", "linear1", "."), ("fc2", "linear2", "."),
) for part in ("weight", "bias")}  # fmt: skip


def _torchs(dim: int, heads: int, hidden: int, eps: float) -> nn.TransformerEncoderLayer:
    """PyTorch's own layer, in training mode (it takes other kernels in eval mode) and without dropout."""
    layer = nn.TransformerEncoderLayer(
        dim, heads, hidden, dropout=0.0, activation="gelu", layer_norm_eps=eps, batch_first=True, norm_first=True
    )
    for parameter in layer.parameters():  # no norm begins as the identity, no bias as zero
        nn.init.normal_(parameter, mean=0.2, std=0.6)
    return layer


def _weights_of(layer: nn.TransformerEncoderLayer) -> dict[str, torch.Tensor]:
    theirs = dict(layer.named_parameters())
    return {ours: theirs[name].detach() for ours, name in _NAMES.items()}


def _block_mistakes(
    x: torch.Tensor, layer: nn.TransformerEncoderLayer, mask: torch.Tensor | None, eps: float
) -> Mistakes:
    no_look = None if mask is None else ~mask
    norm1, norm2 = layer.norm1, layer.norm2

    def attn(t: torch.Tensor, no_look: torch.Tensor | None = no_look) -> torch.Tensor:
        return layer.self_attn(t, t, t, attn_mask=no_look, need_weights=False)[0]

    def mlp(t: torch.Tensor, act: Callable[[torch.Tensor], torch.Tensor] = F.gelu) -> torch.Tensor:
        return layer.linear2(act(layer.linear1(t)))

    def block(
        first: Callable = norm1, second: Callable = norm2, attn: Callable = attn, mlp: Callable = mlp
    ) -> torch.Tensor:
        y = x + attn(first(x))
        return y + mlp(second(y))

    def with_eps(norm: nn.LayerNorm, eps: float) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda t: F.layer_norm(t, norm.normalized_shape, norm.weight, norm.bias, eps)

    def over(norm: nn.LayerNorm, *axes: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda t: (
            (t - t.mean(axes, keepdim=True)) / (t.var(axes, correction=0, keepdim=True) + eps).sqrt() * norm.weight + norm.bias
        )

    def same(t: torch.Tensor) -> torch.Tensor:
        return t

    after = block()
    attended = x + attn(norm1(x))
    return {
        "is Post-LN, LN(x + f(x)); Pre-LN is x + f(LN(x))":
            lambda: (lambda y: norm2(y + mlp(y)))(norm1(x + attn(x))),
        "normalises what the branch returns, x + LN(f(x)); Pre-LN is x + f(LN(x))":
            lambda: (lambda y: y + norm2(mlp(y)))(x + norm1(attn(x))),
        "adds the normalised x; the shortcut carries x as it came":
            lambda: (lambda y: norm2(y) + mlp(norm2(y)))(norm1(x) + attn(norm1(x))),
        "adds the normalised x in the second half; the shortcut carries it as it came":
            lambda: norm2(attended) + mlp(norm2(attended)),
        "uses norm1 twice: the MLP has its own norm, norm2": lambda: block(second=norm1),
        "swaps norm1 and norm2": lambda: block(norm2, norm1),
        "normalises no input of the attention": lambda: block(first=same),
        "normalises no input of the MLP": lambda: block(second=same),
        "has no norm at all": lambda: block(same, same),
        "normalises its result once more": lambda: norm2(after),
        "forgets the second shortcut": lambda: mlp(norm2(attended)),
        "forgets the first shortcut": lambda: (lambda y: y + mlp(norm2(y)))(attn(norm1(x))),
        "feeds the MLP with x in place of what the attention has made of it": lambda: attended + mlp(norm2(x)),
        "forgets the attention": lambda: x + mlp(norm2(x)),
        "forgets the MLP": lambda: attended,
        "puts the MLP before the attention": lambda: (lambda y: y + attn(norm1(y)))(x + mlp(norm2(x))),
        "uses ReLU; GELU is asked for": lambda: block(mlp=partial(mlp, act=F.relu)),
        "has no GELU between its two linear layers": lambda: block(mlp=partial(mlp, act=same)),
        "uses GELU's tanh approximation; the exact one is asked for":
            lambda: block(mlp=partial(mlp, act=partial(F.gelu, approximate="tanh"))),
        "uses SiLU; GELU is asked for": lambda: block(mlp=partial(mlp, act=F.silu)),
        "applies GELU after the second linear layer too": lambda: block(mlp=lambda t: F.gelu(mlp(t))),
        "ignores the mask": lambda: block(attn=partial(attn, no_look=None)),
        "takes the mask the wrong way round": lambda: block(attn=partial(attn, no_look=mask)),
        "leaves LayerNorm's eps at torch's 1e-5; 1e-6 is the default asked for":
            lambda: block(with_eps(norm1, 1e-5), with_eps(norm2, 1e-5)),
        "does not use the eps it is given": lambda: block(with_eps(norm1, 1e-6), with_eps(norm2, 1e-6)),
        "normalises over the positions; each token is normalised by itself": lambda: block(over(norm1, 1), over(norm2, 1)),
        "normalises over positions and features together; each token is normalised by itself":
            lambda: block(over(norm1, 1, 2), over(norm2, 1, 2)),
    }


register(
    "transformer.encoder_block",
    EncoderBlock,
    check_encoder_block,
    difficulty=3,
    importance=5,
    minutes=20,
    hints=(
        "Write one line for each half: x = x + something(norm(x)). What is the something in each?",
        "First half: x = x + self.attn(self.norm1(x), mask=mask). The MLP takes self.norm2(x).",
        "The MLP is self.fc2(F.gelu(self.fc1(…))). Build the norms with nn.LayerNorm(dim, eps=eps); torch's own default "
        "for eps is another.",
    ),
)
