"""What computes: a model in torch, or a file in ONNX Runtime. Both take a NumPy batch and return one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from dlcourse.deployment.card import KEY, ModelCard
from dlcourse.runtime import usable_cores


class Backend(Protocol):
    """float32 (B, 3, H, W) -> float32 (B, K)."""

    name: str

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


class TorchBackend:
    """A model of torch, in eval mode and without gradients, on the device where its parameters are."""

    name = "torch"

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        from dlcourse.evaluation.predictions import in_eval_mode

        with torch.inference_mode(), in_eval_mode(self.model):
            return self.model(torch.from_numpy(images).to(self.device)).float().cpu().numpy()


class OnnxBackend:
    """A file in ONNX Runtime on the CPU, with `threads` threads."""

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        # A waiting thread that spins takes the core from whoever reads the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has an exception of its own for each of its states
            raise ValueError(f"{path} cannot be read as an ONNX model: {str(error).splitlines()[0]}") from error
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                f"{path} has {len(inputs)} inputs and {len(outputs)} outputs; a classifier has one of each"
            )
        self.input = inputs[0].name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.session.run(None, {self.input: images})[0]

    def metadata(self) -> dict[str, Any]:
        """The texts that the file holds beside the graph."""
        return dict(self.session.get_modelmeta().custom_metadata_map)


def open_backend(path: Path, threads: int | None) -> tuple[Backend, ModelCard]:
    """What computes the file's model, and its card. Raises ValueError for a file of another kind or without a card."""
    if path.suffix == ".onnx":
        backend = OnnxBackend(path, threads)
        found = backend.metadata()
        if KEY not in found:
            raise ValueError(
                f"{path} holds no model card: write it with dlcourse.deployment.export_onnx(model, path, card)"
            )
        return backend, ModelCard.from_json(found[KEY])
    if path.suffix == ".safetensors":
        from dlcourse.deployment.weights import load_safetensors

        model, card = load_safetensors(path)
        if threads:
            torch.set_num_threads(threads)
        return TorchBackend(model.eval()), card
    raise ValueError(f"{path} is neither a .onnx nor a .safetensors file")
