"""The data sets of the course by name, each served as 32×32 RGB so that every model of the course takes it.

fashion-mini   6,000 training and 1,000 test images of Fashion-MNIST, embedded in the package (assets/fashion_mini)
fashion-mnist  all of it: 60,000 and 10,000 (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), through torchvision
cifar10        50,000 and 10,000 colour images (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny
               Images"), through torchvision

A tenth of the training images of each class is the validation split, the same on every machine.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from dlcourse.data.splits import stratified_split

DATASETS = ("fashion-mini", "fashion-mnist", "cifar10")
SPLITS = ("train", "val", "test")
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip
FASHION_MINI_SHA256 = "72ec4b534ea670e09d75d4e8e4a8696fbc8fc84b8c94e0386845e8a2772f8b69"

Transform = Callable[[torch.Tensor], Any]


class ImageArrays(Dataset):
    """Images of one size, held in memory as one uint8 tensor of shape (N, 3, H, W).

    An item is (image, label). The transform gets a uint8 tensor (3, H, W) of its own; without one the image is a
    float32 tensor in [0, 1]. `classes` are the names, `targets` the labels as a list of ints that index them.
    """

    def __init__(
        self,
        images: torch.Tensor,
        targets: Sequence[int],
        *,
        classes: Sequence[str],
        transform: Transform | None = None,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"images is {images.dtype} of shape {tuple(images.shape)}; needs uint8 of shape (N, 3, H, W)"
            )
        if len(images) != len(targets):
            raise ValueError(f"images holds {len(images)} images, targets {len(targets)} labels")
        self.images = images
        self.targets = [int(target) for target in targets]
        self.classes = list(classes)
        self.transform = transform
        outside = sorted({target for target in self.targets if not 0 <= target < len(self.classes)})
        if outside:
            raise ValueError(
                f"targets holds {outside[:5]}, outside the {len(self.classes)} classes 0 … {len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.images[index]
        if self.transform is None:
            return image / 255, self.targets[index]
        return self.transform(image.clone()), self.targets[index]  # a transform may write into what it is given


def load_dataset(
    name: str,
    split: str,
    transform: Transform | None = None,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> ImageArrays:
    """One split of a data set of the course: items (image, int label), `.classes`, `.targets`.

    name       "fashion-mini" (no network, ever), "fashion-mnist" or "cifar10"
    split      "train", "val" or "test"; train and val together are the published training set, and share no image
    transform  gets a uint8 tensor (3, 32, 32); without one the image is a float32 tensor (3, 32, 32) in [0, 1]
    root       where torchvision keeps its files: by default the environment variable DLCOURSE_DATA, else ./data
    download   lets torchvision fetch what is missing under `root`

    28×28 images are padded with zeros to 32×32 and their grey channel is repeated three times.

    Raises ValueError for another name or split, FileNotFoundError when the files are missing or damaged (with the way
    out), RuntimeError when the embedded file is not the one that was published (file and both checksums named).
    """
    if name not in DATASETS:
        nearest = get_close_matches(str(name), DATASETS, n=1) or DATASETS
        raise ValueError(f"name={name!r} is not a data set; did you mean {' or '.join(map(repr, nearest))}?")
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}")
    part = "test" if split == "test" else "train"
    if name == "fashion-mini":
        pixels, labels = _read_fashion_mini(part)
        classes = list(FASHION_CLASSES)
    else:
        folder = Path(root if root is not None else os.environ.get("DLCOURSE_DATA", "data"))
        pixels, labels, classes = _read_torchvision(name, part, folder, download)
    if split != "test":
        halves = stratified_split(labels, val=0.1, test=0.0, seed=0)
        chosen = halves.train if split == "train" else halves.val
        pixels, labels = pixels[chosen], labels[chosen]
    return ImageArrays(_as_rgb32(pixels), labels.tolist(), classes=classes, transform=transform)


def _read_fashion_mini(part: str) -> tuple[np.ndarray, np.ndarray]:
    path = _asset("fashion_mini/fashion_mini.npz")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != FASHION_MINI_SHA256:
        raise RuntimeError(
            f"{path} is damaged: its SHA-256 is {found}, expected {FASHION_MINI_SHA256}; reinstall dlcourse"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays[f"{part}_images"], arrays[f"{part}_labels"]


def _asset(name: str) -> Path:
    """A file of assets/: inside the package when it came in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    places = [package / "_assets" / name, package.parent / "assets" / name]
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name} is neither at {places[0]} nor at {places[1]}; reinstall dlcourse")


def _read_torchvision(name: str, part: str, root: Path, download: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    from torchvision import datasets

    kind = datasets.CIFAR10 if name == "cifar10" else datasets.FashionMNIST
    try:
        source = kind(root, train=part == "train", download=download)
    except (RuntimeError, OSError) as error:
        if download:
            raise OSError(f"{name} could not be downloaded to {root}: {error}") from error
        raise FileNotFoundError(
            f"{name} is not under {root.resolve()}, or its files are damaged. Download it with "
            f"load_dataset({name!r}, …, download=True), or say where it lies: root=…, or the variable DLCOURSE_DATA"
        ) from error
    return np.asarray(source.data), np.asarray(source.targets), list(source.classes)


def _as_rgb32(pixels: np.ndarray) -> torch.Tensor:
    """(N, 28, 28) or (N, 32, 32, 3) -> (N, 3, 32, 32), uint8."""
    if pixels.ndim == 4:
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    padded = torch.nn.functional.pad(torch.from_numpy(pixels), (2, 2, 2, 2))
    return padded[:, None].repeat(1, 3, 1, 1)
