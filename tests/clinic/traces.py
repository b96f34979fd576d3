"""Everything about a training that a diagnosis must leave as it was, as plain values that compare bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from patients import Training
from torch import Tensor, nn
from torch.nn.modules import module as module_internals

GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks",
                "_global_backward_pre_hooks", "_global_parameter_registration_hooks")  # fmt: skip


def snapshot(training: Training) -> dict[str, Any]:
    """Values by the path to them: weights, buffers, gradients, modes, hooks, optimizer, random numbers, data, settings."""
    return dict(_parts(training))


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The paths that differ, appeared or vanished."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def _parts(training: Training) -> Iterator[tuple[str, Any]]:
    for place, owner in (("model", training.model), ("loss_fn", training.loss_fn)):
        if isinstance(owner, nn.Module):
            for name, module in _modules(owner, place):
                yield from _module(name, module)
    yield from _optimizer(training.optimizer)
    if training.scheduler is not None:
        yield from _flat("scheduler", training.scheduler.state_dict())
    for place, loader in (("loader", training.loader), ("val_loader", training.val_loader)):
        yield from _loader(place, loader)
    yield from _flat("rng.python", random.getstate())
    yield from _flat("rng.numpy", np.random.get_state())  # noqa: NPY002
    yield from _flat("rng.torch", torch.get_rng_state())
    yield "settings.grad", torch.is_grad_enabled()
    yield "settings.inference", torch.is_inference_mode_enabled()
    yield "settings.anomaly", torch.is_anomaly_enabled()
    yield "settings.deterministic", torch.are_deterministic_algorithms_enabled()
    yield "settings.dtype", torch.get_default_dtype()
    yield "settings.threads", torch.get_num_threads()
    for name in GLOBAL_HOOKS:
        yield f"settings.{name}", list(getattr(module_internals, name))


def _modules(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules below `module`, those in plain lists included."""
    for path, child in module.named_modules(prefix=name):
        yield path, child
        for attribute, value in vars(child).items():
            for index, item in enumerate(value if isinstance(value, list | tuple) else ()):
                if isinstance(item, nn.Module):
                    yield from _modules(item, f"{path}.{attribute}.{index}")


def _module(name: str, module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield f"{name}.training", module.training
    yield f"{name}.attributes", sorted(vars(module))
    yield f"{name}.children", [(child, id(value)) for child, value in module._modules.items()]
    for attribute, value in vars(module).items():
        if "hooks" in attribute and isinstance(value, dict):
            yield f"{name}.{attribute}", [(key, id(hook)) for key, hook in value.items()]
    for key, buffer in module._buffers.items():
        yield from _flat(f"{name}.{key}", buffer)
    for key, parameter in module._parameters.items():
        if parameter is not None:
            yield f"{name}.{key}.identity", id(parameter)
            yield f"{name}.{key}.requires_grad", parameter.requires_grad
            yield f"{name}.{key}.hooks", [len(hooks or ()) for hooks in _tensor_hooks(parameter)]
            yield from _flat(f"{name}.{key}", parameter)
            yield from _flat(f"{name}.{key}.grad", parameter.grad)


def _tensor_hooks(parameter: Tensor) -> tuple[Any, Any]:
    return parameter._backward_hooks, getattr(parameter, "_post_accumulate_grad_hooks", None)


def _optimizer(optimizer: torch.optim.Optimizer | None) -> Iterator[tuple[str, Any]]:
    if optimizer is None:
        return
    yield from _flat("optimizer", optimizer.state_dict())
    yield "optimizer.attributes", sorted(vars(optimizer))
    yield (
        "optimizer.hooks",
        [(attribute, list(value)) for attribute, value in vars(optimizer).items() if "hooks" in attribute],
    )
    for index, group in enumerate(optimizer.param_groups):
        yield f"optimizer.param_groups.{index}.identity", [id(parameter) for parameter in group["params"]]


def _loader(place: str, loader: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(loader, list):
        yield from _flat(place, loader)
        return
    samplers = (getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None))
    for index, owner in enumerate((loader, *samplers)):
        generator = getattr(owner, "generator", None)
        if generator is not None:
            yield from _flat(f"{place}.generator.{index}", generator.get_state())
        yield f"{place}.epoch.{index}", getattr(owner, "epoch", None)
    yield from _data(f"{place}.dataset", getattr(loader, "dataset", None))


def _data(place: str, data: Any) -> Iterator[tuple[str, Any]]:
    for attribute, value in vars(data).items() if data is not None else ():
        if attribute in ("dataset", "datasets"):
            for index, part in enumerate(value if isinstance(value, list) else [value]):
                yield from _data(f"{place}.{attribute}.{index}", part)
        else:
            yield from _flat(f"{place}.{attribute}", value)


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Tensors and arrays as their bytes (so that NaN equals NaN), containers item by item, functions by identity."""
    if isinstance(value, Tensor):
        yield path, (value.dtype, tuple(value.shape), value.detach().cpu().contiguous().numpy().tobytes())
    elif isinstance(value, np.ndarray):
        yield path, (str(value.dtype), value.shape, value.tobytes())
    elif isinstance(value, dict):
        yield f"{path}.keys", list(value)
        for key, item in value.items():
            yield from _flat(f"{path}.{key}", item)
    elif isinstance(value, list | tuple):
        yield f"{path}.length", len(value)
        for index, item in enumerate(value):
            yield from _flat(f"{path}.{index}", item)
    elif value is None or isinstance(value, bool | int | float | str):
        yield path, repr(value)
    else:
        yield path, id(value)
