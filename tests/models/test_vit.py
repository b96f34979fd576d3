"""The parts of ViT that are its own: patches, positions of another size, the sizes it accepts, its first weights."""

import math

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dlcourse.models import PatchEmbedding, VisionTransformer, create_model, interpolate_position_embedding
from dlcourse.models.vit import patchify

TINY = {"img_size": (8, 12), "patch_size": 4, "dim": 16, "depth": 2, "num_heads": 2}


def test_patches_come_row_by_row_and_hold_their_pixels():
    images = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    assert_close(patches[1, 4], images[1, :, 2:4, 2:4].flatten())
    assert_close(patches, F.unfold(images, 2, stride=2).transpose(1, 2))  # torch's own cutter


def test_a_linear_layer_on_patches_is_the_strided_convolution():
    conv = PatchEmbedding((8, 12), 4, 16).double()
    linear = PatchEmbedding((8, 12), 4, 16, as_linear=True).double()
    linear.load_state_dict(conv.state_dict(), strict=True)
    x = torch.randn(3, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    a, b = conv(x), linear(x)
    assert a.shape == (3, 6, 16)
    assert_close(a, b)
    slopes = torch.randn_like(a)
    ours = torch.autograd.grad(a, [x, *conv.parameters()], slopes)
    assert_close(ours, torch.autograd.grad(b, [x, *linear.parameters()], slopes))


@pytest.mark.parametrize(("size", "patch"), [(225, 16), ((224, 230), 16), (32, 0), (0, 16)])
def test_a_patch_that_does_not_divide_the_image_is_refused(size, patch):
    with pytest.raises(ValueError, match=f"patch_size={patch} does not divide img_size="):
        create_model("vit_tiny_patch16", 5, img_size=size, patch_size=patch)
    with pytest.raises(ValueError, match="patch_size=4 does not divide images of 8×6 pixels"):
        patchify(torch.zeros(1, 3, 8, 6), 4)


def test_images_of_another_size_are_refused_with_the_way_out():
    model = VisionTransformer(3, **TINY)
    with pytest.raises(ValueError, match=r"images of 12×8 pixels, but the positions are those of 8×12: .*img_size="):
        model(torch.zeros(2, 3, 12, 8))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("grid", [(3, 7), (14, 14), (4, 4), (2, 2)])
def test_positions_are_interpolated_as_timm_does(antialias, prefix, grid):
    positions = torch.randn(1, prefix + 16, 6)
    ours = interpolate_position_embedding(positions, grid, num_prefix_tokens=prefix, antialias=antialias)
    theirs = resample_abs_pos_embed(positions, list(grid), num_prefix_tokens=prefix, antialias=antialias)
    assert_close(ours, theirs)
    assert_close(ours[:, :prefix], positions[:, :prefix])


def test_positions_of_an_oblong_grid_need_it_named():
    positions = torch.randn(1, 1 + 6, 4)
    ours = interpolate_position_embedding(positions, (4, 6), old_grid=(2, 3))
    assert_close(ours, resample_abs_pos_embed(positions, [4, 6], [2, 3]))
    assert interpolate_position_embedding(positions, (2, 3), old_grid=(2, 3)) is positions
    with pytest.raises(ValueError, match=r"7 positions with num_prefix_tokens=1 leave 6, .* a grid of 2×2"):
        interpolate_position_embedding(positions, (4, 6))
    with pytest.raises(ValueError, match="num_prefix_tokens=1 leave 17"):  # a DeiT has two prefix tokens
        interpolate_position_embedding(torch.randn(1, 18, 4), (4, 6))


def test_weights_go_to_another_size_and_answer_as_timms_do():
    small = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=64).eval()
    large = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=(96, 128)).eval()
    nn.init.normal_(small.head.weight)
    weights = small.state_dict()
    weights["pos_embed"] = interpolate_position_embedding(weights["pos_embed"], (6, 8))
    ours = create_model("vit_tiny_patch16", 5, img_size=(96, 128)).eval()
    ours.load_state_dict(weights)
    large.load_state_dict(weights)
    x = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        assert_close(ours(x), large(x))


@pytest.mark.parametrize("seed", range(3))
def test_the_first_loss_is_ln_of_the_classes_and_the_token_is_small(seed):
    torch.manual_seed(seed)
    model = VisionTransformer(10, **TINY)
    loss = F.cross_entropy(model(torch.randn(64, 3, 8, 12)), torch.arange(64) % 10)
    assert loss.item() == pytest.approx(math.log(10), abs=0.02)
    for tensor in (model.cls_token, model.pos_embed, model.blocks[1].mlp.fc2.weight):
        assert 0.01 < tensor.std() < 0.03
    assert model.head.weight.std() < 0.002


def test_it_learns():
    torch.manual_seed(0)
    model, x, labels = VisionTransformer(4, **TINY), torch.randn(32, 3, 8, 12), torch.arange(32) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 < losses[0]


def test_models_can_be_built_without_memory():
    with torch.device("meta"):
        model = create_model("vit_huge_patch14", drop_path=0.3)
    assert next(model.parameters()).is_meta
    assert model.blocks[-1].drop_path1.p == pytest.approx(0.3)
    assert model.blocks[0].drop_path1.p == 0
