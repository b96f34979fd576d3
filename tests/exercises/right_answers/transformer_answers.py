"""Right answers to the exercises on the transformer, in other styles than the references'."""

import math

import numpy as np
import torch
from planting import right_answer
from torch import nn
from torch.nn import functional as F

from dlcourse.models import MultiHeadSelfAttention
from dlcourse.models import sinusoidal_positions as packages


@right_answer("transformer.sinusoidal_positions")
def of_the_package(length, dim):
    return packages(length, dim)


@right_answer("transformer.sinusoidal_positions")
def number_by_number(length, dim):
    codes = torch.zeros(length, dim)
    for position in range(length):
        for column in range(dim):
            angle = position / 10_000 ** (2 * (column // 2) / dim)
            codes[position, column] = math.cos(angle) if column % 2 else math.sin(angle)
    return codes


@right_answer("transformer.sinusoidal_positions")
def with_exp_and_log(length, dim):
    codes, position = torch.zeros(length, dim), torch.arange(length, dtype=torch.float).unsqueeze(1)
    terms = torch.exp(torch.arange(0, dim, 2).float() * (-math.log(10_000.0) / dim))
    codes[:, 0::2] = torch.sin(position * terms)
    codes[:, 1::2] = torch.cos(position * terms)
    return codes


@right_answer("transformer.sinusoidal_positions")
def complex_waves(length, dim):
    angles = np.outer(np.arange(length), 10_000.0 ** -(np.arange(dim // 2) / (dim // 2)))
    wave = np.exp(1j * angles)
    return torch.from_numpy(np.stack((wave.imag, wave.real), -1).reshape(length, dim)).float()


@right_answer("transformer.encoder_block")
class StepByStep(nn.Module):
    def __init__(self, dim, num_heads, hidden_dim, eps=1e-6):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attn = MultiHeadSelfAttention(dim, num_heads, fused=False)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, dim)

    def forward(self, x, mask=None):
        shortcut = x
        x = self.norm1(x)
        x = self.attn(x, mask=mask)
        x = shortcut + x
        shortcut = x
        x = self.fc2(self.act(self.fc1(self.norm2(x))))
        return shortcut + x


@right_answer("transformer.encoder_block")
class WithFunctions(StepByStep):
    def forward(self, x, mask=None):
        x = x.add(self.attn(F.layer_norm(x, x.shape[-1:], self.norm1.weight, self.norm1.bias, self.norm1.eps), mask=mask))
        hidden = self.fc1(F.layer_norm(x, x.shape[-1:], self.norm2.weight, self.norm2.bias, self.norm2.eps))
        return x.add(self.fc2(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2))


@right_answer("transformer.encoder_block")
class HeadsInLine(StepByStep):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        heads, self.attn = self.attn.num_heads, nn.ModuleDict({"qkv": self.attn.qkv, "proj": self.attn.proj})
        self.heads = heads

    def forward(self, x, mask=None):
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.attn["proj"](mixed.transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
