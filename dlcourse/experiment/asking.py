"""What `dlcourse predict` and `dlcourse doctor` do, apart from printing it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlcourse
from dlcourse.data.files import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from dlcourse.deployment import Prediction, Predictor
    from dlcourse.experiment.config import Experiment

BATCH = 32


def answers(predictor: Predictor, pictures: Iterable[str]) -> tuple[list[tuple[Path, Prediction]], list[str]]:
    """An answer to each picture, folders searched however deep, and a sentence on each that could not be read."""
    import numpy as np

    found: list[tuple[Path, Prediction]] = []
    unread: list[str] = []
    waiting: list[tuple[Path, Any]] = []
    paths = list(_files(pictures, unread))

    def answer() -> None:
        if waiting:
            predictions = predictor.answer(np.stack([image for _, image in waiting]))
            found.extend(zip([path for path, _ in waiting], predictions, strict=True))
            waiting.clear()

    for path in dlcourse.progress(paths, "answering"):
        try:
            waiting.append((path, predictor.prepare(path)))
        except (ValueError, OSError) as error:
            unread.append(str(error))
        if len(waiting) == BATCH:
            answer()
    answer()
    return found, unread


def _files(pictures: Iterable[str], unread: list[str]) -> Iterator[Path]:
    for path in map(Path, pictures):
        if not path.is_dir():
            yield path
            continue
        inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in IMAGE_SUFFIXES and each.is_file())
        if not inside:
            unread.append(f"the folder {path} holds no image")
        yield from inside


def diagnosis(experiment: Experiment, steps: int) -> Any:
    """The doctor's report on an experiment that was not trained yet."""
    from dlcourse.diagnostics import diagnose
    from dlcourse.experiment.build import find_device, make_loss, make_model, make_optimizer, make_train_transform
    from dlcourse.experiment.data import open_images

    device, images = find_device(experiment.device), open_images(experiment.data, seed=experiment.seed)
    dlcourse.seed_everything(experiment.seed)
    model, preprocessing = make_model(experiment, len(images.classes))
    transform, size = make_train_transform(experiment, preprocessing), experiment.batch_size
    return diagnose(
        model.to(device), images.loader("train", transform, size, train=True, seed=experiment.seed), make_loss(experiment),
        make_optimizer(experiment.optimizer, model), val_loader=images.loader("val", preprocessing, size),
        steps=steps, seed=experiment.seed,
    )  # fmt: skip
