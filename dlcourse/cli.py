"""The command `dlcourse`: what the package does, from a shell.

    dlcourse doctor --config run.yaml
    dlcourse doctor --data photos --model.name resnet18 --optimizer.lr 0.1

A config is a YAML file of the fields of `Experiment`; flags after it change single values. Numbers may be written as 1e-4.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class ModelConfig:
    """Which network is trained."""

    name: str = "simple_cnn"
    """A name of `dlcourse.models.list_models()`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Its options, such as {stem: cifar} for a ResNet or {img_size: 32, patch_size: 4} for a ViT."""


@dataclass(frozen=True)
class OptimizerConfig:
    """What changes its weights."""

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    momentum: float = 0.9
    """Of sgd; the others do not use it."""


@dataclass(frozen=True)
class Experiment:
    """A training: data, model, loss and optimizer."""

    data: str = "fashion-mini"
    """A data set by name ("fashion-mini" is embedded), or a folder with the folders train and val (or validation), one
    folder of images a class in each."""
    image_size: int = 32
    """Height and width in pixels to which images of a folder are brought."""
    augmentation: str = "basic"
    """A policy of `train_transform`: none, basic, autoaugment, randaugment, trivialaugment, albumentations."""
    batch_size: int = 64
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: int = 0


def doctor(experiment: Experiment, *, steps: int = 30, json: bool = False) -> int:
    """Diagnose an experiment before it is trained. Prints the report; 0 when it is healthy, 1 when it is not."""
    import torch

    import dlcourse
    from dlcourse.diagnostics import diagnose
    from dlcourse.models import create_model

    device = _device(experiment.device)
    dlcourse.seed_everything(experiment.seed)
    train_loader, val_loader, classes = _loaders(experiment)
    model = create_model(experiment.model.name, num_classes=classes, **experiment.model.options).to(device)
    chosen = experiment.optimizer
    options: dict[str, Any] = {"lr": chosen.lr, "weight_decay": chosen.weight_decay}
    if chosen.name == "sgd":
        options["momentum"] = chosen.momentum
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = kinds[chosen.name](model.parameters(), **options)
    report = diagnose(
        model, train_loader, _loss(experiment.loss), optimizer, val_loader=val_loader, steps=steps, seed=experiment.seed
    )
    print(report.to_json() if json else report)
    return 0 if report.healthy else 1


def _device(name: str) -> Any:
    import torch

    import dlcourse

    if name == "auto":
        return dlcourse.get_device()
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        usable = " or ".join(kind for kind, available in there.items() if available)
        raise ValueError(f"device={name!r} is not on this machine; use {usable}, or auto")
    return torch.device(name)


def _loaders(experiment: Experiment) -> tuple[Any, Any, int]:
    """Training loader, validation loader and number of classes."""
    from dlcourse.data import eval_transform, image_folder, load_dataset, make_loader, train_transform

    size = experiment.image_size
    to_train, to_evaluate = train_transform(size, experiment.augmentation), eval_transform(size)
    folder = Path(experiment.data)
    train: Any
    val: Any
    if folder.is_dir():
        names = [name for name in ("val", "validation") if (folder / name).is_dir()]
        if not (folder / "train").is_dir() or not names:
            raise ValueError(f"data={experiment.data}: the folder needs the folders train and val in it")
        train = image_folder(folder / "train", to_train)
        val = image_folder(folder / names[0], to_evaluate, classes=train.classes)
    elif folder.exists() or len(folder.parts) > 1:
        raise ValueError(f"data={experiment.data} is neither a folder nor the name of a data set")
    else:
        train, val = load_dataset(experiment.data, "train", to_train), load_dataset(experiment.data, "val", to_evaluate)
    train_loader = make_loader(train, experiment.batch_size, train=True, seed=experiment.seed)
    return train_loader, make_loader(val, experiment.batch_size), len(train.classes)


def _loss(name: str) -> Any:
    from torch import nn

    from dlcourse.training import FocalLoss

    return nn.CrossEntropyLoss() if name == "cross_entropy" else FocalLoss()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 well, 1 sick or failed, 2 not understood."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="dlcourse", description="A PyTorch computer-vision course, from a shell.")
    commands = parser.add_subcommands()
    examine = ArgumentParser(
        description="Say why a training will not learn: data, labels, model, loss, gradients and optimizer are examined "
        "on copies. Example: dlcourse doctor --model.name resnet18 --optimizer.name sgd --optimizer.lr 10"
    )
    examine.add_argument("--config", action="config", help="a YAML file of the fields below")
    examine.add_class_arguments(Experiment)
    examine.add_argument("--steps", type=int, default=30, help="length of each short training on one batch")
    examine.add_argument("--json", action="store_true", help="print the report as JSON")
    commands.add_subcommand("doctor", examine, help="say why a training will not learn")
    given = parser.instantiate(parser.parse_args(arguments)).doctor
    experiment = Experiment(**{field.name: given[field.name] for field in fields(Experiment)})
    try:
        return doctor(experiment, steps=given.steps, json=given.json)
    except (ValueError, OSError) as error:
        print(f"dlcourse doctor: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
