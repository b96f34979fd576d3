"""Attention by hand equals torch's: one head, several, masks, cross-attention, both kinds of blocks, every gradient."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dlcourse.models.attention import (
    Mlp,
    MultiHeadSelfAttention,
    SelfAttention,
    TransformerEncoderBlock,
    attention_maps,
    attention_rollout,
    attention_weights,
    causal_mask,
    padding_mask,
    sinusoidal_positions,
)


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)


def gradients(out, tensors):
    slopes = torch.linspace(-1, 2, out.numel()).reshape(out.shape)
    return torch.autograd.grad((out * slopes).sum(), tensors)


def torchs_from(ours):
    """nn.MultiheadAttention with the weights of ours; both stack query, key and value in that order."""
    torchs = nn.MultiheadAttention(ours.proj.in_features, ours.num_heads, batch_first=True)
    torchs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.proj.weight, "out_proj.bias": ours.proj.bias,
        }
    )  # fmt: skip
    return torchs


def lively(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


MASKS = {
    "none": lambda: None,
    "causal": lambda: causal_mask(5),
    "padding": lambda: padding_mask(torch.tensor([5, 3, 1]), 5),
    "both": lambda: causal_mask(5) & padding_mask(torch.tensor([5, 2, 4]), 5),
    "a head": lambda: torch.rand(1, 4, 5, 5) + torch.eye(5) > 0.5,
    "a sample": lambda: torch.rand(3, 1, 5, 5) + torch.eye(5) > 0.5,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("fused", [True, False])
def test_many_heads_equal_torchs_with_every_mask(mask, fused):
    ours = lively(MultiHeadSelfAttention(16, 4, fused=fused))
    torchs, mask = torchs_from(ours), MASKS[mask]()
    x = torch.randn(3, 5, 16, requires_grad=True)
    # nn.MultiheadAttention takes (B · heads, N, M), True where a query may NOT look.
    theirs_mask = None if mask is None else ~mask.expand(3, 4, 5, 5).reshape(12, 5, 5)
    a, b = ours(x, mask=mask), torchs(x, x, x, attn_mask=theirs_mask, need_weights=False)[0]
    assert_close(a, b)
    ours_gradients = gradients(a, [x, ours.qkv.weight, ours.qkv.bias, ours.proj.weight, ours.proj.bias])
    theirs = [x, torchs.in_proj_weight, torchs.in_proj_bias, torchs.out_proj.weight, torchs.out_proj.bias]
    assert_close(ours_gradients, gradients(b, theirs))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_cross_attention_equals_torchs(fused, qkv_bias):
    ours = lively(MultiHeadSelfAttention(16, 2, qkv_bias=qkv_bias, fused=fused))
    x, context = torch.randn(3, 5, 16, requires_grad=True), torch.randn(3, 7, 16, requires_grad=True)
    mask = padding_mask(torch.tensor([7, 2, 5]), 7)
    twin = MultiHeadSelfAttention(16, 2)
    twin.load_state_dict({"qkv.bias": torch.zeros(48), **ours.state_dict()})
    a, b = ours(x, context, mask=mask), torchs_from(twin)(x, context, context, key_padding_mask=~mask[:, 0, 0])[0]
    assert_close(a, b)
    assert_close(gradients(a, [x, context]), gradients(b, [x, context]))
    assert_close(ours(x, x), ours(x))


@pytest.mark.parametrize("mask", MASKS)
def test_weights_and_values_equal_scaled_dot_product_attention(mask):
    q, k, v = (torch.randn(3, 4, 5, 6, requires_grad=True) for _ in range(3))
    mask = MASKS[mask]()
    weights = attention_weights(q, k, mask)
    assert_close(weights.sum(-1), torch.ones(3, 4, 5))
    assert mask is None or not weights[~mask.expand_as(weights)].any()
    a, b = weights @ v, F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert_close(a, b)
    assert_close(gradients(a, [q, k, v]), gradients(b, [q, k, v]))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_query_that_may_look_nowhere_gets_zeros_and_no_nan(fused, dtype):
    attention = lively(MultiHeadSelfAttention(16, 4, fused=fused)).to(dtype)
    mask = causal_mask(5)
    mask[2] = False
    x = torch.randn(3, 5, 16, dtype=dtype, requires_grad=True)
    with torch.autograd.set_detect_anomaly(not fused):  # torch's own kernel makes a NaN on the way, and mends it
        out = attention(x, mask=mask)
        out.square().sum().backward()
    assert_close(out[:, 2], attention.proj.bias.expand(3, 16))
    for tensor in (out, x.grad, *[p.grad for p in attention.parameters()]):
        assert tensor.isfinite().all()
    assert not attention_weights(x, x, mask[None])[:, 2].any()


@pytest.mark.parametrize("fused", [True, False])
def test_fused_and_explicit_are_equal_in_single_precision_too(fused):
    attention = lively(MultiHeadSelfAttention(48, 3)).float()
    x, mask = torch.randn(2, 65, 48, dtype=torch.float32), causal_mask(65)
    out = attention(x, mask=mask)
    attention.fused = not attention.fused
    assert_close(attention(x, mask=mask), out)


def test_dropout_on_the_weights_acts_in_training_only_on_both_paths():
    for fused in (True, False):
        attention, x = MultiHeadSelfAttention(16, 4, attn_drop=0.5, fused=fused), torch.randn(2, 8, 16)
        assert not torch.equal(attention(x), attention(x))
        attention.eval()
        assert torch.equal(attention(x), attention(x))


def test_one_head_is_many_heads_with_one():
    one, many = SelfAttention(8), MultiHeadSelfAttention(8, 1)
    many.load_state_dict(
        {
            "qkv.weight": torch.cat((one.query.weight, one.key.weight, one.value.weight)),
            "qkv.bias": torch.cat((one.query.bias, one.key.bias, one.value.bias)),
            "proj.weight": torch.eye(8), "proj.bias": torch.zeros(8),
        }
    )  # fmt: skip
    x = torch.randn(2, 5, 8)
    assert_close(one(x), many(x))
    assert_close(one(x, causal_mask(5)), many(x, mask=causal_mask(5)))
    assert SelfAttention(8, 3)(x).shape == (2, 5, 3)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_blocks_equal_torchs_encoder_layer(norm_first, masked):
    ours = lively(TransformerEncoderBlock(16, 4, norm_first=norm_first, mlp_ratio=3, eps=1e-5))
    torchs = nn.TransformerEncoderLayer(16, 4, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first)
    names = {
        "norm1": "norm1", "norm2": "norm2", "mlp.fc1": "linear1", "mlp.fc2": "linear2", "attn.proj": "self_attn.out_proj",
    }  # fmt: skip
    weights = {
        f"{theirs}.{part}": ours.state_dict()[f"{name}.{part}"]
        for name, theirs in names.items() for part in ("weight", "bias")
    }  # fmt: skip
    weights |= {"self_attn.in_proj_weight": ours.attn.qkv.weight, "self_attn.in_proj_bias": ours.attn.qkv.bias}
    torchs.load_state_dict(weights)
    x = torch.randn(3, 5, 16, requires_grad=True)
    a = ours(x, mask=causal_mask(5) if masked else None)
    b = torchs(x, src_mask=~causal_mask(5) if masked else None)
    assert_close(a, b)
    pairs = [(x, x), (ours.attn.qkv.weight, torchs.self_attn.in_proj_weight), (ours.norm1.weight, torchs.norm1.weight),
             (ours.mlp.fc1.bias, torchs.linear1.bias), (ours.norm2.bias, torchs.norm2.bias)]  # fmt: skip
    mine, theirs = zip(*pairs, strict=True)
    assert_close(gradients(a, mine), gradients(b, theirs))


def test_dropouts_of_a_block_are_where_they_are_asked_for():
    block = TransformerEncoderBlock(16, 4, dropout=0.1, attn_drop=0.2, drop_path=0.3)
    assert (block.attn.proj_drop.p, block.mlp.drop1.p, block.mlp.drop2.p) == (0.1, 0.1, 0.1)
    assert (block.attn.attn_drop.p, block.drop_path1.p, block.drop_path2.p) == (0.2, 0.3, 0.3)
    assert Mlp(16, 32, dropout=0.5).drop1.p == 0.5


@pytest.mark.parametrize(("dim", "heads"), [(16, 3), (16, 0), (6, 4)])
def test_heads_must_divide_the_width(dim, heads):
    with pytest.raises(ValueError, match=f"dim={dim} cannot be split evenly into num_heads={heads}"):
        MultiHeadSelfAttention(dim, heads)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(5, 5), "mask is torch.float32; it must be torch.bool, True where a query may look"),
        (torch.ones(5, 5, dtype=torch.int64), "mask is torch.int64"),
        (torch.ones(3, 5, dtype=torch.bool), r"mask of shape \(3, 5\) does not broadcast .* = \(3, 4, 5, 5\)"),
        (torch.ones(3, 5, 5, dtype=torch.bool), r"\(3, 5, 5\) does not broadcast .* one for each sample is \(B, 1, N, M\)"),
        (torch.ones(2, 1, 5, 5, dtype=torch.bool), r"mask of shape \(2, 1, 5, 5\) does not broadcast"),
        (torch.ones(1, 3, 1, 5, 5, dtype=torch.bool), "does not broadcast"),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_a_mask_of_another_dtype_or_shape_is_refused(mask, message, fused):
    with pytest.raises(ValueError, match=message):
        MultiHeadSelfAttention(16, 4, fused=fused)(torch.randn(3, 5, 16), mask=mask)


def test_masks_say_where_a_query_may_look():
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert padding_mask(torch.tensor([2, 0]), 3).tolist() == [[[[True, True, False]]], [[[False, False, False]]]]


def test_without_positions_a_permutation_of_the_tokens_permutes_the_output():
    attention, x, order = lively(MultiHeadSelfAttention(16, 4)), torch.randn(2, 6, 16), torch.randperm(6)
    assert_close(attention(x[:, order]), attention(x)[:, order])


def test_sinusoidal_positions_are_the_papers():
    codes = sinusoidal_positions(50, 8)
    assert codes.shape == (50, 8)
    for position in (0, 1, 7, 49):
        for i in range(4):
            angle = position / 10_000 ** (2 * i / 8)
            assert codes[position, 2 * i].item() == pytest.approx(math.sin(angle))
            assert codes[position, 2 * i + 1].item() == pytest.approx(math.cos(angle))
    products = codes @ codes.T  # depend on the distance alone
    assert_close(products.diagonal(3), products[0, 3].expand(47))
    with pytest.raises(ValueError, match="dim=7 must be even"):
        sinusoidal_positions(4, 7)


class TwoBlocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(TransformerEncoderBlock(16, 4), TransformerEncoderBlock(16, 4))

    def forward(self, x):
        return self.blocks(x)


def test_maps_are_the_weights_that_were_used_and_leave_no_trace():
    model, x = TwoBlocks(), torch.randn(3, 5, 16)
    model.blocks[0].attn.fused = False
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    maps = attention_maps(model, x)
    assert maps.shape == (2, 3, 4, 5, 5)
    assert_close(maps.sum(-1), torch.ones(2, 3, 4, 5))
    first = model.blocks[0]
    q, k, v = first.attn.project(first.norm1(x), None)
    assert_close(maps[0], attention_weights(q, k))
    assert_close(first.attn.proj((maps[0] @ v).transpose(1, 2).flatten(2)), first.attn(first.norm1(x)))
    assert [module.training for module in model.modules()] == modes
    assert [block.attn.fused for block in model.blocks] == [False, True]
    assert not any(module._forward_hooks for module in model.modules())
    assert not maps.requires_grad


def test_maps_put_the_model_back_when_it_fails_and_need_attention():
    model = TwoBlocks()
    with pytest.raises(RuntimeError):
        attention_maps(model, torch.randn(3, 5, 7))
    assert model.training
    assert all(block.attn.fused for block in model.blocks)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="Linear has no MultiHeadSelfAttention"):
        attention_maps(nn.Linear(2, 2), torch.zeros(1, 2))


def test_rollout_multiplies_the_blocks_with_the_shortcut_in():
    maps = torch.rand(3, 2, 4, 5, 5).softmax(-1)
    rollout = attention_rollout(maps)
    assert_close(rollout.sum(-1), torch.ones(2, 5))
    mixing = [0.5 * m.mean(1) + 0.5 * torch.eye(5) for m in maps]
    assert_close(rollout, mixing[2] @ mixing[1] @ mixing[0])
    identity = torch.eye(5).expand(3, 2, 4, 5, 5)
    assert_close(attention_rollout(identity), torch.eye(5).expand(2, 5, 5))
