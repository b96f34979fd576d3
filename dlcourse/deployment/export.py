"""A trained model as a file that runs without its code: ONNX, and a program of torch.export. The model card goes inside.

* ONNX (https://onnx.ai): a graph of standard operations with the weights, read by ONNX Runtime and by the compilers of
  phones and accelerators. torch.onnx.export(dynamo=True) writes opset 18 or newer; for an older one it writes 18 all the
  same, so that an older one is refused here. One file, weights inside; beyond the 2 GB that a protobuf can hold, the
  weights go into "model.onnx.data" beside it, and the two belong together: move both, rename neither.
* torch.export (https://docs.pytorch.org/docs/stable/export.html): the graph of ATen operations with the weights.

The exported graph is that of the model in eval mode, in float32, for any batch size and the card's image size. Forward
hooks are left out of it, those of torch itself and of the model's own module excepted. Weights alone: `weights.py`.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlcourse.deployment.card import KEY, ModelCard
from dlcourse.deployment.weights import ExportError, load_safetensors, save_safetensors
from dlcourse.training.checkpoint import write_atomically

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["OPSET", "ExportError", "export_onnx", "export_program", "file_size", "load_safetensors", "save_safetensors"]

OPSET, NEWEST_OPSET = 18, 23
MOST_BYTES_IN_ONE_FILE = 2**31 - 2**24
"""What a protobuf can hold, less room for the graph."""


def export_onnx(model: nn.Module, path: str | os.PathLike[str], card: ModelCard, *, opset: int = OPSET) -> Path:
    """Write the model as one ONNX file: weights inside, any batch size, the card in its metadata. Returns the path.

        export_onnx(model, "clothing.onnx", ModelCard(classes, eval_transform(32)))

    The graph takes "images", float32 (batch, 3, size, size) with the card's size, and gives "logits" (batch, K). The
    model stays as it is, on its device. The folder is made; a file of that name is replaced whole or not at all.

    Raises ValueError for a name without ".onnx" and an opset outside 18 to 23, and ExportError (a ValueError) for a model that
    does not answer such images with a logit for each of the card's classes, or that cannot be traced.
    """
    path = checked_path(path, ".onnx")
    if not OPSET <= opset <= NEWEST_OPSET:
        raise ValueError(
            f"opset={opset} is outside {OPSET} to {NEWEST_OPSET}, which torch writes itself; for an older one it writes "
            f"{OPSET} all the same and says so in a warning only. Leave opset out, and update what reads the file"
        )
    program = trace(model, card)
    with quietly():
        onnx_program = torch.onnx.export(
            program, dynamo=True, opset_version=opset, verbose=False,
            input_names=["images"], output_names=["logits"], dynamic_shapes=any_batch(),
        )  # fmt: skip
    if onnx_program is None or onnx_program.model.opset_imports[""] != opset:
        raise ExportError(f"torch {torch.__version__} cannot write this model with opset={opset}; leave opset out")
    label(onnx_program.model, card)
    write_onnx(onnx_program, path, sum(tensor.nbytes for tensor in program.state_dict.values()))
    return path


def export_program(model: nn.Module, path: str | os.PathLike[str], card: ModelCard) -> Path:
    """Write the model as a ".pt2" file for torch.export.load, any batch size, with the card as an extra file of its own.

        program = torch.export.load("clothing.pt2", extra_files=(extra := {"dlcourse": ""}))
        program.module()(images), ModelCard.from_json(extra["dlcourse"])

    Raises ValueError for a name without ".pt2", and ExportError as `export_onnx` does.
    """
    path = checked_path(path, ".pt2")
    buffer = io.BytesIO()
    with quietly():
        torch.export.save(trace(model, card), buffer, extra_files={KEY: card.to_json()})
    write_atomically(path, buffer.getbuffer())
    return path


def trace(model: nn.Module, card: ModelCard) -> ExportedProgram:
    """The model in eval mode as a graph of ATen operations, for any batch size. Raises ExportError; writes nothing."""
    frozen, example = frozen_copy(model), torch.zeros(2, *card.input_shape)
    with quietly(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            output = frozen(example)
        except Exception as error:
            shape = tuple(example.shape[1:])
            raise ExportError(
                f"the model does not take images of the card's shape {shape}: {first_line(error)}"
            ) from error
        if not isinstance(output, Tensor):
            raise ExportError(
                f"the model gives a {type(output).__name__}; a classifier gives one tensor of logits (B, K)"
            )
        if output.shape != (2, len(card.classes)):
            raise ExportError(
                f"for 2 images the model gives shape {tuple(output.shape)}; the card has {len(card.classes)} classes, "
                f"so (2, {len(card.classes)}) is needed"
            )
        try:
            program = torch.export.export(frozen, (example,), dynamic_shapes=any_batch())
        except Exception as error:
            raise ExportError(f"torch.export cannot trace the model for any batch size: {first_line(error)}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # where the code lies on this machine is nobody's business
    return program


def any_batch() -> tuple[dict[int, Any]]:
    """What torch's exporters are told of their one input: its first axis varies, and is called "batch"."""
    return ({0: torch.export.Dim("batch")},)


def file_size(path: str | os.PathLike[str]) -> int:
    """The bytes that an exported model takes on disk, the weights that lie beside it ("model.onnx.data") included."""
    path = Path(path)
    beside = data_file(path)
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode, float32, on the CPU, without gradients and without the hooks of whoever looks at it."""
    try:
        copied = copy.deepcopy(model)
    except RuntimeError as error:
        raise ExportError(
            f"the model cannot be copied ({first_line(error)}). If it was pruned with torch.nn.utils.prune, make that "
            f"permanent first: prune.remove(module, 'weight')"
        ) from error
    own = ("torch.", type(model).__module__)
    for module in copied.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if not str(getattr(hook, "__module__", "")).startswith(own)]:
                del hooks[key]
    return copied.requires_grad_(False).eval().float().cpu()


def label(model: Any, card: ModelCard) -> None:
    """Write into the graph what it is; take out what the exporter noted of this machine (stack traces) and of its work."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.name = card.name
    model.producer_name, model.producer_version = "dlcourse", f"torch {torch.__version__}"
    model.doc_string = (
        f"{card.name}: images, float32 (batch, {', '.join(map(str, card.input_shape))}), to the logits of "
        f"{len(card.classes)} classes"
    )
    model.metadata_props[KEY] = card.to_json()
    model.metadata_props["classes"] = json.dumps(card.classes, ensure_ascii=False)
    model.metadata_props["preprocessing"] = json.dumps(asdict(card.preprocessing))


def write_onnx(program: Any, path: Path, weights: int) -> None:
    """Put the graph and its weights into one file, or into two when one cannot hold them."""
    data = data_file(path)
    if weights <= MOST_BYTES_IN_ONE_FILE:
        write_atomically(path, program.model_proto.SerializeToString(deterministic=True))
        data.unlink(missing_ok=True)  # of a larger model that had this name
        return
    import onnx_ir

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        onnx_ir.save(program.model, Path(folder, path.name), external_data=data.name)
        Path(folder, data.name).replace(data)
        Path(folder, path.name).replace(path)


def data_file(path: Path) -> Path:
    return path.with_name(path.name + ".data")


def checked_path(path: str | os.PathLike[str], suffix: str) -> Path:
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"the file is to be named *{suffix}, not {path.name!r}: whoever reads it goes by its name")
    return path


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the exporters' warnings of what they deprecate in themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
