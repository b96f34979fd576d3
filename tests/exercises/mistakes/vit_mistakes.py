"""Wrong answers to the exercises on the vision transformer."""

import torch
from planting import mistake
from torch import nn
from torch.nn import functional as F

from dlcourse.exercises._vit_network import VisionTransformer as RightNetwork
from dlcourse.exercises.vit import patchify as right_patches


def named(exercise, says, name, answer):
    answer.__name__ = name
    mistake(exercise, says=says)(answer)


def patches(name, says, cut):
    named("vit.patchify", says, name, lambda images, patch_size: cut(images, patch_size))


def grid(images, p):
    b, c, height, width = images.shape
    return images.reshape(b, c, height // p, p, width // p, p)  # (B, C, row, y, column, x)


def rows(images, p, *order):
    return grid(images, p).permute(order).reshape(len(images), -1, images.shape[1] * p * p)


patches("view_alone", "reshapes without a permute", lambda x, p: x.reshape(len(x), -1, x.shape[1] * p * p))
patches("channels_last", r"as \(P, P, C\)", lambda x, p: rows(x, p, 0, 2, 4, 3, 5, 1))
patches("column_major", "goes down the columns of patches", lambda x, p: rows(x, p, 0, 4, 2, 1, 3, 5))
patches("turned_inside", "swaps rows and columns inside each patch", lambda x, p: rows(x, p, 0, 2, 4, 1, 5, 3))
patches("turned_all_over", "swaps rows and columns, of the patches", lambda x, p: rows(x, p, 0, 4, 2, 1, 5, 3))
patches("channels_first", "mixes the channels of different patches", lambda x, p: rows(x, p, 0, 1, 2, 4, 3, 5))
patches("unfold_untransposed", r"\(B, C·P·P, N\)", lambda x, p: F.unfold(x.double(), p, stride=p).to(x.dtype))
patches("overlapping", "lets the patches overlap", lambda x, p: F.unfold(x, p).mT)
patches("grid_kept", r"keeps the grid", lambda x, p: grid(x, p).permute(0, 2, 4, 1, 3, 5).flatten(3))
patches("images_of_patches", r"as \(B, N, C, P, P\)", lambda x, p: grid(x, p).permute(0, 2, 4, 1, 3, 5).flatten(1, 2))
patches(
    "strided_pixels", r"takes every \(H/P\)-th pixel",
    lambda x, p: x.reshape(*x.shape[:2], p, x.shape[2] // p, p, x.shape[3] // p).permute(0, 3, 5, 1, 2, 4).flatten(3).flatten(1, 2),
)  # fmt: skip
patches(
    "square_images_only", r"takes images for square",
    lambda x, p: x.view(len(x), -1, x.shape[2] // p, p, x.shape[2] // p, p).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2),
)  # fmt: skip
patches("no_gradient", "cuts the gradient", lambda x, p: right_patches(x.detach(), p))
patches("to_numpy_floats", "float64 .*has dtype torch.float32", lambda x, p: right_patches(x.float(), p))
patches("no_batch", "uses the first image", lambda x, p: right_patches(x[:1], p).expand(len(x), -1, -1))


def build(
    put=lambda token, patches: torch.cat((token, patches), dim=1),
    positions=lambda x, pos: x + pos,
    token=lambda cls, patches: cls.expand(len(patches), -1, -1),
):
    """The right embedding with one part of it replaced."""
    return lambda patches, cls_token, pos_embed: positions(put(token(cls_token, patches), patches), pos_embed)


def embeds(name, says, **parts):
    named("vit.embed", says, name, build(**parts))


embeds("token_last", "puts the class token last", put=lambda t, x: torch.cat((x, t), 1))
embeds("token_without_position", "to the patches only", positions=lambda x, pos: torch.cat((x[:, :1], x[:, 1:] + pos[:, 1:]), 1))
embeds(
    "positions_too_early", "from the first on",
    positions=lambda x, pos: torch.cat((x[:, :1], x[:, 1:] + pos[:, : x.shape[1] - 1]), 1),
)
embeds("positions_shifted", "gives the last position to the class token", positions=lambda x, pos: x + pos.roll(1, 1))
embeds("no_positions", "forgets the positions", positions=lambda x, pos: x)
embeds("no_token", "forgets the class token", put=lambda t, x: x, positions=lambda x, pos: x + pos[:, 1:])
embeds("token_added", "adds the class token to each patch", put=lambda t, x: x + t, positions=lambda x, pos: x + pos[:, 1:])
embeds("token_not_expanded", "It raises RuntimeError", token=lambda cls, x: cls)
embeds("multiplied", "multiplies by the positions", positions=lambda x, pos: x * pos)
embeds("twice", "adds the positions twice", positions=lambda x, pos: x + pos + pos)
embeds("one_position", "own position to every token", positions=lambda x, pos: x + pos[:, :1])
embeds("zero_token", "draws a class token of its own", token=lambda cls, x: torch.zeros_like(x[:, :1]))
embeds("token_replaces_a_patch", "replaces the first patch", put=lambda t, x: torch.cat((t, x[:, 1:]), 1), positions=lambda x, pos: x + pos[:, :-1])
embeds("token_frozen", "cuts the gradient of the class token", token=lambda cls, x: cls.detach().expand(len(x), -1, -1))
embeds("positions_frozen", "cuts the gradient of the positions", positions=lambda x, pos: x + pos.data)
embeds("in_place", "changes its input", positions=lambda x, pos: pos.add_(1) + x - 1)


@mistake("vit.embed", says="gives only the first image the class token")
def token_for_one_image(patches, cls_token, pos_embed):
    tokens = patches.new_zeros(len(patches), 1, patches.shape[2])
    tokens[0] = cls_token[0]
    return torch.cat((tokens, patches), dim=1) + pos_embed


def network(name, says, base=RightNetwork, **methods):
    """The right network with a method replaced, planted."""
    mistake("vit.vision_transformer", says=says)(type(name, (base,), methods))


def forward(
    end=lambda x: x[:, 0],
    norm=True,
    tokens=lambda self, x: torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed,
    blocks=lambda self, x: self.blocks(x),
    last=lambda x: x,
):
    """The right forward pass with one part of it replaced."""

    def run(self, images):
        x = blocks(self, tokens(self, self.patch_embed(images)))
        return last(self.head(end(self.norm(x) if norm else x)))

    return run


def token_of(self, x):
    return self.cls_token.expand(len(x), -1, -1)


def each_block(step):
    def run(self, x):
        for block in self.blocks:
            x = step(block, x)
        return x

    return run


def after_init(change):
    def init(self, *args, **kwargs):
        RightNetwork.__init__(self, *args, **kwargs)
        change(self)

    return init


def post_ln(block, x):
    x = block.norm1(x + block.attn(x))
    return block.norm2(x + block.mlp(x))


network("mean_of_all", "averages over all tokens", forward=forward(lambda x: x.mean(1)))
network("mean_of_patches", "averages over the patches", forward=forward(lambda x: x[:, 1:].mean(1)))
network("last_token", "reads the last token", forward=forward(lambda x: x[:, -1]))
network("first_patch", "reads the first patch", forward=forward(lambda x: x[:, 1]))
network("no_final_norm", "forgets the final norm", forward=forward(norm=False))
network(
    "no_positions", "forgets the positions",
    forward=forward(tokens=lambda self, x: torch.cat((token_of(self, x), x), 1)),
)  # fmt: skip
network(
    "positions_of_patches", "adds no position to the class token",
    forward=forward(tokens=lambda self, x: torch.cat((token_of(self, x), x + self.pos_embed[:, 1:]), 1)),
)  # fmt: skip
network(
    "token_stands_last", "puts the class token last, and reads it there",
    forward=forward(lambda x: x[:, -1], tokens=lambda self, x: torch.cat((x, token_of(self, x)), 1) + self.pos_embed),
)  # fmt: skip
network("post_norm", "Post-LN", forward=forward(blocks=each_block(post_ln)))
network("one_block", "runs the first block only", forward=forward(blocks=lambda self, x: self.blocks[0](x)))
network(
    "shared_block", "uses the first block again and again",
    forward=forward(blocks=lambda self, x: [x := self.blocks[0](x) for _ in self.blocks][-1]),
)  # fmt: skip
network("no_shortcuts", "leaves out the shortcuts", forward=forward(blocks=each_block(lambda b, x: b.mlp(b.norm2(b.attn(b.norm1(x)))))))
network("no_mlps", "leaves out the MLPs", forward=forward(blocks=each_block(lambda b, x: x + b.attn(b.norm1(x)))))
network("probabilities", "returns probabilities", forward=forward(last=lambda x: x.softmax(-1)))
network("forward_left_out", "cut off from the parameters", forward=torch.no_grad()(RightNetwork.forward))


def set_eps(model):
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def set_heads(model):
    for block in model.blocks:
        block.attn.num_heads = 8 if model.norm.normalized_shape[0] % 8 == 0 else 1


def normal_start(model):
    nn.init.normal_(model.cls_token)
    nn.init.normal_(model.pos_embed)


def plain_token(model):
    token = model.cls_token.data
    del model.cls_token
    model.register_buffer("cls_token", token)


def too_few_positions(model):
    model.pos_embed = nn.Parameter(model.pos_embed.data[:, 1:])


def rename_head(model):
    model.classifier = model.head
    del model.head


network("eps_of_torch", "uses eps=1e-5", __init__=after_init(set_eps))
network("eight_heads", "uses 8 heads, whatever num_heads says", __init__=after_init(set_heads))
network("drawn_from_randn", "drowns the patches", __init__=after_init(normal_start))
network("token_as_a_buffer", "it would never be trained", __init__=after_init(plain_token))
network("no_place_for_the_token", "`pos_embed` has shape", __init__=after_init(too_few_positions))
network("other_names", "no parameter `head.weight` but `classifier.weight`", __init__=after_init(rename_head))
