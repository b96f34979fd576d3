"""Right answers to the exercises on the vision transformer, in other styles than the references'."""

import torch
from planting import right_answer
from torch import nn
from torch.nn import functional as F

from dlcourse.models.vit import PatchEmbedding
from dlcourse.models.vit import VisionTransformer as Package


@right_answer("vit.patchify")
def patchify_by_loops(images, patch_size):
    p = patch_size
    tops, lefts = range(0, images.shape[2], p), range(0, images.shape[3], p)
    return torch.stack([images[:, :, y : y + p, x : x + p].flatten(1) for y in tops for x in lefts], dim=1)


@right_answer("vit.patchify")
def patchify_by_unfolding_tensors(images, patch_size):
    cut = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)  # (B, C, rows, columns, P, P)
    return cut.movedim(1, 3).flatten(3).flatten(1, 2)


@right_answer("vit.patchify")
def patchify_by_torchs_unfold(images, patch_size):
    if not images.is_floating_point():
        return F.unfold(images.double(), patch_size, stride=patch_size).mT.to(images.dtype)
    return F.unfold(images, patch_size, stride=patch_size).transpose(1, 2)


@right_answer("vit.patchify")
def patchify_by_einsum(images, patch_size):
    b, c, h, w = images.shape
    p = patch_size
    cut = torch.einsum("bcrysx->brscyx", images.reshape(b, c, h // p, p, w // p, p))
    return cut.reshape(b, -1, c * p * p)


@right_answer("vit.embed")
def embed_with_repeat(patches, cls_token, pos_embed):
    return torch.cat([cls_token.repeat(patches.shape[0], 1, 1), patches], 1).add(pos_embed)


@right_answer("vit.embed")
def embed_as_deit_does(patches, cls_token, pos_embed):
    patches = patches + pos_embed[:, 1:]
    token = cls_token + pos_embed[:, :1]
    return torch.cat((token.expand(patches.size(0), -1, -1), patches), dim=-2)


@right_answer("vit.embed")
def embed_image_by_image(patches, cls_token, pos_embed):
    return torch.stack([torch.vstack((cls_token[0], image)) + pos_embed[0] for image in patches])


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT * (d // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn, self.mlp = Attention(dim, heads), nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(dim, 4 * dim))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(4 * dim, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@right_answer("vit.vision_transformer")
class FromBareLayers(nn.Module):
    def __init__(self, img_size, patch_size, dim, depth, num_heads, num_classes):
        super().__init__()
        h, w = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, dim, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, h // patch_size * (w // patch_size) + 1, dim).normal_(0, 0.02))
        self.blocks = nn.ModuleList([Block(dim, num_heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim, 1e-6), nn.Linear(dim, num_classes)

    def forward(self, images):
        x = self.patch_embed.proj(images).flatten(2).mT
        x = torch.cat((self.cls_token.repeat(len(x), 1, 1), x), 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


@right_answer("vit.vision_transformer")
class Subclass(Package):
    def __init__(self, img_size, patch_size, dim, depth, num_heads, num_classes):
        super().__init__(num_classes, img_size=img_size, patch_size=patch_size, dim=dim, depth=depth, num_heads=num_heads)


@right_answer("vit.vision_transformer")
def built_by_a_function(img_size, patch_size, dim, depth, num_heads, num_classes):
    from timm.models.vision_transformer import VisionTransformer as Timms

    return Timms(
        img_size=img_size, patch_size=patch_size, embed_dim=dim, depth=depth, num_heads=num_heads, num_classes=num_classes
    )


@right_answer("vit.vision_transformer")
class WithPackageBlocks(FromBareLayers):
    def __init__(self, img_size, patch_size, dim, depth, num_heads, num_classes):
        super().__init__(img_size, patch_size, dim, 0, num_heads, num_classes)
        from dlcourse.models import TransformerEncoderBlock

        self.patch_embed = PatchEmbedding(img_size, patch_size, dim, as_linear=True)
        self.blocks = nn.ModuleList(TransformerEncoderBlock(dim, num_heads) for _ in range(depth))

    def forward(self, images):
        x = self.patch_embed(images)
        x = torch.cat((self.cls_token + self.pos_embed[:, :1] + 0 * x[:, :1], x + self.pos_embed[:, 1:]), 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).select(1, 0))
