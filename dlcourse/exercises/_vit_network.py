"""The exercise vit.vision_transformer: the network from its parts, held to timm's by its weights (registered in vit.py)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.models.attention import TransformerEncoderBlock
from dlcourse.models.vit import PatchEmbedding

Wrong = dict[str, Callable[[], torch.Tensor]]


class VisionTransformer(nn.Module):
    def __init__(self, img_size: Any, patch_size: int, dim: int, depth: int, num_heads: int, num_classes: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(img_size, patch_size, dim)
        rows, columns = self.patch_embed.grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, dim))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.Sequential(*[TransformerEncoderBlock(dim, num_heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(images)  # (B, 3, H, W) -> (B, N, D)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed  # -> (B, 1 + N, D)
        return self.head(self.norm(self.blocks(x))[:, 0])  # -> (B, 1 + N, D) -> (B, D) -> (B, num_classes)


def check_vision_transformer(answer: Answer) -> str:
    for img_size, patch, dim, depth, heads, classes in ((16, 4, 32, 2, 4, 7), ((8, 12), 2, 24, 3, 3, 5)):
        sizes = {"img_size": img_size, "patch_size": patch, "dim": dim, "depth": depth, "num_heads": heads}
        model = answer(img_size, patch, dim, depth, heads, classes)
        if not isinstance(model, Answer):
            raise Mistake(f"Called with {describe(**sizes)}, it returns {describe(model)}; a module is asked for.")
        _check_start(model)
        timms = _timms(classes, **sizes)
        _load(model.value.double(), timms.state_dict(), sizes)
        _compare_with_timm(model, timms, img_size if isinstance(img_size, tuple) else (img_size, img_size))
    return "timm's weights load strictly, logits and gradients of every parameter equal timm's, in train and in eval mode"


def _timms(classes: int, **sizes: Any) -> nn.Module:
    """timm's network with random weights of a size that makes every part matter, in float64."""
    from timm.models.vision_transformer import VisionTransformer as Timms

    model = Timms(num_classes=classes, embed_dim=sizes.pop("dim"), **sizes).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.5
            parameter.copy_(scale * torch.randn_like(parameter) + (name.endswith("weight") and parameter.ndim == 1))
    return model


def _check_start(model: Answer) -> None:
    for name in ("cls_token", "pos_embed"):
        tensor = getattr(model, name)
        if not isinstance(tensor, nn.Parameter):
            raise Mistake(f"`{name}` is {describe(tensor)}, not an nn.Parameter: it would never be trained.")
        if tensor.std(correction=0) > 0.1:
            raise Mistake(
                f"`{name}` starts with a standard deviation of {tensor.std():.2g}, so that it drowns the patches: "
                "draw it with nn.init.trunc_normal_(…, std=0.02)."
            )


def _load(model: nn.Module, state: dict[str, torch.Tensor], sizes: dict[str, Any]) -> None:
    own = model.state_dict()
    missing, extra = [k for k in state if k not in own], [k for k in own if k not in state]
    if missing or extra:
        lacks = f"It has no parameter `{missing[0]}`" if missing else f"timm has no parameter `{extra[0]}`"
        more = f" but `{extra[0]}`" if missing and extra else ""
        raise Mistake(f"Its parameters are not named as timm's, so that timm's weights do not load. {lacks}{more}.")
    for key, tensor in state.items():
        if own[key].shape != tensor.shape:
            shapes = f"shape {tuple(own[key].shape)} where {tuple(tensor.shape)} is expected"
            raise Mistake(f"Given {describe(**sizes)}, `{key}` has {shapes}.")
    model.load_state_dict(state, strict=True)


def _compare_with_timm(model: Answer, timms: nn.Module, size: tuple[int, int]) -> None:
    images = torch.randn(3, 3, *size, dtype=torch.float64)
    for training in (False, True):
        model.value.train(training)
        timms.train(training)
        given = f"timm's weights, a float64 batch of shape {tuple(images.shape)}, training={training}"
        got, want = model(images), timms(images)
        mistakes = _network_mistakes(timms, images)
        compare(got, want, given=given, mistakes=mistakes, rtol=1e-8, atol=1e-10, what="the logits")
        slopes = torch.linspace(-1, 2, want.numel(), dtype=torch.float64).reshape(want.shape)
        theirs = dict(timms.named_parameters())
        wanted = torch.autograd.grad((want * slopes).sum(), list(theirs.values()))
        own = dict(model.value.named_parameters())
        if not got.requires_grad:
            raise Mistake("Its logits are cut off from the parameters: no gradient reaches them.")
        found = torch.autograd.grad((got * slopes).sum(), [own[name] for name in theirs], allow_unused=True)
        for name, ours, want_grad in zip(theirs, found, wanted, strict=True):
            if ours is None:
                raise Mistake(f"No gradient reaches `{name}`.")
            compare(ours, want_grad, given=given, rtol=1e-6, atol=1e-8, what=f"the gradient of `{name}`")


def _network_mistakes(timms: Any, images: torch.Tensor) -> Wrong:
    def run(end: Callable[[torch.Tensor], torch.Tensor] | None = None, **parts: Any) -> torch.Tensor:
        """The right network with something left out or replaced, on timm's weights."""
        m = copy.deepcopy(timms)
        for module in m.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = parts.get("eps", module.eps)
            if hasattr(module, "num_heads") and "heads" in parts and hasattr(module, "qkv"):
                module.num_heads, module.head_dim = parts["heads"], m.embed_dim // parts["heads"]
                module.scale = module.head_dim**-0.5
        x = m.patch_embed(images)
        token = m.cls_token.expand(len(x), -1, -1)
        if parts.get("token") == "last":
            x = torch.cat((x, token), 1) + m.pos_embed
        else:
            x = torch.cat((token, x + m.pos_embed[:, 1:]), 1) if parts.get("late") else torch.cat((token, x), 1) + m.pos_embed
            x = torch.cat((token, m.patch_embed(images)), 1) if parts.get("positions") is False else x
        for block in m.blocks[: parts.get("depth")]:
            x = parts.get("block", lambda b, t: b(t))(block, x)
        x = x if parts.get("norm") is False else m.norm(x)
        return m.head((end or (lambda t: t[:, 0]))(x))

    def post_ln(block: Any, x: torch.Tensor) -> torch.Tensor:
        x = block.norm1(x + block.attn(x))
        return block.norm2(x + block.mlp(x))

    heads = [h for h in (1, 2, 3, 4, 6, 8, 12) if timms.embed_dim % h == 0 and h != timms.blocks[0].attn.num_heads]
    wrong_heads = {f"uses {h} heads, whatever num_heads says": (lambda h=h: run(heads=h)) for h in heads}
    return {
        "averages over all tokens; the class token's state alone is classified": lambda: run(lambda t: t.mean(1)),
        "averages over the patches; the class token's state alone is classified": lambda: run(lambda t: t[:, 1:].mean(1)),
        "reads the last token; the class token stands first": lambda: run(lambda t: t[:, -1]),
        "reads the first patch; the class token is token 0": lambda: run(lambda t: t[:, 1]),
        "forgets the final norm before the head": lambda: run(norm=False),
        "uses eps=1e-5, the default of nn.LayerNorm; the network was trained with 1e-6": lambda: run(eps=1e-5),
        "forgets the positions": lambda: run(positions=False),
        "adds no position to the class token": lambda: run(late=True),
        "puts the class token last": lambda: run(token="last"),
        "puts the class token last, and reads it there": lambda: run(lambda t: t[:, -1], token="last"),
        "normalises after the shortcut (Post-LN); a ViT does it before each branch": lambda: run(block=post_ln),
        "runs the first block only": lambda: run(depth=1),
        "uses the first block again and again": lambda: run(block=lambda b, t: timms.blocks[0](t)),
        "leaves out the shortcuts": lambda: run(block=lambda b, t: b.mlp(b.norm2(b.attn(b.norm1(t))))),
        "leaves out the MLPs": lambda: run(block=lambda b, t: t + b.attn(b.norm1(t))),
        **wrong_heads,
        "returns probabilities; the loss wants the logits": lambda: timms(images).softmax(-1),
    }
