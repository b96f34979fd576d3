"""What each command of `dlcourse` does: `COMMANDS` names them, with their flags and an example. `cli` reads the line.

A command takes the flags that were given and the whole line, prints what it found, and returns the exit status.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from dlcourse.deployment import Predictor
    from dlcourse.experiment import Run

NEWEST = "folder of the run; default: the one in runs/ that was trained last"


def train(given: Namespace, arguments: list[str]) -> int:
    """Train an experiment, or go on with a run."""
    from dlcourse.training.distributed import processes

    with processes():
        return _train(given, arguments)


def _train(given: Namespace, arguments: list[str]) -> int:
    import dlcourse
    from dlcourse.experiment import Run, train
    from dlcourse.experiment.parser import experiment_of
    from dlcourse.experiment.run import newest_run
    from dlcourse.training.distributed import is_main

    folder = given.run
    if given.resume:
        folder = folder or newest_run()
        if not given.config:  # the run's own, which flags may change
            given = make_parser(["train"]).parse_args([*arguments, "--config", str(Run(folder).folder / "config.yaml")]).train
    experiment = experiment_of(given)
    dlcourse.setup(experiment.seed)
    run = train(
        experiment, folder, resume=given.resume, overwrite=given.overwrite, download=given.download, verbose=True
    )
    if not is_main():
        return 130 if run.interrupted else 0
    if run.interrupted:
        print(f"Go on with: dlcourse train --resume --run {run.folder}")
        return 130
    history = run.history
    best = history.epochs[(history.best_epoch or 1) - 1]
    print(f"{run.folder}: the best of {len(history.epochs)} epochs is {best['epoch']:g}, val_accuracy {best['val_accuracy']:.3f}")
    print(f"Next: dlcourse evaluate --run {run.folder}")
    return 0


def _train_flags(parser: Any) -> None:
    from dlcourse.experiment.parser import add_experiment

    add_experiment(parser)
    parser.add_argument("--run", help="folder of the run; default: the next runs/<name>-<n>, with --resume the newest")
    parser.add_argument("--resume", action="store_true", help="go on with the run, after Ctrl-C, a kill, or with more epochs")
    parser.add_argument("--overwrite", action="store_true", help="delete the run that is in the folder")
    parser.add_argument("--download", action="store_true", help="fetch the data set of that name, where it is missing")


def evaluate(given: Namespace, arguments: list[str]) -> int:
    """Measure the best weights of a run."""
    run = _run(given.run)
    metrics = run.evaluate(given.split)
    if given.json:
        print(json.dumps(metrics, indent=2, ensure_ascii=False))
        return 0
    low, high = metrics["accuracy_low"], metrics["accuracy_high"]
    print(f"{run.folder}, {metrics['images']:,} {given.split} images")
    print(f"accuracy {metrics['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}; macro F1 {metrics['macro_f1']:.3f}, "
          f"calibration error {metrics['calibration_error']:.3f}")  # fmt: skip
    rows = [[name, *(f"{one[k]:.3f}" for k in ("precision", "recall", "f1")), str(one["images"])]
            for name, one in metrics["classes"].items()]  # fmt: skip
    _print_table(["class", "precision", "recall", "f1", "images"], rows)
    return 0


def _evaluate_flags(parser: Any) -> None:
    from typing import Literal

    parser.add_argument("--run", help=NEWEST)
    parser.add_argument("--split", type=Literal["train", "val", "test"], default="test", help="which part of the images")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def export(given: Namespace, arguments: list[str]) -> int:
    """Write the best weights of a run as a file of their own."""
    path = _run(given.run).export(given.kind)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return 0


def _export_flags(parser: Any) -> None:
    from typing import Literal

    parser.add_argument("--run", help=NEWEST)
    parser.add_argument(
        "--kind", type=Literal["onnx", "int8", "safetensors"], default="onnx",
        help="onnx; int8 (ONNX in 8-bit integers, a quarter of the bytes); safetensors (the weights, for torch)",
    )  # fmt: skip


def predict(given: Namespace, arguments: list[str]) -> int:
    """Answer to pictures; 1 when one could not be read, after the others were answered."""
    from dlcourse.experiment.asking import answers

    if given.top < 1:
        raise ValueError(f"--top={given.top} must be at least 1")
    found, unread = answers(_predictor(given), given.pictures)
    if given.json:
        print(json.dumps(
            [{"file": str(path), "label": one.label, "probability": one.confidence,
              "top": [{"label": label, "probability": share} for label, share in one.top(given.top)]} for path, one in found],
            indent=2, ensure_ascii=False,
        ))  # fmt: skip
    elif found:
        rows = [[str(path), *(f"{label} {share:.1%}" for label, share in one.top(given.top))] for path, one in found]
        _print_table(["file", *(f"{k}." for k in range(1, len(rows[0])))], rows)
    for reason in unread:
        print(f"dlcourse predict: {reason}", file=sys.stderr)
    return 1 if unread else 0


def _predict_flags(parser: Any) -> None:
    parser.add_argument("pictures", nargs="+", help="image files, and folders of them")
    _model_flags(parser)
    parser.add_argument("--top", type=int, default=3, help="how many classes are named for each picture")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON")


def serve(given: Namespace, arguments: list[str]) -> int:
    """Serve a model until Ctrl-C or SIGTERM."""
    from dlcourse.deployment import serve as run_service
    from dlcourse.experiment.serving import make_service

    def stop(*_: object) -> None:
        sys.exit(0)

    # uvicorn stops gracefully at SIGTERM and SIGINT, and then raises them again for whoever listened before it.
    signal.signal(signal.SIGTERM, stop)
    run = None if given.model else _run(given.run)
    app = make_service(_predictor(given, run), given, run)
    with contextlib.suppress(KeyboardInterrupt):
        run_service(
            app, given.host, given.port,
            on_start=lambda url: print(f"{app.title} at {url} (Ctrl-C stops it)", flush=True),
        )  # fmt: skip
    return 0


def _serve_flags(parser: Any) -> None:
    from dlcourse.experiment.serving import add_flags

    _model_flags(parser)
    add_flags(parser)


def doctor(given: Namespace, arguments: list[str]) -> int:
    """Diagnose an experiment before it is trained. Prints the report; 0 when it is healthy, 1 when it is not."""
    from dlcourse.experiment.asking import diagnosis
    from dlcourse.experiment.parser import experiment_of

    report = diagnosis(experiment_of(given), given.steps)
    print(report.to_json() if given.json else report)
    return 0 if report.healthy else 1


def _doctor_flags(parser: Any) -> None:
    from dlcourse.experiment.parser import add_experiment

    add_experiment(parser)
    parser.add_argument("--steps", type=int, default=30, help="length of each short training on one batch")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _model_flags(parser: Any) -> None:
    parser.add_argument("--run", help=NEWEST)
    parser.add_argument("--model", help="an exported file (.onnx, .safetensors) in place of a run")


def _run(folder: str | None) -> Run:
    from dlcourse.experiment import Run
    from dlcourse.experiment.run import newest_run

    return Run(folder or newest_run())


def _predictor(given: Namespace, run: Run | None = None) -> Predictor:
    from dlcourse.deployment import Predictor

    if given.model and given.run:
        raise ValueError("--run and --model name two models: give one of them")
    return Predictor(given.model) if given.model else (run or _run(given.run)).predictor()


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


Command = tuple[Callable[[Any, list[str]], int], Callable[[Any], None], str, str]
COMMANDS: dict[str, Command] = {
    "train": (
        train, _train_flags, "Train an experiment: everything it leaves is in the folder of the run.",
        "dlcourse train --config fashion-mini --training.epochs 2",
    ),
    "evaluate": (
        evaluate, _evaluate_flags, "Measure a run on images it was not trained with.", "dlcourse evaluate --split test",
    ),
    "predict": (
        predict, _predict_flags, "Say what is in pictures.", "dlcourse predict shoe.jpg photos --top 3",
    ),
    "export": (
        export, _export_flags, "Write a run's model as a file of its own: classes and preprocessing inside.",
        "dlcourse export --kind int8",
    ),
    "serve": (
        serve, _serve_flags, "Serve a model over HTTP: a page, POST /predict, /health, /metrics.",
        "dlcourse serve --port 8000 --monitor logs",
    ),
    "doctor": (
        doctor, _doctor_flags,
        "Say why a training will not learn: data, labels, model, loss, gradients and optimizer are examined on copies.",
        "dlcourse doctor --model.name resnet18 --optimizer.name sgd --optimizer.lr 10",
    ),
}  # fmt: skip


def make_parser(asked: Sequence[str]) -> Any:
    """The parser of all commands, with the flags of those that are asked for: making the others' takes time."""
    from dlcourse.experiment.parser import Parser

    parser = Parser(prog="dlcourse", description="A PyTorch computer-vision course, from a shell.")
    commands = parser.add_subcommands(dest="command")
    for name, (_, add_flags, description, example) in COMMANDS.items():
        usage = f"dlcourse {name} {'pictures … ' if name == 'predict' else ''}[flags]"
        command = Parser(usage=usage, description=f"{description} Example: {example}")
        if name in asked:
            add_flags(command)
        commands.add_subcommand(name, command, help=description.split(":")[0].rstrip("."))
    return parser
