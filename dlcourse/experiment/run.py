"""A run's folder: what a training leaves behind, and what can be made of it.

    config.yaml       the experiment, with every value         history.csv, history.png   metrics of each epoch
    environment.json  versions, machine, commit, seed          last.pt                    all that resuming needs
    data.json         classes, counts, digest of the files     best.pt                    the best weights, with their card
    split.csv         of a folder that the run split itself    metrics.json, confusion.png, model.onnx …  made later

Every file is written whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import dlcourse
from dlcourse.experiment.config import Experiment
from dlcourse.training import History, load_checkpoint, load_weights
from dlcourse.training.checkpoint import write_atomically
from dlcourse.training.config import MONITORS

if TYPE_CHECKING:
    from torch import nn

    from dlcourse.deployment import ModelCard, Predictor
    from dlcourse.experiment.data import Images

RUNS = Path("runs")
MADE_HERE = (
    "config.yaml", "environment.json", "data.json", "split.csv", "history.csv", "history.png", "last.pt", "best.pt",
    "metrics.json", "confusion.png", "confusion-val.png", "confusion-train.png",
    "model.onnx", "model-int8.onnx", "model.safetensors",
)  # fmt: skip
EXPORTS = {"onnx": "model.onnx", "int8": "model-int8.onnx", "safetensors": "model.safetensors"}


class Run:
    """A training in its folder, begun or over.

        run = Run("runs/fashion-mini-1")
        run.evaluate("test")["accuracy"]

    Raises FileNotFoundError for a folder that holds no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.interrupted = False
        """Whether `train` was ended by Ctrl-C."""
        if not (self.folder / "config.yaml").is_file():
            raise FileNotFoundError(f"{folder} holds no run (it has no config.yaml); dlcourse train makes one")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @classmethod
    def create(cls, experiment: Experiment, folder: str | Path | None = None, *, overwrite: bool = False) -> Run:
        """Begin a run in `folder`; None takes the next free runs/<name>-<n>.

        Raises FileExistsError, which says what to do, for a folder that holds something already. `overwrite` deletes the
        run that is there, and nothing that a run does not make.
        """
        path = _free_folder(experiment.name) if folder is None else Path(folder)
        if path.is_dir() and any(path.iterdir()):
            if not (path / "config.yaml").exists():
                raise FileExistsError(f"{path} is not empty and holds no run: give a new folder")
            if not overwrite:
                raise FileExistsError(
                    f"{path} holds a run already. Go on with it: --resume (resume=True). Delete it: --overwrite "
                    f"(overwrite=True). Or give another folder."
                )
            for name in reversed(MADE_HERE):  # config.yaml last: until then it is a run
                (path / name).unlink(missing_ok=True)
        write_atomically(path / "config.yaml", experiment.to_yaml().encode())
        return cls(path)

    @property
    def experiment(self) -> Experiment:
        """What was trained, as it was written when the run began."""
        from dlcourse.experiment.parser import load_config

        return load_config(self.folder / "config.yaml")

    @property
    def history(self) -> History:
        """The metrics of each epoch that is over."""
        history = History()
        if (self.folder / "history.csv").exists():
            with (self.folder / "history.csv").open(newline="", encoding="utf-8") as file:
                rows = csv.DictReader(file)
                history = History({k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in rows)
            monitor = self.experiment.training.monitor
            choose = max if MONITORS[monitor] == "max" else min
            history.best_epoch = 1 + history[monitor].index(choose(history[monitor]))
        return history

    def model(self) -> nn.Module:
        """The network with the weights of the best epoch, in eval mode, on the CPU."""
        from dlcourse.experiment.build import make_model

        saved = self._best()
        with torch.random.fork_rng(devices=[]):  # the weights it is made with are thrown away
            model, _ = make_model(self.experiment, len(self.card().classes))
        load_weights(model, saved["model"], source=str(self.folder / "best.pt"))
        return model.eval()

    def card(self) -> ModelCard:
        """Classes and preprocessing, with what is known of the model: data, seed, and the metrics measured so far."""
        from dlcourse.deployment import ModelCard

        card, experiment = ModelCard.from_json(self._best()["card"]), self.experiment
        details = {**card.details, "data": Path(experiment.data).name, "network": experiment.model.name, "seed": experiment.seed}
        for split, measured in self.metrics().items():
            details[split] = {key: value for key, value in measured.items() if key not in ("split", "classes")}
        return ModelCard(card.classes, card.preprocessing, card.name, details)

    def metrics(self) -> dict[str, Any]:
        """What `evaluate` measured so far, by split."""
        path = self.folder / "metrics.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def images(self) -> Images:
        """The images of the run. Raises ValueError when they are not those that it was trained with."""
        from dlcourse.experiment.data import open_images

        experiment = self.experiment
        images = open_images(experiment.data, seed=experiment.seed, split=self.folder / "split.csv")
        self.check_images(images)
        return images

    def check_images(self, images: Images) -> None:
        """Raise ValueError, saying what differs, for other images than the run began with."""
        path = self.folder / "data.json"
        then, now = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}, images.facts()
        for fact, value in then.items():
            if now.get(fact) != value:
                differ = "the names of the files differ" if fact == "files" else f"{fact} {value} then, {now.get(fact)} now"
                raise ValueError(f"data={self.experiment.data} is not what {self.folder} was trained with: {differ}")

    def evaluate(self, split: str = "test") -> dict[str, Any]:
        """Measure the best weights on a part of the images; writes metrics.json and confusion.png.

        The accuracy comes with the 95 % interval within which another such set of images would have put it.
        """
        from dlcourse.experiment.measure import measure
        from dlcourse.plotting import plot_confusion_matrix

        images, card, experiment = self.images(), self.card(), self.experiment
        loader = images.loader(split, card.preprocessing, experiment.batch_size)
        device = torch.device("cpu") if experiment.device == "cpu" else dlcourse.get_device()
        metrics, matrix = measure(self.model().to(device), loader, card.classes)
        metrics = {"split": split, **metrics}
        self.write_json("metrics.json", {**self.metrics(), split: metrics})
        name = "confusion.png" if split == "test" else f"confusion-{split}.png"
        title = f"{card.name}: accuracy {metrics['accuracy']:.3f} on {metrics['images']:,} {split} images"
        self.write_figure(name, lambda: plot_confusion_matrix(matrix, card.classes, title=title))
        return metrics

    def export(self, kind: str = "onnx") -> Path:
        """Write the best weights as a file of their own: "onnx", "int8" (ONNX, quantised) or "safetensors".

        An ONNX file is held against torch before it is left there. Raises ValueError for another kind.
        """
        from dlcourse.experiment.exporting import export

        if kind not in EXPORTS:
            raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(EXPORTS)}")
        return export(self, kind, self.folder / EXPORTS[kind])

    def predictor(self) -> Predictor:
        """What answers to pictures: model.onnx, when it was exported after the last training, else the weights in torch."""
        from dlcourse.deployment import Predictor

        exported, weights = self.folder / EXPORTS["onnx"], self.folder / "best.pt"
        if exported.exists() and weights.exists() and exported.stat().st_mtime >= weights.stat().st_mtime:
            return Predictor(exported)
        return Predictor.of(self.model(), self.card())

    def write_json(self, name: str, value: Any) -> None:
        """A file of the run, as JSON."""
        write_atomically(self.folder / name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def write_figure(self, name: str, draw: Any) -> None:
        """A file of the run, as PNG, of what `draw` returns: Axes, in the style of the course."""
        import matplotlib.pyplot as plt

        from dlcourse.plotting import use_style

        picture = io.BytesIO()
        with plt.rc_context():
            use_style()
            figure = draw().figure
            figure.savefig(picture, format="png", dpi=120)
            plt.close(figure)
        write_atomically(self.folder / name, picture.getbuffer())

    def write_history(self, records: Iterable[dict[str, float]]) -> None:
        """history.csv of these epochs."""
        rows, text = list(records), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.folder / "history.csv", text.getvalue().encode())

    def _best(self) -> dict[str, Any]:
        if not (self.folder / "best.pt").exists():
            raise FileNotFoundError(f"{self.folder} has no weights yet: no epoch is over. dlcourse train --resume goes on")
        return load_checkpoint(self.folder / "best.pt")


def newest_run(root: str | Path = RUNS) -> Path:
    """The folder of the run that was trained last. Raises FileNotFoundError when there is none."""
    begun = [path.parent for path in Path(root).glob("*/config.yaml")]
    if not begun:
        raise FileNotFoundError(f"there is no run in {root} yet: dlcourse train makes one, or say where it lies with --run")
    marks = ("config.yaml", "history.csv", "last.pt")
    return max(begun, key=lambda run: max((run / mark).stat().st_mtime_ns for mark in marks if (run / mark).exists()))


def _free_folder(name: str) -> Path:
    """Make the folder runs/<name>-<n> for the next n: two trainings that begin at once get two folders."""
    taken = [path.name.rpartition("-")[2] for path in RUNS.glob(f"{name}-*")]
    number = 1 + max((int(end) for end in taken if end.isdigit()), default=0)
    while True:
        try:
            (RUNS / f"{name}-{number}").mkdir(parents=True)
            return RUNS / f"{name}-{number}"
        except FileExistsError:
            number += 1
