"""One training on several processes: what the loop, the Trainer and a config's run ask of torch.distributed.

    torchrun --nproc-per-node 2 -m dlcourse -- train --config fashion-mini

Each process holds the whole network and takes an equal part of every batch; DistributedDataParallel averages the
gradients during the backward pass (Li et al. 2020, arXiv:2006.15704), so that all of them make the same step. A program
that torchrun did not start is one process: then everything here answers at once and changes nothing. (What follows `--` is
left to dlcourse; torchrun would take --run for one of its own options.)
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from dlcourse.runtime import usable_cores

T = TypeVar("T")


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun started, over gloo and, where there are GPUs, NCCL; alone, do nothing.

    Each gets its GPU, or its share of the cores: torchrun leaves every process one thread, unless OMP_NUM_THREADS says
    another number. No DistributedDataParallel made inside may outlive it: so train in a function of your own.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        yield
        return
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    if os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(max(1, usable_cores() // local_size))
    # Gloo's threads need Python once more after their last message. If they still live when Python ends, that aborts the
    # process. They end with the group, which a DistributedDataParallel keeps, and torch._dynamo when imported meanwhile.
    importlib.import_module("torch._dynamo")
    dist.init_process_group()
    yield
    gc.collect()
    dist.destroy_process_group()  # not after an error: it could wait for a process that is gone, and torchrun ends all


def world_size() -> int:
    """How many processes share this training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes files and prints: number 0."""
    return rank() == 0


def gather(value: T) -> list[T]:
    """The values of all processes, in the order of their numbers. Every process must call it."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return cast("list[T]", values)


def from_main(value: T) -> T:
    """The value that the main process has. Every process must call it."""
    return gather(value)[0]


def any_process(flag: bool) -> bool:
    """Whether the flag is set in one process at least. Every process must call it."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(flag, dtype=torch.int32)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def evaluation_part(size: int) -> range:
    """The samples 0 … size − 1 that this process evaluates, as a sampler: each sample is in exactly one part.

    A DistributedSampler would repeat samples until all parts are equal, as training needs it; here they would count twice.
    """
    return range(rank(), size, world_size())


def check_train_loader(loader: Any) -> None:
    """Raise ValueError for a loader that would give each process the same samples, or one more batches than another."""
    if world_size() == 1:
        return
    if getattr(getattr(loader, "sampler", None), "num_replicas", 1) != world_size():
        raise ValueError(
            f"train_loader gives each of the {world_size()} processes all samples; "
            f"give it sampler=torch.utils.data.DistributedSampler(dataset, seed=…)"
        )
    if len(set(lengths := gather(len(loader)))) > 1:
        raise ValueError(f"the processes have {lengths} batches, and the one with fewer would be waited for for ever")


def data_parallel(model: nn.Module) -> nn.Module:
    """The model in DistributedDataParallel, which shares its weights; the model itself when there is one process."""
    if world_size() == 1:
        return model
    if (device := next(model.parameters()).device).type not in ("cpu", "cuda"):
        raise ValueError(f"device={device.type!r} cannot exchange gradients between processes; use cpu or cuda")
    return DistributedDataParallel(model)


def share_buffers(*models: nn.Module) -> None:
    """Give the buffers of the main process's models to all: each has the running statistics of its own batches only."""
    if world_size() > 1:
        for buffer in {id(buffer): buffer for model in models for buffer in model.buffers()}.values():
            dist.broadcast(buffer, src=0)


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """Let the batch norms of `model` take their statistics over all processes: over the whole batch, not its parts.

    On a GPU this is torch's SyncBatchNorm, on a CPU, which that refuses, `GlooBatchNorm`. Parameters, buffers and their
    names stay what they are, and a single process notices no difference.
    """
    if next(model.parameters()).is_cuda:
        return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(model))
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, GlooBatchNorm):
                setattr(parent, name, GlooBatchNorm.like(child))
    return model


class GlooBatchNorm(_BatchNorm):
    """Batch norm of (B, C, …) whose mean and variance are those of all processes' batches together.

    The gradient passes through the sums: what one process's pixels do to another's normalisation is part of it.
    """

    @classmethod
    def like(cls, norm: _BatchNorm) -> GlooBatchNorm:
        """One with the parameters and buffers, not copies of them, of `norm`."""
        new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        new._parameters, new._buffers = norm._parameters, norm._buffers
        return new.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"input has the shape {tuple(input.shape)}; needs (B, C, …)")

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, …) -> the same shape."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        others = [0, *range(2, input.ndim)]
        shape = (1, -1, *[1] * (input.ndim - 2))
        count = _sum_over_processes(input.new_tensor(input.numel() / input.shape[1], dtype=torch.float32))
        if count <= 1:
            raise ValueError(f"one value a channel has no variance: the batches of all processes are {tuple(input.shape)}")
        mean = _sum_over_processes(input.float().sum(others)) / count  # (C,)
        centred = input.float() - mean.view(shape)
        variance = _sum_over_processes(centred.square().sum(others)) / count  # of the population: it normalises
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach(), share)
            self.running_var.lerp_(variance.detach() * count / (count - 1), share)  # of a sample: it estimates
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of all processes' values. Each of them is in every process's sum, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(values: Tensor) -> Tensor:
    return cast(Tensor, _SumOverProcesses.apply(values))
