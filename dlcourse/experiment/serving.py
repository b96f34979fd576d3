"""What `dlcourse serve` puts around a model: limits, a key, a monitor with a reference, samples for the page."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np

if TYPE_CHECKING:
    from fastapi import FastAPI

    from dlcourse.deployment import Predictor
    from dlcourse.deployment.drift import Reference
    from dlcourse.experiment.run import Run

KEY_VARIABLE = "DLCOURSE_API_KEY"
REFERENCE_IMAGES = 1000
SAMPLES = 8


def add_flags(parser: Any) -> None:
    """The flags of the service, a --max-… for each of `Limits`."""
    from dlcourse.deployment.limits import Limits
    from dlcourse.experiment.parser import field_texts

    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1: for this machine alone; 0.0.0.0: for every network")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--api-key-file", help=f"a file with the key that X-API-Key must bear; or set {KEY_VARIABLE}. No key: no question"
    )
    parser.add_argument("--monitor", help="folder for a log of the answers and for the reference that drift is held against")
    texts, kinds = field_texts(Limits), get_type_hints(Limits)
    for limit in fields(Limits):
        parser.add_argument(
            f"--max-{limit.name.replace('_', '-')}", type=kinds[limit.name], default=limit.default,
            help=texts.get(limit.name),
        )  # fmt: skip


def make_service(predictor: Predictor, given: Any, run: Run | None) -> FastAPI:
    """The application for what was given on the command line. A run adds samples and the reference; a file alone cannot."""
    from dlcourse.deployment import Limits, create_app

    limits = Limits(**{limit.name: given[f"max_{limit.name}"] for limit in fields(Limits)})
    return create_app(
        predictor, limits=limits, api_key=_api_key(given.api_key_file), samples=_samples(run),
        monitor=_monitor(predictor, Path(given.monitor), run) if given.monitor else None,
    )  # fmt: skip


def _api_key(file: str | None) -> str | None:
    if file is None:
        return os.environ.get(KEY_VARIABLE) or None
    key = Path(file).read_text(encoding="utf-8").strip()
    if not key:
        raise ValueError(f"{file} is empty: it should hold the key")
    return key


def _monitor(predictor: Predictor, folder: Path, run: Run | None) -> Any:
    from dlcourse.deployment.monitoring import PredictionMonitor

    folder.mkdir(parents=True, exist_ok=True)
    reference = None if run is None else _reference(predictor, run)
    if reference is not None:
        (folder / "reference.json").write_text(reference.to_json(), encoding="utf-8")
    return PredictionMonitor(reference, log=folder / "predictions.jsonl")


def _reference(predictor: Predictor, run: Run) -> Reference:
    """The model's answers to the validation images, which it was not trained on."""
    from dlcourse.deployment.drift import Reference

    return Reference.of(predictor, _pictures(run, "val", REFERENCE_IMAGES))


def _samples(run: Run | None) -> list[tuple[str, Any]]:
    """A few pictures of the test images for the page, each under the name of its class."""
    if run is None:
        return []
    try:
        images = run.images()
    except (ValueError, OSError):  # the images stayed on the machine that trained: the page does without
        return []
    part = images.part("test" if "test" in images.parts else "val")
    chosen = np.linspace(0, len(part) - 1, min(SAMPLES, len(part))).round().astype(int)
    return [(images.classes[part.targets[index]], _picture(part, int(index))) for index in chosen]


def _pictures(run: Run, name: str, most: int) -> list[Any]:
    part = run.images().part(name)
    chosen = np.random.default_rng(0).permutation(len(part))[:most]
    return [_picture(part, int(index)) for index in sorted(chosen)]


def _picture(part: Any, index: int) -> Any:
    """An image of a data set as a Predictor takes it: the path of a file, or the pixels (3, H, W)."""
    return part.paths[index] if hasattr(part, "paths") else part.images[index]
