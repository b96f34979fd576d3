"""Weights without code: safetensors (https://github.com/huggingface/safetensors), the tensors behind a header of JSON.

The file begins with the length of the header (8 bytes, little endian), then the header: for each tensor its dtype, shape
and place, and texts. We put the model card there and the model's `spec` (name and options), from which `create_model`
builds the module again. Unlike a pickle the file cannot run anything when it is read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from dlcourse.deployment.card import KEY, ModelCard
from dlcourse.models import create_model
from dlcourse.training.checkpoint import CheckpointError, load_weights, write_atomically


class ExportError(ValueError):
    """A model that cannot be exported as asked, or a file that does not answer as its model does."""


def save_safetensors(model: nn.Module, path: str | os.PathLike[str], card: ModelCard) -> Path:
    """Write the weights, with the card and the model's `spec` in the header. The folder is made.

    Raises ValueError for a name without ".safetensors", and ExportError for a model that `create_model` would not build
    again: export that as ONNX, which holds the computation too.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"the file is to be named *.safetensors, not {path.name!r}: whoever reads it goes by its name")
    spec = getattr(model, "spec", None)
    if not isinstance(spec, dict):
        raise ExportError(
            f"a {type(model).__name__} without a `spec` was not built by create_model, so that weights alone do not bring "
            f"it back; export_onnx writes the computation with them"
        )
    # A tensor that two layers share is written twice: the format knows no sharing, and loading fills both from one.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    try:
        load_weights(_empty(spec), tensors, source="the model")
    except CheckpointError as error:
        raise ExportError(f"the model was changed after create_model built it; use export_onnx. {error}") from None
    if spec["num_classes"] != len(card.classes):
        raise ExportError(f"the model has {spec['num_classes']} outputs, the card {len(card.classes)} classes")
    write_atomically(path, save(tensors, {KEY: card.to_json(), "spec": json.dumps(spec)}))
    return path


def load_safetensors(path: str | os.PathLike[str]) -> tuple[nn.Module, ModelCard]:
    """Build the model that `save_safetensors` wrote, in eval mode on the CPU, and read its card.

    Raises FileNotFoundError, and ValueError naming the file for one that is damaged, of another kind, or does not fit.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}") from None
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    if missing := [key for key in (KEY, "spec") if key not in metadata]:
        raise ValueError(
            f"{path} holds no {' and no '.join(missing)}: write it with save_safetensors(model, path, card)"
        )
    try:
        card, model = ModelCard.from_json(metadata[KEY]), _empty(json.loads(metadata["spec"]))
        load_weights(model, tensors, source=str(path))
    except (CheckpointError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} cannot be used: {type(error).__name__}: {error}") from error
    return model.eval(), card


def _empty(spec: dict) -> nn.Module:
    """The model that a spec names, with room for its weights and nothing in it: no number is drawn."""
    with torch.device("meta"):
        model = create_model(spec["name"], spec["num_classes"], spec["in_channels"], **spec["options"])
    return model.to_empty(device="cpu")
