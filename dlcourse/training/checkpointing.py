"""Activation checkpointing: forget a block's activations and compute them again when the backward pass needs them.

Memory for time (Chen et al. 2016, arXiv:1604.06174), by `torch.utils.checkpoint`. A batch norm would see its batch twice;
here its running statistics are held during the second pass, so that they move once a step as without checkpointing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(model: nn.Module, *blocks: str) -> list[str]:
    """Checkpoint the named modules ("layer1", "blocks.3"); a container stands for each of its members. Returns their names.

    Outputs, gradients and running statistics stay as they were, the state_dict's names too; random numbers (dropout) are
    drawn again the same. In eval mode nothing is recomputed. Raises ValueError for a name that the model does not have.
    """
    modules = dict(model.named_modules())
    names = []
    for block in blocks:
        if block not in modules or not block:
            children = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"{type(model).__name__} has no module {block!r}; its parts: {children}")
        module = modules[block]
        is_container = isinstance(module, nn.Sequential | nn.ModuleList)
        names += [f"{block}.{name}" for name, _ in module.named_children()] if is_container else [block]
    for name in names:
        modules[name].forward = partial(_forward, modules[name])
    return names


def _forward(module: nn.Module, *inputs: Any, **options: Any) -> Any:
    plain = partial(type(module).forward, module)
    if not module.training:
        return plain(*inputs, **options)
    # use_reentrant=False: the older way gives the block no gradient when its input needs none, as the first block's.
    return checkpoint(plain, *inputs, use_reentrant=False, context_fn=partial(_contexts, module), **options)


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _statistics_held(module)


@contextmanager
def _statistics_held(module: nn.Module) -> Iterator[None]:
    """Batch norms inside use the batch's statistics, and add nothing to their running ones."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.num_batches_tracked is not None]
    held = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        norm.momentum = 0.0  # running = 1 · running + 0 · batch
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, held, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)  # type: ignore[union-attr]
