"""What the instruments share: copies to work on, a batch to look at, and nothing left behind."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dlcourse.training.batches import unpack
from dlcourse.training.rng import generator_states, restore_generators, restore_rng, rng_state


@contextmanager
def without_a_trace(*loaders: Any) -> Iterator[None]:
    """Gradients are on in the block; after it every generator of random numbers, the loaders' own included, is as it was."""
    before, generators = rng_state(), generator_states(loaders)
    try:
        with torch.enable_grad():
            yield
    finally:
        restore_rng(before)
        restore_generators(loaders, generators)


def working_copy(
    model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> tuple[nn.Module, torch.optim.Optimizer | None]:
    """Copies that belong together: the copied optimizer holds the copied parameters. The user's hooks are left behind."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():  # results kept from an earlier forward pass cannot be copied as they are
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    gradients, own = (
        [parameter.grad for parameter in model.parameters()],
        vars(optimizer) if optimizer is not None else {},
    )
    model, optimizer = copy.deepcopy((model, optimizer), memo)
    for name, value in own.items():  # what an optimizer of its own kind keeps (LBFGS its parameters), a copy leaves out
        if name not in vars(optimizer) and not callable(value):
            setattr(optimizer, name, copy.deepcopy(value, memo))
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):  # a copy leaves them behind
        parameter.grad = None if gradient is None else gradient.clone()
    modules = set(model.modules())
    for module in modules:
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            hooks = getattr(module, name)
            for key, hook in list(hooks.items()):
                of_torch = getattr(hook, "__module__", "").startswith("torch.")  # spectral norm, lazy layers
                if not of_torch and getattr(hook, "__self__", None) not in modules:  # a model may hook itself
                    del hooks[key]
    for parameter in model.parameters():
        parameter._backward_hooks = None
    return model, optimizer


def is_batch(data: Any) -> bool:
    """Whether `data` is one batch, a pair of tensors, and not a loader (or list) of such pairs."""
    return isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def take_batch(data: Any) -> tuple[Tensor, Tensor]:
    """A copy of the batch (inputs (B, …), targets (B, …)), or of the first one that a loader gives.

    A copy, because a model may change its input in place. Raises ValueError for a loader that is empty and for a batch
    that is not a pair of tensors of the same length.
    """
    if not is_batch(data):
        if not isinstance(data, Iterable):
            raise ValueError(
                f"a batch (inputs, targets) or a loader of such batches is needed, not {type(data).__name__}"
            )
        data = next(iter(data), None)
        if data is None:
            raise ValueError("the loader is empty: it gave no batch")
    inputs, targets = unpack(data, 1)
    return inputs.clone(), targets.clone()
