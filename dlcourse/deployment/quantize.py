"""An exported ONNX model with 8-bit integers in place of 32-bit floats: a quarter of the bytes, faster products.

A number x is stored as q = clamp(round(x / scale) + zero point), and read as (q − zero point) · scale (Jacob et al. 2018,
arXiv:1712.05877). Weights have scales of their own, one a channel; for what flows between the layers there are two ways:

* static: the ranges are measured beforehand, on real images. Convolutions and linear layers compute in integers.
* dynamic: the ranges are measured anew in each call. Only linear layers take part, so this suits transformers; the
  convolutions stay as they are.

Both use ONNX Runtime's quantiser (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html) with
unsigned activations and signed weights, which is what its CPU kernels are fast at, and weights of 7 bits (reduce_range):
a CPU without VNNI instructions adds two products of 8 bits in 16, where 2 · 255 · 127 is too large and 2 · 255 · 64 is
not. One file thus answers alike on every CPU.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlcourse.deployment.backends import OnnxBackend
from dlcourse.deployment.card import KEY, ModelCard
from dlcourse.training.checkpoint import write_atomically

LINEAR = ("MatMul", "Gemm")
STAY_FLOAT = {"BatchNormalization", "InstanceNormalization", "LayerNormalization"}
"""A norm computes in float32 anyway, and its few weights need their precision."""
BATCH = 32
TOO_LARGE = 2**31 - 2**24


def quantize_static(
    source: str | os.PathLike[str], target: str | os.PathLike[str], images: Any, *, per_channel: bool = True
) -> Path:
    """Write `source`, a file of `export_onnx`, to `target` with weights and activations of 8 bits. Returns the target.

    images: real ones, prepared, float32: an array or tensor (N, 3, H, W), or an iterable of batches, of single images or of
        (images, labels). A hundred or two of the training set will do; the ranges of all activations are taken from them.
    per_channel: a scale for each output channel of a weight, not one for all

    The card is kept; its details say what was done under "quantised". The same input gives the same file.
    Raises FileNotFoundError, and ValueError for a file that is no exported model of float32, and for images that do not fit.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    card = card_of_float_model(source, target)
    reader = CalibrationReader(images, card.input_shape)
    with tempfile.TemporaryDirectory(prefix="dlcourse.") as folder:
        prepared, quantised = preprocessed(source, folder), Path(folder, "quantised.onnx")
        quantize(
            prepared, quantised, reader,
            op_types_to_quantize=sorted((QDQRegistry.keys() | QLinearOpsRegistry.keys()) - STAY_FLOAT),
            quant_format=QuantFormat.QDQ, calibrate_method=CalibrationMethod.MinMax,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=per_channel, reduce_range=True,
        )  # fmt: skip
        done = {"method": "static", "activations": "uint8", "calibration images": reader.count}
        return finish(quantised, target, card, done | weight_details(per_channel))


def quantize_dynamic(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, per_channel: bool = True
) -> Path:
    """Write `source`, a file of `export_onnx`, to `target` with linear layers of 8 bits; convolutions stay float32.

    No images are needed: each call measures the ranges of its own activations. Card, result and errors as in
    `quantize_static`; a model without a linear layer is refused.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    card = card_of_float_model(source, target)
    with tempfile.TemporaryDirectory(prefix="dlcourse.") as folder:
        prepared, quantised = preprocessed(source, folder), Path(folder, "quantised.onnx")
        quantize(
            prepared, quantised, op_types_to_quantize=list(LINEAR),
            weight_type=QuantType.QInt8, per_channel=per_channel, reduce_range=True,
        )  # fmt: skip
        done = {"method": "dynamic", "activations": "uint8, measured in each call", "convolutions": "float32"}
        return finish(quantised, target, card, done | weight_details(per_channel))


def card_of_float_model(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> ModelCard:
    """The card of the source, which must be a float32 model of ours."""
    source, target = Path(source), Path(target)
    if not source.is_file():
        raise FileNotFoundError(f"there is no model file {source}")
    for path in (source, target):
        if path.suffix != ".onnx":
            raise ValueError(f"{path.name!r} is no .onnx file: quantisation goes from one ONNX file to another")
    if source.with_name(source.name + ".data").exists() or source.stat().st_size > TOO_LARGE:
        raise ValueError(
            f"{source} has more weights than one protobuf holds; ONNX Runtime's quantiser is for smaller ones"
        )
    text = OnnxBackend(source, threads=1).metadata().get(KEY)
    if text is None:
        raise ValueError(
            f"{source} holds no model card: write it with dlcourse.deployment.export_onnx(model, path, card)"
        )
    card = ModelCard.from_json(text)
    if "quantised" in card.details:
        raise ValueError(f"{source} is quantised already: start from the float32 file")
    return card


def preprocessed(source: str | os.PathLike[str], folder: str) -> Path:
    """The model as the quantiser wants it: constants and batch norms folded in, every shape inferred."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = Path(folder, "prepared.onnx")
    quant_pre_process(Path(source), path, skip_symbolic_shape=True)  # shapes stand in the file that torch wrote
    return path


def weight_details(per_channel: bool) -> dict[str, str]:
    return {"weights": f"int8, {'per channel' if per_channel else 'per tensor'}, 7 bits used"}


def finish(quantised: Path, target: str | os.PathLike[str], card: ModelCard, done: Mapping[str, Any]) -> Path:
    """Give the file its card, and put it in its place."""
    import onnx
    import onnxruntime

    target, model = Path(target), onnx.load(quantised)
    if not any(node.op_type in ("DequantizeLinear", "MatMulInteger") for node in model.graph.node):
        raise ValueError(f"nothing in {card.name!r} could be quantised this way: it has no layer of that kind")
    details = {**card.details, "quantised": {**done, "with": f"onnxruntime {onnxruntime.__version__}"}}
    properties = {entry.key: entry.value for entry in model.metadata_props}
    properties[KEY] = replace(card, details=details).to_json()
    onnx.helper.set_model_props(model, properties)
    model.producer_name, model.producer_version = "dlcourse", f"onnxruntime {onnxruntime.__version__}"
    write_atomically(target, model.SerializeToString(deterministic=True))
    return target


class CalibrationReader:
    """Calibration images in small batches, as ONNX Runtime's calibration asks for them; counts them on the way."""

    def __init__(self, images: Any, shape: tuple[int, ...]) -> None:
        self.count, self.shape = 0, shape
        self._batches = self._whole(self._of(images))
        self._first = next(self._batches, None)
        if self._first is None:
            raise ValueError("images is empty: the ranges of the activations are measured on real images")

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch by the name of the model's input, None after the last one."""
        batch, self._first = self._first, None
        batch = next(self._batches, None) if batch is None else batch
        return None if batch is None else {"images": batch}

    def _of(self, images: Any) -> Iterator[np.ndarray]:
        if isinstance(images, np.ndarray | torch.Tensor):
            images = [images]
        if not isinstance(images, Iterable):
            raise ValueError(f"images is a {type(images).__name__}, not an array of images or an iterable of them")
        for item in images:
            batch = item[0] if isinstance(item, tuple | list) else item
            if isinstance(batch, torch.Tensor):
                batch = batch.detach().cpu().numpy()
            if not isinstance(batch, np.ndarray) or batch.dtype != np.float32 or batch.shape[-3:] != self.shape:
                found = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else f"a {type(batch).__name__}"
                raise ValueError(
                    f"images holds {found}; needs float32 (N, {', '.join(map(str, self.shape))}), prepared by the card's "
                    f"preprocessing"
                )
            batch = batch.reshape(-1, *self.shape)
            if not np.isfinite(batch).all():
                raise ValueError("images holds numbers that are not finite; no range can be measured on them")
            yield batch

    def _whole(self, parts: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The images in batches of BATCH however they came: a batch's size moves the last bits of what is measured."""
        waiting: list[np.ndarray] = []
        for image in chain.from_iterable(parts):
            self.count += 1
            waiting.append(image)
            if len(waiting) == BATCH:
                yield np.stack(waiting)
                waiting = []
        if waiting:
            yield np.stack(waiting)
