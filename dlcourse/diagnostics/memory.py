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

    @property
    def peak(self) -> int:
        """The most there is at once: weights and optimizer always; beside them activations first, then gradients."""
        return self.parameters + self.optimizer + max(self.activations, self.gradients)

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

        def keep(tensor: Tensor) -> Tensor:
            kept.update(_storages([tensor]))
            return tensor.detach()  # the tensor itself would hold the graph that holds it

        modes = [(module, module.training) for module in model.modules()]
        try:
            set_training_mode(model)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(device, amp):
                torch.func.functional_call(model, named, batch)
        finally:
            for module, training in modes:
                module.training = training
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = sum(parameter.nbytes for parameter in trained)
    activations = sum(storage.nbytes() for address, storage in kept.items() if address not in own)
    parameters = sum(storage.nbytes() for storage in own.values())
    return MemoryAccount(parameters, gradients, _optimizer_bytes(optimizer, trained), activations)


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
    before = _bytes_of([*model.parameters(), *model.buffers(), *_state_tensors(optimizer)])
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


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(storage.nbytes() for storage in _storages(tensors).values())


def _state_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def _optimizer_bytes(optimizer: torch.optim.Optimizer | None, trained: list[nn.Parameter]) -> int:
    """Bytes of the optimizer's state after a step: that of a copy of it which takes one, without data."""
    if optimizer is None:
        return 0
    wanted = {id(parameter) for parameter in trained}
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        parameters = [nn.Parameter(torch.empty_like(p, device="meta")) for p in group["params"] if id(p) in wanted]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        groups.append({**group, "params": parameters})
    groups = [group for group in groups if group["params"]]
    if not groups:
        return 0
    make: Any = type(optimizer)  # every optimizer takes its groups, which bear all their options
    stand_in = make(groups)
    stand_in.step()
    return sum(tensor.nbytes for tensor in _state_tensors(stand_in))
