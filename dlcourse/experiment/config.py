"""An experiment as one frozen value: everything that decides what a training ends with, and nothing of the machine.

The docstring under each field is what `dlcourse train --help` shows. A field that is None takes the default of what was
chosen; setting one that the choice does not use is an error, so that no value of a config goes unread.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

SIZE = 32
"""Pixels along a side, of a model without pretrained weights, when no image_size is given."""
SCHEDULE_WARMUPS: dict[str, float | None] = {"constant": None, "cosine": None, "warmup_cosine": 0.1, "one_cycle": 0.3}
"""The share of a run in which the rate rises; None for a schedule in which it never does."""


class ConfigError(ValueError):
    """A config that cannot be used; the message names the key."""


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: str = "simple_cnn"
    """A name of list_models(); with pretrained also efficientnet_lite0, timm/… or torchvision/…."""
    pretrained: bool = False
    """Start from published weights and use the preprocessing that belongs to them (see load_pretrained)."""
    options: dict[str, Any] = field(default_factory=dict)
    """What the network takes beside the number of classes, such as {dropout: 0.4} or {stem: cifar}."""

    def __post_init__(self) -> None:
        if self.pretrained:
            if self.options:
                raise ConfigError(
                    f"model.options={self.options} is not used: pretrained weights have the options they were trained with"
                )
            return
        _check_model(self.name, self.options)


@dataclass(frozen=True)
class OptimizerConfig:
    """What changes the weights."""

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = 1e-3
    """The learning rate, at its highest if a schedule changes it."""
    weight_decay: float = 0.01
    momentum: float | None = None
    """Of sgd (0.9 when it is not given)."""
    layer_decay: float | None = None
    """Each layer learns at this share of the rate of the layer above it, for fine-tuning (0.8 is common)."""

    def __post_init__(self) -> None:
        _within("optimizer.lr", self.lr, low=0, above=True)
        _within("optimizer.weight_decay", self.weight_decay, low=0)
        if self.momentum is not None:
            if self.name != "sgd":
                raise ConfigError(f"optimizer.momentum={self.momentum} is not used: {self.name} has none, sgd has")
            _within("optimizer.momentum", self.momentum, low=0, high=1)
        if self.layer_decay is not None:
            _within("optimizer.layer_decay", self.layer_decay, low=0, high=1, above=True)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes in the course of the run."""

    name: Literal["constant", "cosine", "warmup_cosine", "one_cycle"] = "constant"
    warmup: float | None = None
    """The share of the run in which the rate rises, of warmup_cosine (0.1 when it is not given) and one_cycle (0.3)."""

    def __post_init__(self) -> None:
        if self.warmup is not None:
            if SCHEDULE_WARMUPS[self.name] is None:
                having = " and ".join(name for name, share in SCHEDULE_WARMUPS.items() if share is not None)
                raise ConfigError(f"schedule.warmup={self.warmup} is not used: {self.name} has none, {having} have")
            _within("schedule.warmup", self.warmup, low=0, high=0.9)


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how; see TrainerConfig for more on each."""

    epochs: int = 10
    """Passes over the training images."""
    amp: Literal["off", "bf16", "fp16"] = "off"
    """Mixed precision."""
    accumulate: int = 1
    """Batches a step."""
    clip_norm: float | None = None
    """The largest norm of the gradient; null does not clip."""
    channels_last: bool = False
    """Images as (B, H, W, C) in memory: faster convolutions on many machines."""
    sync_batch_norm: bool = False
    """On several processes (torchrun): batch norm over the whole batch, not over each process's part of it."""
    ema: float | None = None
    """Decay of a moving average of the weights, such as 0.999; the average is what is evaluated and kept."""
    patience: int | None = None
    """Stop after so many epochs without a better monitored value; null never stops early."""
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"
    """What says which epoch is the best, whose weights are kept."""
    checkpoint_every: int | None = None
    """Save the run every so many steps, not only after each epoch: a kill then loses fewer."""

    def __post_init__(self) -> None:
        from dlcourse.training import EarlyStopping

        try:
            self.trainer_config(seed=0, folder=".")
            if self.patience is not None:
                EarlyStopping(self.patience)
        except ValueError as error:
            raise ConfigError(f"training.{error}") from None

    def trainer_config(self, *, seed: int, folder: Any, verbose: bool = False) -> Any:
        """The settings as a `Trainer` takes them; it saves the run in `folder`."""
        from dlcourse.training import TrainerConfig

        values = {name: value for name, value in vars(self).items() if name != "patience"}
        return TrainerConfig(**values, seed=seed, checkpoint_dir=folder, verbose=verbose)


@dataclass(frozen=True)
class Experiment:
    """A whole training: data, model, loss, optimizer, schedule, and how long."""

    name: str = "experiment"
    """Of the run's folder, runs/<name>-<n>, and of the model in its card."""
    data: str = "fashion-mini"
    """A data set by name (fashion-mini is embedded), or a folder: with the folders train, val (or validation) and test,
    in each of them a folder of images a class; or with the class folders alone, which the run then splits."""
    image_size: int | None = None
    """Height and width in pixels to which images are brought; null is 32, or what pretrained weights expect."""
    augmentation: Literal["none", "basic", "autoaugment", "randaugment", "trivialaugment", "albumentations"] = "basic"
    """A policy of train_transform."""
    batch_size: int = 64
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    label_smoothing: float | None = None
    """Of cross_entropy: this share of each label is spread over all classes (0 when it is not given)."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ConfigError(f"name={self.name!r} must be usable as a folder: letters, digits and - _ . in it")
        if self.image_size is not None:
            _within("image_size", self.image_size, low=2)
        _within("batch_size", self.batch_size, low=1)
        _within("seed", self.seed, low=0, high=2**32 - 1)
        if self.label_smoothing is not None:
            if self.loss != "cross_entropy":
                raise ConfigError(f"label_smoothing={self.label_smoothing} is not used: cross_entropy has it, {self.loss} not")
            _within("label_smoothing", self.label_smoothing, low=0, high=0.99)
        if self.model.options.get("img_size", size := self.image_size or SIZE) != size:
            raise ConfigError(f"model.options.img_size={self.model.options['img_size']} but image_size={size}: give image_size")

    def to_dict(self) -> dict[str, Any]:
        """All values, nested as in a config file."""
        return asdict(self)

    def to_yaml(self) -> str:
        """The config file that gives this experiment again."""
        import yaml  # type: ignore[import-untyped]

        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def _check_model(name: str, options: dict[str, Any]) -> None:
    """Complain of a model or an option that does not exist or does not fit, by building the network without its numbers."""
    import torch

    from dlcourse import models

    if name not in models.list_models() and (name == models.pretrained.OFFLINE or "/" in name):
        raise ConfigError(f"model.name={name!r} exists with its trained weights only: set model.pretrained to true")
    try:
        with torch.device("meta"):
            models.create_model(name, 2, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model: {error}") from None


def _within(key: str, value: float, *, low: float, high: float = math.inf, above: bool = False) -> None:
    if not (math.isfinite(value) and low <= value <= high and (value > low or not above)):
        bounds = f"above {low:g}" if above else f"at least {low:g}"
        raise ConfigError(f"{key}={value:.10g} must be {bounds}{f' and at most {high:.10g}' if high < math.inf else ''}")


def nearest(word: str, known: list[str]) -> str:
    """The known word that looks most like this one."""
    return get_close_matches(word.lower(), known, n=1, cutoff=0)[0]
