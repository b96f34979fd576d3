"""What the memory of a training step holds: predicted from the shapes alone, and measured.

A step keeps parameters, their gradients, the optimizer's state, and the activations: the tensors that the forward pass
keeps for the backward pass. Gradients and activations are not all there at once: the backward pass frees activations
while it makes gradients, and `zero_grad` frees the gradients before the next forward pass.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

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
    """The most there is at once. Weights and optimizer always; beside them the activations not yet used and the gradients
    already made, at the moment of the backward pass when these two are most together."""

    @property
    def total(self) -> int:
        """The sum of the four, which is never there at once."""
        return self.parameters + self.gradients + self.optimizer + self.activations


def memory_account(
    model: nn.Module, images: Tensor, optimizer: torch.optim.Optimizer | None = None, *, amp: str = "off"
) -> MemoryAccount:
    """Predict the memory of a training step on a batch like `images` (B, C, H, W), without computing anything.

    A stand-in of the model without data (torch's fake tensors) runs forward, and every storage that the graph keeps is
    counted once; so does a stand-in of the optimizer for a step. Parameters that are frozen have no gradient and no state.
    The loss and the labels are small and left out. `amp` as in `TrainerConfig`.
    """
    device = device_of(model)
    with FakeTensorMode() as fake:
        standing_in = {id(t): fake.from_tensor(t) for t in chain(model.parameters(), model.buffers())}
        named: dict[str, Tensor] = {n: standing_in[id(t)] for n, t in chain(model.named_parameters(), model.named_buffers())}
        batch = fake.from_tensor(images).to(device)
        own, kept = _storages(standing_in.values()), _storages([batch])
        used: dict[int, int] = {}  # which weights, when so many bytes were kept

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata in own:
                used.setdefault(storage._cdata, _size(kept))
            else:
                kept[storage._cdata] = storage
            return tensor.detach()  # the tensor itself would hold the graph that holds it

        modes = [(module, module.training) for module in model.modules()]
        try:
            set_training_mode(model)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(device, amp):
                torch.func.functional_call(model, named, batch)
        finally:
            for module, training in modes:
                module.training = training
    trained = {standing_in[id(p)].untyped_storage()._cdata: p.nbytes for p in model.parameters() if p.requires_grad}
    gradients = sum(trained.values())
    # Backwards, from the weights used last: the gradients so far, beside what was kept before those weights were used.
    together, made = _size(kept), 0
    for weights, before in sorted(used.items(), key=lambda item: item[1], reverse=True):
        made += trained.get(weights, 0)
        together = max(together, made + before)
    fixed = _size(own) + (optimizer_bytes := _optimizer_bytes(optimizer))
    return MemoryAccount(_size(own), gradients, optimizer_bytes, _size(kept), peak=fixed + max(together, gradients))


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
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    return before + int(images.nbytes) + max(accumulate((change for _, change in changes), initial=0))


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
