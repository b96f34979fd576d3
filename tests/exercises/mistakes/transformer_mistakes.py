"""Wrong answers to the exercises on the transformer."""

import torch
from planting import mistake
from torch import nn
from torch.nn import functional as F

from dlcourse.models import MultiHeadSelfAttention


def codes(
    exponent=lambda dim: torch.arange(0, dim, 2) / dim,
    base=10_000.0,
    positions=torch.arange,
    turn=lambda angles: angles,
    waves=(torch.sin, torch.cos),
    join=lambda sines, cosines: torch.stack((sines, cosines), -1).flatten(1),
):
    """Sinusoidal codes with one part replaced."""

    def sinusoidal_positions(length, dim):
        angles = turn(positions(length)[:, None] / base ** exponent(dim))
        return join(waves[0](angles), waves[1](angles))

    return sinusoidal_positions


def plant_codes(says, name, **parts):
    wrong = codes(**parts)
    wrong.__name__ = name
    mistake("transformer.sinusoidal_positions", says=says)(wrong)


plant_codes("all sines before all cosines", "halves", join=lambda s, c: torch.cat((s, c), 1))
plant_codes("swaps sine and cosine", "cosine_first", waves=(torch.cos, torch.sin))
plant_codes("takes i / dim for the exponent", "half_exponent", exponent=lambda dim: torch.arange(dim // 2) / dim)
plant_codes("takes 4i / dim", "double_exponent", exponent=lambda dim: 2 * torch.arange(0, dim, 2) / dim)
plant_codes("degrees", "degrees", turn=torch.deg2rad)
plant_codes("multiplies the angles by 2π", "turns", turn=lambda angles: 2 * torch.pi * angles)
plant_codes("runs from slow to fast", "reversed_order", exponent=lambda dim: torch.arange(0, dim, 2).flip(0) / dim)
plant_codes("frequencies grow above 1", "growing", exponent=lambda dim: -torch.arange(0, dim, 2) / dim)
plant_codes("starts at position 1", "from_one", positions=lambda length: torch.arange(1, length + 1))
plant_codes("does not divide the exponent by dim", "undivided", exponent=lambda dim: torch.arange(0, dim, 2).float())
plant_codes("same frequency in every column", "one_frequency", exponent=lambda dim: torch.zeros(dim // 2))
plant_codes("base 1000; it", "base_1000", base=1_000.0)
plant_codes("base 100000", "base_100000", base=100_000.0)
plant_codes("sines only", "sines_only", waves=(torch.sin, torch.sin))
plant_codes(r"shape \(2, 3\) where \(3, 2\)", "transposed", join=lambda s, c: torch.stack((s, c), -1).flatten(1).T)
plant_codes("dtype torch.float64 where torch.float32", "double", positions=lambda length: torch.arange(length).double())


@mistake("transformer.sinusoidal_positions", says="each cosine a frequency of its own")
def own_frequency(length, dim):
    column = torch.arange(dim)
    angles = torch.arange(length)[:, None] / 10_000 ** (column / dim)
    return torch.where(column % 2 == 1, angles.cos(), angles.sin())


def block(
    forward=lambda self, x, mask: (lambda y: y + self.mlp(self.norm2(y)))(x + self.attention(self.norm1(x), mask)),
    act=F.gelu,
    eps=lambda eps: eps,
    norm=nn.LayerNorm,
    see=lambda mask: mask,
):
    """A Pre-LN block with one part replaced."""

    class Block(nn.Module):
        def __init__(self, dim, num_heads, hidden_dim, *, eps=1e-6):
            super().__init__()
            self.norm1, self.norm2 = norm(dim, eps=shift(eps)), norm(dim, eps=shift(eps))
            self.attn = MultiHeadSelfAttention(dim, num_heads)
            self.fc1, self.fc2 = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)

        def attention(self, x, mask):
            return self.attn(x, mask=see(mask))

        def mlp(self, x):
            return self.fc2(act(self.fc1(x)))

        def forward(self, x, mask=None):
            return go(self, x, mask)

    go, shift = forward, eps
    return Block


def plant_block(says, name, forward=None, **parts):
    wrong = block(**parts) if forward is None else block(forward, **parts)
    wrong.__name__ = name
    mistake("transformer.encoder_block", says=says)(wrong)


def post_ln(self, x, mask):
    x = self.norm1(x + self.attention(x, mask))
    return self.norm2(x + self.mlp(x))


def norm_after_the_branch(self, x, mask):
    x = x + self.norm1(self.attention(x, mask))
    return x + self.norm2(self.mlp(x))


def adds_the_normalised(self, x, mask):
    x = self.norm1(x)
    x = x + self.attention(x, mask)
    x = self.norm2(x)
    return x + self.mlp(x)


def adds_the_normalised_second(self, x, mask):
    x = self.norm2(x + self.attention(self.norm1(x), mask))
    return x + self.mlp(x)


def shared_norm(self, x, mask):
    x = x + self.attention(self.norm1(x), mask)
    return x + self.mlp(self.norm1(x)) + 0 * self.norm2(x)


def swapped_norms(self, x, mask):
    x = x + self.attention(self.norm2(x), mask)
    return x + self.mlp(self.norm1(x))


def no_norm_before_attention(self, x, mask):
    x = x + self.attention(x, mask)
    return x + self.mlp(self.norm2(x))


def no_norm_before_mlp(self, x, mask):
    x = x + self.attention(self.norm1(x), mask)
    return x + self.mlp(x)


def norm_at_the_end(self, x, mask):
    x = x + self.attention(self.norm1(x), mask)
    return self.norm2(x + self.mlp(self.norm2(x)))


def no_second_shortcut(self, x, mask):
    return self.mlp(self.norm2(x + self.attention(self.norm1(x), mask)))


def no_first_shortcut(self, x, mask):
    x = self.attention(self.norm1(x), mask)
    return x + self.mlp(self.norm2(x))


def parallel(self, x, mask):
    return x + self.attention(self.norm1(x), mask) + self.mlp(self.norm2(x))


def no_attention(self, x, mask):
    return x + self.mlp(self.norm2(x))


def mlp_first(self, x, mask):
    x = x + self.mlp(self.norm2(x))
    return x + self.attention(self.norm1(x), mask)


def in_place(self, x, mask):
    with torch.no_grad():
        x += self.attention(self.norm1(x), mask)
    return x + self.mlp(self.norm2(x))


def detached(self, x, mask):
    x = x + self.attention(self.norm1(x), mask).detach()
    return x + self.mlp(self.norm2(x))


plant_block("is Post-LN", "post_ln", post_ln)
plant_block(r"x \+ LN\(f\(x\)\)", "norm_after_the_branch", norm_after_the_branch)
plant_block(r"adds the normalised x; the shortcut", "adds_the_normalised", adds_the_normalised)
plant_block("adds the normalised x in the second half", "adds_the_normalised_second", adds_the_normalised_second)
plant_block("uses norm1 twice", "shared_norm", shared_norm)
plant_block("swaps norm1 and norm2", "swapped_norms", swapped_norms)
plant_block("normalises no input of the attention", "no_norm_before_attention", no_norm_before_attention)
plant_block("normalises no input of the MLP", "no_norm_before_mlp", no_norm_before_mlp)
plant_block("normalises its result once more", "norm_at_the_end", norm_at_the_end)
plant_block("forgets the second shortcut", "no_second_shortcut", no_second_shortcut)
plant_block("forgets the first shortcut", "no_first_shortcut", no_first_shortcut)
plant_block("feeds the MLP with x in place of", "parallel", parallel)
plant_block("forgets the attention", "no_attention", no_attention)
plant_block("MLP before the attention", "mlp_first", mlp_first)
plant_block("It changes its input", "in_place", in_place)
plant_block("the gradient of the input is", "detached", detached)
plant_block("uses ReLU", "relu", act=F.relu)
plant_block("has no GELU", "linear", act=lambda x: x)
plant_block("tanh approximation", "tanh_gelu", act=lambda x: F.gelu(x, approximate="tanh"))
plant_block("uses SiLU", "silu", act=F.silu)
plant_block("ignores the mask", "maskless_block", see=lambda mask: None)
plant_block("mask the wrong way round", "torchs_mask_block", see=lambda mask: None if mask is None else ~mask)
plant_block("eps at torch's 1e-5", "torchs_eps", eps=lambda eps: 1e-5 if eps == 1e-6 else eps)
plant_block("does not use the eps it is given", "fixed_eps", eps=lambda eps: 1e-6)


class OverPositions(nn.LayerNorm):
    def forward(self, x):
        mean, var = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
        return (x - mean) / (var + self.eps).sqrt() * self.weight + self.bias


plant_block("normalises over the positions", "norm_over_positions", norm=OverPositions)


@mistake("transformer.encoder_block", says="has no parameter `fc1.weight`")
class OtherNames(block()):
    def __init__(self, dim, num_heads, hidden_dim, *, eps=1e-6):
        super().__init__(dim, num_heads, hidden_dim, eps=eps)
        self.mlp = nn.Sequential(self.fc1, nn.GELU(), self.fc2)
        del self.fc1, self.fc2
