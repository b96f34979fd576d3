"""Images in files: a folder of class folders, or a CSV that names files and labels, checked before the first batch.

Every image arrives as RGB, upright, whatever the file holds: greyscale, palette, transparency, CMYK, 16 bits, an EXIF
rotation. What cannot be read is refused with the path in the message.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import Dataset

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_PIXELS = 64_000_000  # 192 MB as RGB; a small file can claim to hold far more than memory does

Transform = Callable[[torch.Tensor], Any]


def read_image(
    source: str | os.PathLike[str] | bytes | Image.Image,
    *,
    max_pixels: int | None = None,
    formats: Sequence[str] | None = None,
) -> torch.Tensor:
    """An image as a uint8 tensor (3, H, W): RGB, turned upright by its EXIF entry, transparency on white.

    `source` is a path, the bytes of a file, or a Pillow image. `formats` are the kinds of file that are accepted, by
    Pillow's names ("JPEG", "PNG" …); None takes every one. `max_pixels` (default: MAX_PIXELS) is compared with what the
    file claims to hold, before a pixel is decoded.

    Raises FileNotFoundError for a missing file and ValueError, each with the path, for a file that is no image or is
    cut short, for one of too many pixels, and for floating-point pixels, whose range no file states.
    """
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    name = source if isinstance(source, str | os.PathLike) else "the image"
    try:
        with _opened(source, formats) as image:
            width, height = image.size
            if width * height > limit:
                which = "MAX_PIXELS" if max_pixels is None else "max_pixels"
                raise ValueError(f"{width}×{height} pixels are more than {which}={limit:,}")
            pixels = np.array(_as_rgb(ImageOps.exif_transpose(image)))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image {name}") from None
    except Exception as error:  # a damaged file makes Pillow raise OSError, SyntaxError, struct.error, EOFError …
        # Pillow's text for bytes names an object of this process, which says nothing to their sender.
        reason = "its content is not that of an accepted kind" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{name} cannot be read as an image: {reason}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()  # (H, W, 3) -> (3, H, W)


@contextmanager
def _opened(
    source: str | os.PathLike[str] | bytes | Image.Image, formats: Sequence[str] | None
) -> Iterator[Image.Image]:
    if isinstance(source, Image.Image):
        yield source  # it stays open: it is the caller's
        return
    with Image.open(
        io.BytesIO(source) if isinstance(source, bytes) else source, formats=None if formats is None else tuple(formats)
    ) as image:
        yield image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow's own conversion would clip at 255 instead of scaling
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


class ImageFiles(Dataset):
    """Images read from `paths` when they are asked for, with `targets` (ints) that index `classes` (names).

    An item is (image, label). The transform gets a uint8 tensor (3, H, W); without one the image is a float32 tensor
    (3, H, W) in [0, 1], of the size the file has. Reading raises as `read_image` does.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Sequence[int],
        *,
        classes: Sequence[str],
        transform: Transform | None = None,
    ) -> None:
        self.paths = list(paths)
        self.targets = list(targets)
        self.classes = list(classes)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = read_image(self.paths[index])
        return (image / 255 if self.transform is None else self.transform(image)), self.targets[index]


def image_folder(
    root: str | os.PathLike[str], transform: Transform | None = None, classes: Sequence[str] | None = None
) -> ImageFiles:
    """A data set from a folder with one subfolder of images a class, in the order of the names.

    `classes` fixes which class has which index: give the validation folder the training folder's `.classes`, and a
    class that is missing there shifts no other. Without it the classes are the subfolders, sorted by name. Files
    that do not end like an image are left out, and so are hidden ones.

    Raises FileNotFoundError for a root that is no folder, ValueError for a folder without subfolders or images, for a
    class folder without images, for a subfolder that is not among `classes`, and for a link that leaves `root`.
    """
    top = Path(root).resolve()
    if not top.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    found = sorted(entry.name for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise ValueError(f"{root} has no subfolders; it needs one a class, with the images of the class in it")
    names = found if classes is None else _checked_classes(classes)
    if unknown := sorted(set(found) - set(names)):
        raise ValueError(f"{root} has the folder(s) {', '.join(unknown)}, not among the classes {', '.join(names)}")
    paths: list[Path] = []
    targets: list[int] = []
    for name in found:
        images = sorted(_images_in(top / name, top))
        if not images:
            raise ValueError(
                f"the class folder {top / name} holds no image (a file ending in {' '.join(sorted(IMAGE_SUFFIXES))})"
            )
        paths += images
        targets += [names.index(name)] * len(images)
    return ImageFiles(paths, targets, classes=names, transform=transform)


def _images_in(folder: Path, top: Path) -> Iterator[Path]:
    """The image files under `folder`, however deep; ValueError for a link that leads out of `top`."""
    _inside(folder, top)
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            _inside(entry, top)
        if entry.is_dir() and not entry.is_symlink():
            yield from _images_in(entry, top)
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            yield entry


def _inside(path: Path, top: Path) -> Path:
    if not path.resolve().is_relative_to(top):
        raise ValueError(f"{path} leads to {path.resolve()}, outside the folder {top}")
    return path


def _checked_classes(classes: Sequence[str]) -> list[str]:
    names = [str(name) for name in classes]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"classes={names} must be distinct names, at least one")
    return names


class CsvImageDataset(ImageFiles):
    """A data set from a CSV file (UTF-8, with a header) that names image files in `image_dir` and their labels.

    Columns are found by name. Labels are text or numbers, compared as text: "3" is a class, and "3.0" another one.
    `classes` fixes which has which index (give the validation file the training set's `.classes`); without it they
    are the labels of this file, numbers in numerical order, otherwise sorted as text.

    Everything is checked before the first image is read. Raises ValueError, with the line of the file, for a missing
    column, no rows, an empty field, a label outside `classes`, a file that stands there twice (with the same label or
    another) and a path that leaves `image_dir`; FileNotFoundError, with their number and the first few, for missing
    images.
    """

    def __init__(
        self,
        csv_file: str | os.PathLike[str],
        image_dir: str | os.PathLike[str],
        transform: Transform | None = None,
        image_column: str = "filename",
        label_column: str = "label",
        *,
        classes: Sequence[str] | None = None,
    ) -> None:
        top = Path(image_dir).resolve()
        rows = _read_rows(Path(csv_file), image_column, label_column)
        labels = {label for _, _, label in rows}
        names = sorted(labels, key=_in_order(labels)) if classes is None else _checked_classes(classes)
        paths: dict[Path, tuple[int, str]] = {}
        for line, name, label in rows:
            where = f"{csv_file}, line {line}"
            path = (top / name).resolve()
            if not path.is_relative_to(top):
                raise ValueError(f"{where}: {name} leads out of the image directory {image_dir}")
            if label not in names:
                raise ValueError(f"{where}: the label {label!r} is not among the classes {', '.join(names)}")
            if path in paths:
                first, other = paths[path]
                clash = "" if other == label else f", with the labels {other!r} and {label!r}"
                raise ValueError(f"{where}: {name} stands in line {first} too{clash}")
            paths[path] = (line, label)
        if missing := [str(path.relative_to(top)) for path in paths if not path.is_file()]:
            listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            raise FileNotFoundError(f"{len(missing)} of {len(paths)} images are missing in {image_dir}: {listed}")
        index = {name: i for i, name in enumerate(names)}
        super().__init__(list(paths), [index[label] for _, label in paths.values()], classes=names, transform=transform)


def _read_rows(path: Path, image_column: str, label_column: str) -> list[tuple[int, str, str]]:
    """(line, image, label) of every row."""
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = list(table.fieldnames or ())
            for wanted in (image_column, label_column):
                if wanted not in columns:
                    raise ValueError(f"there is no column {wanted!r}; the columns are {', '.join(columns) or 'none'}")
            for row in table:
                fields = [(row[column] or "").strip() for column in (image_column, label_column)]
                if not all(fields):
                    empty = (image_column, label_column)[fields.index("")]
                    raise ValueError(f"line {table.line_num}: the column {empty!r} is empty")
                rows.append((table.line_num, *fields))
    except (ValueError, csv.Error) as error:  # a UnicodeDecodeError is a ValueError
        raise ValueError(f"{path}: {error}") from error
    if not rows:
        raise ValueError(f"{path}: there are no rows under the header")
    return rows  # type: ignore[return-value]


def _in_order(labels: set[str]) -> Callable[[str], Any]:
    """The key to sort classes by: as numbers where all are (and none is nan, which has no place), else as text."""
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return str
    return (lambda label: (numbers[label], label)) if all(map(math.isfinite, numbers.values())) else str
