"""A training to look at, and a guard that an instrument leaves nothing changed."""

import copy
import random
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dlcourse.training import train_one_epoch


class Noisy(TensorDataset):
    """Draws from torch's, NumPy's and Python's global generators, as augmentations do."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.1 * (torch.randn(()) + np.random.normal() + random.gauss(0, 1)), y  # noqa: NPY002


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(128, 4)
    )


def small_data(size=64, kind=TensorDataset):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 1, 6, 6, generator=generator)
    return kind(x, (x.mean((1, 2, 3)) > 0).long() + 2 * (x.std((1, 2, 3)) > 1).long())


def small_batch(size=32):
    return small_data(size).tensors


def trained():
    """Model, optimizer and loader in the middle of a training: momentum, buffers, a gradient, one module in eval mode."""
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loader = DataLoader(small_data(kind=Noisy), 16, shuffle=True, generator=torch.Generator().manual_seed(5))
    train_one_epoch(model, loader, F.cross_entropy, optimizer)
    model[1].eval()
    next(model.parameters()).grad = torch.ones(8, 1, 3, 3)
    return model, optimizer, loader


@contextmanager
def untouched(model, optimizer, loader):
    """Fails unless model, gradients, modes, hooks, optimizer and generators are after the block as before it."""
    before = everything(model, optimizer, loader)
    yield
    assert_equal(before, everything(model, optimizer, loader))


def everything(model, optimizer, loader):
    numbers = np.random.get_state()  # noqa: NPY002
    return {
        "model": copy.deepcopy(model.state_dict()),
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "torch": torch.get_rng_state(),
        "numpy": (numbers[0], torch.from_numpy(numbers[1].astype(np.int64)), *numbers[2:]),
        "python": random.getstate(),
        "generator": loader.generator.get_state(),
    }


def assert_equal(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b
