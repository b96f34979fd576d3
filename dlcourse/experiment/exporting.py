"""What `Run.export` writes: the file, held against the model in torch before it takes its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dlcourse.experiment.run import Run

CALIBRATION_IMAGES = 256
CHECK_IMAGES = 64


def export(run: Run, kind: str, path: Path) -> Path:
    """Write the run's best weights to `path`; see `Run.export`."""
    from dlcourse.deployment import save_safetensors

    if kind == "safetensors":
        return save_safetensors(run.model(), path, run.card())
    if kind == "onnx":
        return _onnx(run, path)
    from dlcourse.deployment.quantize import quantize_static

    source = _onnx(run, path.with_name("model.onnx"))
    return quantize_static(source, path, pictures(run, "train", CALIBRATION_IMAGES))


def _onnx(run: Run, path: Path) -> Path:
    from dlcourse.deployment import export_onnx
    from dlcourse.deployment.verify import verify_onnx

    model = run.model()
    export_onnx(model, path, run.card())
    try:
        verify_onnx(model, path, pictures(run, "val", CHECK_IMAGES))
    except ValueError:
        path.unlink()  # a file that answers otherwise than the model is worse than none
        raise
    return path


def pictures(run: Run, part: str, count: int) -> np.ndarray:
    """About `count` images of a part, evenly over it, as the network takes them: float32 (N, 3, size, size)."""
    images, preprocessing = run.images().part(part), run.card().preprocessing
    images.transform = preprocessing
    chosen = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    return np.stack([images[int(index)][0].numpy() for index in chosen])
