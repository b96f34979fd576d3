"""Checkpoints: one file, written whole or not at all, holding tensors and plain Python types only.

* Written whole or not at all: into a temporary file of the same folder, flushed to the disk (`fsync`), then renamed
  over the old one (`os.replace`). A kill or a full disk on the way leaves the previous checkpoint as it was; a
  temporary file left by a kill has a fixed name, so that the next save takes its place.
* Tensors and plain types only: `torch.load(weights_only=True)` reads it, which runs no code from the file. A whole
  pickled model, by contrast, runs whatever its file says.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FORMAT = "dlcourse checkpoint"
VERSION = 1
PLAIN_TYPES = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message names the file, the reason and the way out."""


def save_checkpoint(path: str | os.PathLike[str], model: nn.Module | None = None, **parts: Any) -> None:
    """Write a checkpoint: the model's weights, its `spec` (name and options, if it has one) and any named parts.

        save_checkpoint("last.pt", model, optimizer=optimizer, epoch=3, best=0.91)

    A part with a `state_dict()` is stored as that; any other must consist of tensors, numbers, texts, lists, tuples and
    dicts (NumPy's numbers are converted). The folder is made when it is missing.

    Raises TypeError naming a part that does not fit, and OSError when the file cannot be written (the disk is full …);
    the previous checkpoint of that name is untouched then.
    """
    if model is not None:
        parts = {"model": model, "spec": getattr(model, "spec", None), **parts}
    contents = {"format": FORMAT, "version": VERSION}
    for name, part in parts.items():
        contents[name] = plain(part.state_dict() if hasattr(part, "state_dict") else part, name)
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    write_atomically(Path(path), buffer.getbuffer())


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote: a dict of "model" (the weights), "spec" and the named parts, on the CPU.

    Raises FileNotFoundError, and CheckpointError for a file that is damaged, foreign, newer or unsafe. No code from the
    file is run.
    """
    path = Path(path)
    with path.open("rb") as file:
        starts_as_zip = file.read(4) == b"PK\x03\x04"
    if not zipfile.is_zipfile(path):
        if starts_as_zip or path.stat().st_size == 0:
            raise CheckpointError(f"{path} is damaged: its end is missing. Delete it and use another checkpoint.")
        raise CheckpointError(f"{path} is not a checkpoint. Give a file that save_checkpoint wrote.")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointError(
            f"{path} is refused: it holds Python objects{f' ({found[1]})' if found else ''}, which can run any code "
            f"when they are loaded. Let its author save the state_dict instead of the whole object."
        ) from None
    except Exception as error:
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint ({type(error).__name__}). Use another checkpoint."
        ) from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} holds no checkpoint of dlcourse. If it is a bare state_dict, load it with "
            f"model.load_state_dict(torch.load(path, weights_only=True))."
        )
    if contents["version"] > VERSION:
        raise CheckpointError(
            f"{path} has format version {contents['version']}, this dlcourse reads up to {VERSION}. Upgrade dlcourse."
        )
    return contents


def load_weights(model: nn.Module, weights: dict[str, Tensor], *, source: str = "the checkpoint") -> None:
    """Load a state_dict into the model. Raises CheckpointError naming what does not fit, and changes nothing then."""
    own = model.state_dict()
    wrong = {
        "only in the model": [name for name in own if name not in weights],
        "only in the checkpoint": [name for name in weights if name not in own],
        "of another shape (model, checkpoint)": [
            f"{name} {tuple(own[name].shape)}, {tuple(weights[name].shape)}"
            for name in own
            if name in weights and own[name].shape != weights[name].shape
        ],
    }
    if problems := [f"{what}: {_first(names)}" for what, names in wrong.items() if names]:
        raise CheckpointError(f"{source} does not fit the model; {'; '.join(problems)}. Create the model it came from.")
    model.load_state_dict(weights)


def plain(value: Any, name: str) -> Any:
    """A copy of tensors and plain types only; NumPy's numbers become Python's. Raises TypeError naming what is left."""
    if isinstance(value, np.generic):
        return plain(value.item(), name)
    if isinstance(value, Tensor):
        return value.detach()
    if type(value) in PLAIN_TYPES:
        return value
    if type(value) in (list, tuple, set):
        return type(value)(plain(item, f"{name}[{i}]") for i, item in enumerate(value))
    if type(value) in (dict, OrderedDict, Counter):
        items = {plain(key, f"a key of {name}"): plain(item, f"{name}.{key}") for key, item in value.items()}
        copy = type(value)(items)
        if hasattr(value, "_metadata"):  # the versions of the modules, which a state_dict carries as an attribute
            copy._metadata = plain(value._metadata, f"{name}._metadata")
        return copy
    hint = "; use .tolist() or torch.from_numpy" if isinstance(value, np.ndarray) else ""
    raise TypeError(f"a checkpoint holds tensors and plain types only, but {name} is a {type(value).__name__}{hint}")


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Put `data` into the file `path` whole, or leave the file as it was and raise OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # on the disk before the rename, or a power cut could leave an empty file
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            text = f"{error.strerror or error} while writing; a previous checkpoint of this name is untouched"
            raise OSError(error.errno, text, str(path)) from error
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last (Windows has no such call, and needs none)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _first(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
