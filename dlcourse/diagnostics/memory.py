"""What the memory of a training step holds: predicted from the shapes alone, and measured.

A step keeps parameters, their gradients, the optimizer's state, and the activations: the tensors that the forward pass
keeps for the backward pass. Gradients and activations are not all there at once: the backward pass frees activations
while it makes gradients, and `zero_grad` frees the gradients before the next forward pass.
"""

from __future__ import annotations

import copy
import re
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dlcourse.training.batches import Means
from dlcourse.training.engine import LossFunction, autocast, device_of, set_training_mode, train_step


@dataclass(frozen=True)
class MemoryAccount:
    """Bytes of one training step, by what they hold."""

    parameters: int
    """Weights and buffers."""
    gradients: int
    optimizer: int
    """The optimizer's state: nothing for plain SGD, two numbers a weight for Adam."""
    activations: int
    """What the forward pass keeps for the backward pass, the batch included."""

    peak: int
    """The most there is at once. Weights and optimizer always; beside them, at some moment of the two passes, the activations
    not yet used, the gradients already made, what an operation is making, and a checkpointed block that runs again."""

    @property
    def total(self) -> int:
        """The sum of the four, which is never there at once."""
        return self.parameters + self.gradients + self.optimizer + self.activations


def memory_account(
    model: nn.Module, images: Tensor, optimizer: torch.optim.Optimizer | None = None, *, amp: str = "off"
) -> MemoryAccount:
    """Predict the memory of a training step on a batch like `images` (B, C, H, W), without computing anything.

    A stand-in of the model without data (torch's fake tensors) runs forward and backward, and every storage is counted
    while it is alive; a stand-in of the optimizer takes a step. Parameters that are frozen have no gradient and no state.
    The loss and the labels are small and left out. `amp` as in `TrainerConfig`.
    """
    device = device_of(model)
    with FakeTensorMode() as fake:
        standing_in = {id(t): fake.from_tensor(t) for t in chain(model.parameters(), model.buffers())}
        named: dict[str, Tensor] = {
            f"model.{n}": standing_in[id(t)] for n, t in chain(model.named_parameters(), model.named_buffers())
        }
        batch = fake.from_tensor(images).to(device)
        alive = _Alive([*standing_in.values(), batch])
        modes = [(module, module.training) for module in model.modules()]
        try:
            set_training_mode(model)
            with alive:
                after_forward = torch.func.functional_call(_BothPasses(model, amp, alive), named, batch)
        finally:
            for module, training in modes:
                module.training = training
    own, state = _size(_storages(standing_in.values())), _optimizer_bytes(optimizer)
    gradients = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return MemoryAccount(own, gradients, state, after_forward - own, peak=alive.peak + state)


def peak_memory(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    *,
    amp: str = "off",
) -> int:
    """The most bytes alive at any moment of one training step on this batch, measured on a copy.

    On a CPU torch's profiler counts every allocation, on a GPU the allocator does.
    """
    model, optimizer = copy.deepcopy((model, optimizer))
    device = device_of(model)
    set_training_mode(model)
    scaler = torch.amp.GradScaler(device.type) if amp == "fp16" else None

    def step() -> None:
        train_step(model, [(images, targets)], loss_fn, optimizer, Means(), amp=amp, scaler=scaler)

    step()  # the first one makes the optimizer's state
    before = _size(_storages([*model.parameters(), *model.buffers(), *_state_tensors(optimizer)]))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        alive = torch.cuda.memory_allocated(device)
        step()
        return before + int(images.nbytes) + torch.cuda.max_memory_allocated(device) - alive
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        record.export_chrome_trace(str(trace))
        changes = sorted(_allocations(trace))
    if not changes:
        raise RuntimeError("the profiler of this torch writes its trace in a form that is not known here")
    return before + int(images.nbytes) + max(accumulate((change for _, change in changes), initial=0))


def _allocations(trace: Path) -> Iterator[tuple[float, int]]:
    """When how many bytes came or went, from the profiler's trace.

    Read as text, event by event: a trace may hold half a million other events, gigabytes as Python objects.
    """
    with trace.open(encoding="utf-8") as file:
        for line in file:
            if '"name": "[memory]"' in line:
                event = "".join(islice(file, 8))
                when, size = re.search(r'"ts": ([\d.]+)', event), re.search(r'"Bytes": (-?\d+)', event)
                if when is not None and size is not None:
                    yield float(when[1]), int(size[1])


class _Alive(TorchDispatchMode):
    """Counts the bytes that are alive: each storage when an operation makes it, until nothing refers to it."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._known: set[int] = set()
        for tensor in tensors:
            self._count(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.bytes -= size


class _BothPasses(nn.Module):
    """Forward and backward of a model in one call, since a checkpointed block needs the stand-ins in both."""

    def __init__(self, model: nn.Module, amp: str, alive: _Alive) -> None:
        super().__init__()
        self.model, self.amp, self.alive = model, amp, alive

    def forward(self, batch: Tensor) -> int:
        """Returns the bytes that are alive between the two."""
        with autocast(batch.device, self.amp):
            outputs = self.model(batch)
        after_forward = self.alive.bytes
        if outputs.requires_grad:
            outputs.sum().backward()
        return after_forward


def _storages(tensors: Iterable[Tensor]) -> dict[int, Any]:
    """The memory behind tensors, each piece once though several tensors may look at it."""
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}


def _size(storages: dict[int, Any]) -> int:
    return sum(storage.nbytes() for storage in storages.values())


def _state_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def _optimizer_bytes(optimizer: torch.optim.Optimizer | None) -> int:
    """Bytes of the optimizer's state after a step: that of a copy of it which takes one, without data."""
    groups: list[dict[str, Any]] = []
    for group in [] if optimizer is None else optimizer.param_groups:
        parameters = [nn.Parameter(torch.empty_like(p, device="meta")) for p in group["params"] if p.requires_grad]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        if parameters:
            groups.append({**group, "params": parameters})
    if not groups:
        return 0
    make: Any = type(optimizer)  # every optimizer takes its groups, which bear all their options
    stand_in = make(groups)
    stand_in.step()
    return _size(_storages(_state_tensors(stand_in)))
