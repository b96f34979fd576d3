"""The parts of a training, each made from its part of the config."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

import dlcourse
from dlcourse.experiment.config import SCHEDULE_WARMUPS, SIZE, Experiment, OptimizerConfig, ScheduleConfig
from dlcourse.training import FocalLoss, layerwise_param_groups, make_scheduler

if TYPE_CHECKING:
    from dlcourse.data import Preprocessing

OPTIMIZERS: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def make_model(experiment: Experiment, classes: int) -> tuple[nn.Module, Preprocessing]:
    """The network, and what it expects of an image."""
    from dlcourse import models
    from dlcourse.data import eval_transform

    wanted, size = experiment.model, experiment.image_size
    if wanted.pretrained:
        model, preprocessing = models.load_pretrained(wanted.name, classes)
        return model, preprocessing if size is None else replace(preprocessing, size=size, resize=None)
    options, size = dict(wanted.options), size or SIZE
    if "img_size" in inspect.signature(getattr(models, wanted.name, models.create_model)).parameters:
        options.setdefault("img_size", size)  # of a ViT, whose positions are made for one size
    return models.create_model(wanted.name, classes, **options), eval_transform(size)


def make_train_transform(experiment: Experiment, preprocessing: Preprocessing) -> Any:
    """The augmentation, with the size, mean and deviation that the network expects."""
    from dlcourse.data import train_transform

    if experiment.augmentation == "none":
        return preprocessing
    return train_transform(preprocessing.size, experiment.augmentation, mean=preprocessing.mean, std=preprocessing.std)


def make_loss(experiment: Experiment) -> nn.Module:
    """The loss of a batch: a mean over its images."""
    if experiment.loss == "focal":
        return FocalLoss()
    return nn.CrossEntropyLoss(label_smoothing=experiment.label_smoothing or 0.0)


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of all the model's parameters."""
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name == "sgd":
        options["momentum"] = 0.9 if config.momentum is None else config.momentum
    groups: Any = model.parameters()
    if config.layer_decay is not None:
        groups = layerwise_param_groups(model, config.lr, config.layer_decay)
    return OPTIMIZERS[config.name](groups, **options)


def make_schedule(config: ScheduleConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler | None:
    """The schedule over a run of `steps` updates."""
    if config.name == "constant":
        return None
    rising = SCHEDULE_WARMUPS[config.name] if config.warmup is None else config.warmup
    options: dict[str, Any] = {"total_steps": steps}
    if config.name == "warmup_cosine":
        options["warmup_steps"] = min(round((rising or 0) * steps), steps - 1)
    elif config.name == "one_cycle":
        options["rising"] = rising
    return make_scheduler(config.name, optimizer, **options)


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is the fastest one here. Raises ValueError for one that is not here."""
    if name == "auto":
        return dlcourse.get_device()
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        usable = " or ".join(kind for kind, available in there.items() if available)
        raise ValueError(f"device={name!r} is not on this machine; use {usable}, or auto")
    return torch.device(name)
