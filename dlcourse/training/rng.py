"""The state of every generator of random numbers that a training run draws from, as plain types for a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch


def rng_state() -> dict[str, Any]:
    """The states of Python's, NumPy's (the global one) and torch's generators (CPU, and every GPU in use)."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002  (augmentations draw from the global generator)
    state = {
        "python": random.getstate(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Put the generators into the states that `rng_state` returned, but for those of GPUs that this machine lacks."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, cuda_state in zip(range(torch.cuda.device_count()), state.get("cuda", ()), strict=False):
            torch.cuda.set_rng_state(cuda_state, device)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def generator_states(loaders: Iterable[Any]) -> list[torch.Tensor]:
    """The states of the torch generators that the loaders, their samplers and data sets own, in a fixed order."""
    return [generator.get_state() for generator in _generators(loaders)]


def restore_generators(loaders: Iterable[Any], states: list[torch.Tensor]) -> None:
    """Put the loaders' generators into the states of `generator_states`. Raises ValueError for other loaders."""
    found = _generators(loaders)
    if len(found) != len(states):
        raise ValueError(f"the loaders own {len(found)} generators, but {len(states)} were saved: are they the run's?")
    for generator, state in zip(found, states, strict=True):
        generator.set_state(state)


def _generators(loaders: Iterable[Any]) -> list[torch.Generator]:
    found: dict[int, torch.Generator] = {}
    for loader in loaders:
        for owner in (loader, *(getattr(loader, name, None) for name in ("sampler", "batch_sampler", "dataset"))):
            if isinstance(generator := getattr(owner, "generator", None), torch.Generator):
                found[id(generator)] = generator
    return list(found.values())
