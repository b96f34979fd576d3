"""The images of an experiment: three parts of one data set, by name or from a folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DistributedSampler

from dlcourse.data import (
    ImageFiles,
    Split,
    image_folder,
    load_dataset,
    load_split,
    make_loader,
    save_split,
    stratified_split,
)
from dlcourse.data.datasets import DATASETS
from dlcourse.training.distributed import evaluation_part, rank, world_size

SHARES = {"val": 0.15, "test": 0.15}
"""Of a folder that has no parts of its own."""


@dataclass(frozen=True)
class Images:
    """The parts "train", "val" and, where there is one, "test": data sets with `.classes`, `.targets`, `.transform`."""

    parts: dict[str, Any]
    split: Split | None = None
    """How a folder without parts was split."""

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the labels."""
        return self.parts["train"].classes

    def facts(self) -> dict[str, Any]:
        """Classes, counts, and for files a digest of their names, by which a run knows its images again."""
        found: dict[str, Any] = {
            "classes": self.classes,
            "images": {name: len(part) for name, part in self.parts.items()},
        }
        if isinstance(self.parts["train"], ImageFiles):
            names = [f"{part}/{path.parent.name}/{path.name}" for part, files in self.parts.items() for path in files.paths]
            found["files"] = hashlib.sha256("\n".join(names).encode()).hexdigest()
        return found

    def loader(self, part: str, transform: Any, batch_size: int, *, train: bool = False, seed: int = 0) -> Any:
        """A loader of a part under a transform; on several processes, of the share of it that falls to this one."""
        dataset = self.part(part)
        dataset.transform = transform
        if world_size() == 1:
            return make_loader(dataset, batch_size, train=train, seed=seed)
        sampler: Any = DistributedSampler(dataset, seed=seed) if train else evaluation_part(len(dataset))
        return make_loader(dataset, batch_size // world_size(), train=train, sampler=sampler, seed=seed + rank())

    def part(self, name: str) -> Any:
        """A part by name. Raises ValueError for one that there is not."""
        if name not in self.parts:
            raise ValueError(f"there is no part {name!r} of these images; there are {', '.join(self.parts)}")
        return self.parts[name]


def open_images(data: str, *, seed: int = 0, split: Path | None = None, download: bool = False) -> Images:
    """The images that `Experiment.data` names; `split` is the file of a split that was made before.

    `download` lets a data set of that name be fetched where it is missing.

    Raises ValueError and FileNotFoundError, naming the data, when it is not there or not as it must be.
    """
    folder = Path(data)
    if data in DATASETS and not folder.is_dir():
        return Images({part: load_dataset(data, part, download=download) for part in ("train", "val", "test")})
    if not folder.is_dir():
        if folder.exists() or len(folder.parts) > 1:
            raise ValueError(f"data={data} is neither a folder nor the name of a data set")
        load_dataset(data, "train")  # complains, with the nearest name
    names = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    val = next((name for name in ("val", "validation") if name in names), None)
    if not names or bool(val) != ("train" in names):
        raise ValueError(
            f"data={data}: the folder needs the folders train and val (and test) in it, or a folder of images for each class"
        )
    images = _given_parts(folder, val, "test" in names) if val else _own_split(folder, seed, split)
    if len(images.classes) < 2:
        raise ValueError(f"data={data} has one class, {images.classes[0]}; to tell apart there must be two")
    return images


def _given_parts(folder: Path, val: str, has_test: bool) -> Images:
    train = image_folder(folder / "train")
    parts = {"train": train, "val": image_folder(folder / val, classes=train.classes)}
    if has_test:
        parts["test"] = image_folder(folder / "test", classes=train.classes)
    return Images(parts)


def _own_split(folder: Path, seed: int, saved: Path | None) -> Images:
    every = image_folder(folder)
    if saved is not None and saved.exists():
        split = load_split(saved)
        if sum(map(len, split)) != len(every):
            raise ValueError(f"{folder} holds {len(every)} images, but {saved} splits {sum(map(len, split))}")
    else:
        split = stratified_split([every.classes[label] for label in every.targets], **SHARES, seed=seed)
    parts = {
        name: ImageFiles([every.paths[i] for i in indices], [every.targets[i] for i in indices], classes=every.classes)
        for name, indices in split._asdict().items()
    }
    return Images(parts, split)


def write_split(images: Images, path: Path) -> None:
    """Save how the images were split, where they were and it is not saved yet."""
    if images.split is not None and not path.exists():
        half_written = path.with_name(path.name + ".tmp")
        save_split(half_written, images.split)
        half_written.replace(path)
