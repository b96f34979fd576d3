"""A run small enough for a test, with everything in it that draws random numbers or has a state."""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dlcourse.training import EarlyStopping, Trainer, TrainerConfig


class Points(Dataset):
    """Images (1, 6, 6) of two classes; with `augment`, noise from torch's, NumPy's and Python's global generators."""

    def __init__(self, size=44, augment=False, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(size, 1, 6, 6, generator=generator)
        self.labels = (self.images.mean((1, 2, 3)) > 0).long()
        self.augment = augment

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.images[index]
        if self.augment:
            noise = torch.randn(()) + np.random.normal() + random.gauss(0, 1)  # noqa: NPY002
            image = image + 0.1 * float(noise)
        return image, int(self.labels[index])


def small_net(dropout=0.2):
    """conv, batch norm, dropout, linear: buffers and random numbers both."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, 2)
    )


def linear_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 2))


def make_trainer(folder=None, *, callbacks=None, schedule=True, net=small_net, **config):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30) if schedule else None
    settings = {"epochs": 3, "checkpoint_dir": folder, **config}
    if callbacks is None:
        callbacks = [EarlyStopping(patience=50)]
    return Trainer(
        model,
        optimizer,
        nn.functional.cross_entropy,
        scheduler,
        config=TrainerConfig(**settings),
        callbacks=callbacks,
        device="cpu",
    )


def loaders(*, batch_size=8, augment=False, num_workers=0):
    """A plain shuffling DataLoader (44 samples: the sixth batch holds 4) and one for validation."""
    train = DataLoader(Points(augment=augment), batch_size, shuffle=True, num_workers=num_workers)
    return train, DataLoader(Points(30, seed=1), 16)


def assert_same_weights(model, other):
    mine, theirs = model.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    different = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    assert not different
