"""Where a network looks: Grad-CAM and occlusion. Both leave the model as they found it.

Selvaraju et al. 2016, Grad-CAM: visual explanations from deep networks via gradient-based localization
(arXiv:1610.02391). Zeiler, Fergus 2013, Visualizing and understanding convolutional networks (arXiv:1311.2901).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlcourse.evaluation.predictions import in_eval_mode

Targets = Tensor | int | None


def grad_cam(
    model: nn.Module,
    layer: nn.Module | str,
    images: Tensor,
    targets: Targets = None,
    *,
    reshape: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Where `layer` holds evidence for the target class: images (B, C, H, W) -> (B, H, W), at least 0.

    layer    a module of the model or its name, whose output is (B, C', h, w); the last one before the pooling is usual
    targets  the class asked about, one for all or (B,); None takes the predicted ones
    reshape  makes (B, C', h, w) of another output, such as a transformer's tokens (B, 1 + h·w, C'):
             lambda tokens: tokens[:, 1:].unflatten(1, (h, w)).permute(0, 3, 1, 2)

    The map is computed at the layer's size and enlarged. It is not scaled: two images may be compared. Runs in eval mode;
    modes, hooks and gradients of the model are afterwards as before. Raises ValueError for a layer that is not part of
    the model, does not run exactly once, or has an output of another shape, and for targets outside the classes.
    """
    module = find_layer(model, layer)
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor):
            raise ValueError(f"the layer's output is a {type(output).__name__}, not a tensor")
        seen.append(output.detach().requires_grad_())  # the graph begins here, so frozen weights do not matter
        torch.set_grad_enabled(True)  # until the block below ends
        return seen[-1].clone()  # what follows may work in place

    hook = module.register_forward_hook(keep)
    try:
        with in_eval_mode(model), torch.inference_mode(False), torch.no_grad():
            logits = model(images)
            if len(seen) != 1:
                raise ValueError(f"the layer runs {len(seen)} times in one pass; Grad-CAM needs one that runs once")
            chosen = logits.gather(1, class_of(targets, logits)[:, None])
            (gradient,) = torch.autograd.grad(chosen.sum(), seen[0])
    finally:
        hook.remove()
    maps, gradient = (each if reshape is None else reshape(each) for each in (seen[0].detach(), gradient))
    if maps.ndim != 4:
        raise ValueError(f"the layer's output has shape {tuple(maps.shape)}, not (B, C, h, w): give reshape=…")
    cam = weighted_maps(maps, gradient)[:, None]  # (B, h, w) -> (B, 1, h, w)
    return F.interpolate(cam, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def weighted_maps(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM's formula: the maps of a layer, each weighted by its mean gradient: (B, C, h, w) twice -> (B, h, w)."""
    weights = gradients.mean(dim=(2, 3), keepdim=True)  # (B, C, h, w) -> (B, C, 1, 1)
    return (weights * activations).sum(dim=1).relu()  # evidence against the class is left out


@torch.no_grad()
def occlusion(
    model: nn.Module, images: Tensor, targets: Targets = None, size: int = 8, stride: int = 4, *, fill: float = 0.0
) -> Tensor:
    """What each place is worth: how far the target's probability falls when it is covered, (B, C, H, W) -> (B, H, W).

    A square of `size` pixels with the value `fill` is moved in steps of `stride`; the last step ends at the border. A
    pixel's value is the mean over the squares that cover it; below 0 the class was likelier without it. `targets` as in
    `grad_cam`. One forward pass a square. Raises ValueError for a size outside the image and a stride outside 1 … size,
    which would leave pixels uncovered.
    """
    height, width = images.shape[2:]
    if not 1 <= size <= min(height, width):
        raise ValueError(f"size={size} must lie in 1 … {min(height, width)}, the image's shorter side")
    if not 1 <= stride <= size:
        raise ValueError(f"stride={stride} must lie in 1 … {size}, the size, or pixels between the squares are never covered")
    with in_eval_mode(model):
        logits = model(images)
        picked = class_of(targets, logits)[:, None]
        before = logits.softmax(dim=1).gather(1, picked)  # (B, 1)
        total = images.new_zeros(len(images), height, width)
        covered = images.new_zeros(height, width)
        for y in steps(height, size, stride):
            for x in steps(width, size, stride):
                hidden = images.clone()
                hidden[:, :, y : y + size, x : x + size] = fill
                drop = before - model(hidden).softmax(dim=1).gather(1, picked)
                total[:, y : y + size, x : x + size] += drop[:, :, None]  # (B, 1, 1), one number for the square
                covered[y : y + size, x : x + size] += 1
    return total / covered


def steps(length: int, size: int, stride: int) -> list[int]:
    """Where squares begin along a side: every `stride` pixels, and one that ends at the border."""
    return sorted({*range(0, length - size + 1, stride), length - size})


def find_layer(model: nn.Module, layer: nn.Module | str) -> nn.Module:
    """A module of the model, by name or itself. Raises ValueError when it is not one."""
    named = dict(model.named_modules())
    if isinstance(layer, str):
        if layer not in named:
            raise ValueError(f"the model has no layer {layer!r}; its parts are {', '.join(dict(model.named_children()))}")
        return named[layer]
    if not any(layer is module for module in named.values()):
        raise ValueError(f"the layer, a {type(layer).__name__}, is not part of the model")
    return layer


def class_of(targets: Targets, logits: Tensor) -> Tensor:
    """The classes asked about, (B,): given for each image, one for all, or the predicted ones."""
    if logits.ndim != 2:
        raise ValueError(f"the model's output has shape {tuple(logits.shape)}, not (B, K)")
    if targets is None:
        return logits.detach().argmax(dim=1)
    classes = torch.as_tensor(targets, device=logits.device).expand(len(logits)) if isinstance(targets, int) else targets.to(logits.device)
    if classes.shape != logits.shape[:1] or classes.is_floating_point():
        raise ValueError(f"targets must be a class or {len(logits)} whole numbers, not {classes.dtype} of shape {tuple(classes.shape)}")
    if not bool(((classes >= 0) & (classes < logits.shape[1])).all()):
        raise ValueError(f"targets={classes.tolist()[:8]} must lie in 0 … {logits.shape[1] - 1}")
    return classes.long()
