"""What checks share that hold an answer to a reference: it takes the reference's weights, and its gradients are equal."""

from __future__ import annotations

import torch
from torch import nn

from dlcourse.exercises.checking import Answer, Mistake, compare, describe


def compare_gradients(got: torch.Tensor, want: torch.Tensor, inputs: dict[str, torch.Tensor], given: str) -> None:
    """Raise Mistake unless `got` equals `want`, and so do its gradients with respect to every one of the named inputs.

    The gradients are those of a sum with a different weight on every output, so that no two errors can cancel.
    """
    compare(got, want, given=f"{given}, with gradients asked for")
    slopes = torch.linspace(-1, 2, want.numel(), dtype=want.dtype).reshape(want.shape)
    for name, tensor in inputs.items():
        ours = None
        if got.requires_grad:
            ours = torch.autograd.grad(got, tensor, slopes, retain_graph=True, allow_unused=True)[0]
        theirs = torch.autograd.grad(want, tensor, slopes, retain_graph=True)[0]
        if ours is None:
            raise Mistake(f"It cuts the gradient of {name}.")
        compare(ours, theirs, given=given, what=f"the gradient of {name}")


def with_weights(module: Answer, weights: dict[str, torch.Tensor]) -> Answer:
    """Load the weights into a learner's module. Raises Mistake for names or shapes other than theirs."""
    if not isinstance(getattr(module, "value", None), nn.Module):
        raise Mistake(f"It builds {describe(module)}; an nn.Module is asked for.")
    own = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    if missing := [name for name in weights if name not in own]:
        raise Mistake(f"It has no parameter `{missing[0]}`; its parameters are {', '.join(own) or 'none'}.")
    if extra := [name for name in own if name not in weights]:
        raise Mistake(f"It has a parameter `{extra[0]}` that is not asked for.")
    for name, weight in weights.items():
        if own[name] != tuple(weight.shape):
            raise Mistake(f"Its `{name}` has shape {own[name]} where {tuple(weight.shape)} is expected.")
    module.load_state_dict(weights, strict=False)
    return module
