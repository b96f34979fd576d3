"""A model as a file that needs no code of ours: ONNX, torch.export, safetensors, each with its model card inside."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from dlcourse.deployment.card import KEY, ModelCard
from dlcourse.models import create_model

OPSET = 18


def export_onnx(model: nn.Module, path: str | os.PathLike[str], card: ModelCard, *, opset: int = OPSET) -> Path:
    """Write the model in eval mode as one ONNX file: weights inside, any batch size, the card in its metadata.

    The graph takes "images", float32 (batch, 3, size, size) with the card's size, and gives "logits" (batch, K).
    """
    import onnx

    path = Path(path)
    frozen = copy.deepcopy(model).eval().cpu()
    example = torch.zeros(2, *card.input_shape)
    program = torch.onnx.export(
        frozen, (example,), dynamo=True, opset_version=opset, verbose=False,
        input_names=["images"], output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {KEY: card.to_json()})
    path.write_bytes(proto.SerializeToString())
    return path


def save_safetensors(model: nn.Module, path: str | os.PathLike[str], card: ModelCard) -> Path:
    """Write the weights, with the card and the model's `spec` in the header."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, {KEY: card.to_json(), "spec": json.dumps(model.spec)})
    return Path(path)


def load_safetensors(path: str | os.PathLike[str]) -> tuple[nn.Module, ModelCard]:
    """Build the model that `save_safetensors` wrote, and its card."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    spec = json.loads(metadata["spec"])
    model = create_model(spec["name"], spec["num_classes"], spec["in_channels"], **spec["options"])
    model.load_state_dict(tensors)
    return model.eval(), ModelCard.from_json(metadata[KEY])
