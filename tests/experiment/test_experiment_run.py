"""`train` and `Run`: a folder that holds everything, goes on after anything, and makes the rest."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import make_photos

from dlcourse.deployment import Predictor
from dlcourse.experiment import ConfigError, Run, TrainingConfig, load_config, train
from dlcourse.experiment.data import open_images
from dlcourse.experiment.run import newest_run
from dlcourse.training import load_checkpoint

FLAGS = ["--data", "photos", "--name", "tiny", "--batch_size", "8", "--training.epochs", "2", "--training.ema", "0.5"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with a folder of photos and a run of two epochs."""
    root = tmp_path_factory.mktemp("place")
    make_photos(root / "photos")
    before = Path.cwd()
    os.chdir(root)
    train(load_config(None, FLAGS))
    os.chdir(before)
    return root


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return Run("runs/tiny-1")


@pytest.fixture
def fresh(place, tmp_path, monkeypatch):
    """An empty working directory with the same photos."""
    (tmp_path / "photos").symlink_to(place / "photos")
    monkeypatch.chdir(tmp_path)
    return load_config(None, FLAGS)


def final(run):
    return load_checkpoint(run.folder / "best.pt")["model"], load_checkpoint(run.folder / "last.pt")


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_leaves_everything_and_nothing_half_written(here):
    found = {path.name for path in here.folder.iterdir()}
    must = {"config.yaml", "environment.json", "data.json", "history.csv", "history.png", "last.pt", "best.pt"}
    assert must <= found
    assert not [name for name in found if name.endswith(".tmp")]
    assert (here.folder / "history.png").read_bytes().startswith(b"\x89PNG")
    assert here.experiment == load_config(None, FLAGS)
    assert here.history["epoch"] == [1, 2]
    assert here.history.best_epoch == load_checkpoint(here.folder / "best.pt")["metrics"]["epoch"]


def test_the_environment_names_versions_and_nobody(here):
    text = (here.folder / "environment.json").read_text()
    (facts,) = json.loads(text)
    assert facts["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert facts["seed"] == 0
    assert facts["cores"] >= 1
    for secret in (os.environ.get("USER"), os.uname().nodename, str(Path.home()), str(Path.cwd())):
        assert not secret or len(secret) < 2 or secret not in text


def test_the_best_weights_travel_with_classes_and_preprocessing(here):
    card = here.card()
    assert card.classes == ("dark", "light")
    assert card.preprocessing.size == 32
    assert not here.model().training
    picture = here.images().part("test").paths[0]
    assert here.predictor().predict(picture).label == "dark"


def test_opening_a_model_leaves_the_random_numbers_alone(here):
    before = torch.get_rng_state()
    here.model()
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluate_measures_and_writes(here):
    metrics = here.evaluate()
    correct = sum(here.predictor().predict(path).index == label for path, label in pairs(here, "test"))
    assert metrics["images"] == 12
    assert metrics["accuracy"] == correct / 12
    assert metrics["accuracy_low"] < metrics["accuracy"] <= metrics["accuracy_high"] <= 1
    here.evaluate("val")
    assert set(here.metrics()) == {"test", "val"}
    assert here.metrics()["test"] == metrics
    assert here.card().details["test"]["accuracy"] == metrics["accuracy"]
    for name in ("confusion.png", "confusion-val.png"):
        assert (here.folder / name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="there is no part 'holdout' of these images; there are train, val, test"):
        here.evaluate("holdout")


def pairs(run, part):
    images = run.images().part(part)
    return list(zip(images.paths, images.targets, strict=True))


def test_exports_answer_as_the_run_does(here):
    paths = [path for path, _ in pairs(here, "test")]
    own = np.stack([answer.probabilities for answer in Predictor.of(here.model(), here.card()).predict(paths)])
    for kind, tolerance in (("onnx", 1e-5), ("safetensors", 1e-6), ("int8", 0.1)):
        path = here.export(kind)
        answers = Predictor(path).predict(paths)
        assert np.abs(np.stack([answer.probabilities for answer in answers]) - own).max() < tolerance
        assert Predictor(path).card.classes == ("dark", "light")
    assert here.predictor().backend.name == "onnxruntime"
    os.utime(here.folder / "model.onnx", (0, 0))  # exported before the weights were trained
    assert here.predictor().backend.name == "torch"
    with pytest.raises(ValueError, match="kind='tflite' is unknown; choose one of onnx, int8, safetensors"):
        here.export("tflite")


def test_an_export_that_answers_otherwise_is_not_left_there(here, monkeypatch):
    from dlcourse.deployment import export as module

    real = module.export_onnx

    def broken(model, path, card):
        with torch.no_grad():
            next(model.parameters()).add_(1)
        real(model, path, card)
        with torch.no_grad():
            next(model.parameters()).sub_(1)

    monkeypatch.setattr("dlcourse.deployment.export_onnx", broken)
    (here.folder / "model.onnx").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="batch"):
        here.export("onnx")
    assert not (here.folder / "model.onnx").exists()


def test_each_run_gets_a_folder_of_its_own_and_none_is_overwritten_untold(fresh):
    short = replace(fresh, training=TrainingConfig(epochs=1))
    first, second = train(short), train(short)
    assert [run.folder for run in (first, second)] == [Path("runs/tiny-1"), Path("runs/tiny-2")]
    assert_same(final(first)[0], final(second)[0])  # and the same seed gives the same weights
    with pytest.raises(FileExistsError, match=r"holds a run already. Go on with it: --resume .* Delete it: --overwrite"):
        train(short, first.folder)
    (first.folder / "notes.txt").write_text("mine")
    (first.folder / "metrics.json").write_text("{}")
    train(short, first.folder, overwrite=True)
    assert (first.folder / "notes.txt").read_text() == "mine"
    assert not (first.folder / "metrics.json").exists()
    Path("other").mkdir()
    Path("other/file").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="other is not empty and holds no run"):
            train(short, "other", overwrite=overwrite)
    assert newest_run() == first.folder
    with pytest.raises(FileNotFoundError, match="photos holds no run"):
        Run("photos")


def test_a_failed_beginning_leaves_no_folder(fresh):
    with pytest.raises(ValueError, match="neither a folder nor the name"):
        train(replace(fresh, data="no/such"))
    assert not Path("runs").exists()


def test_more_epochs_go_on_where_the_run_ended(fresh):
    three, schedule = replace(fresh, training=TrainingConfig(epochs=3, ema=0.5)), fresh
    whole = train(three, "whole")
    run = train(schedule, "grown")
    again = train(three, "grown", resume=True)
    assert_same(final(again)[1]["model"], final(whole)[1]["model"])
    assert_same(final(again)[0], final(whole)[0])
    assert run.experiment == three
    assert again.history.epochs == whole.history.epochs
    assert len(json.loads((run.folder / "environment.json").read_text())) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "was begun with seed=0, not 1: when a run goes on, only training.epochs may change"),
        ({"batch_size": 4, "loss": "focal"}, "batch_size=8, not 4, loss=cross_entropy, not focal"),
        ({"training": TrainingConfig(epochs=1, ema=0.5)}, "training.epochs=2, not 1: .* and grow"),
        ({"training": TrainingConfig(epochs=3)}, "training.epochs=2, not 3, training.ema=0.5, not None"),
    ],
)
def test_a_resumed_run_must_be_the_same_experiment(here, change, says):
    with pytest.raises(ConfigError, match=says):
        train(replace(here.experiment, **change), here.folder, resume=True)


def test_other_images_than_the_run_began_with_are_refused(fresh, place):
    Path("photos").unlink()
    make_photos("photos")
    run = train(replace(fresh, training=TrainingConfig(epochs=1)))
    make_photos("more", {"train": 17, "val": 12, "test": 6})
    Path("photos").rename("old")
    Path("more").rename("photos")
    for use in (run.evaluate, lambda: train(run.experiment, resume=True)):
        with pytest.raises(ValueError, match=r"data=photos is not what runs/tiny-1 was trained with: images .*'train': 32"):
            use()


def test_a_folder_of_class_folders_is_split_and_the_split_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_photos("photos", {".": 20})
    run = train(load_config(None, ["--data", "photos", "--training.epochs", "1"]))
    rows = (run.folder / "split.csv").read_text().splitlines()
    assert rows[0] == "index,part"
    assert len(rows) == 41
    assert json.loads((run.folder / "data.json").read_text())["images"] == {"train": 28, "val": 6, "test": 6}
    before = run.images().part("test").paths
    swapped = {",test": ",val", ",val": ",test"}
    text = re.sub(",(test|val)", lambda found: swapped[found[0]], "\n".join(rows))
    (run.folder / "split.csv").write_text(text)  # it is the file that decides, not the seed
    assert open_images("photos", split=run.folder / "split.csv").part("val").paths == before
    with pytest.raises(ValueError, match="the names of the files differ"):
        run.images()


@pytest.mark.parametrize(
    ("parts", "says"),
    [({"train": 3, "test": 3}, "needs the folders train and val"), ({"val": 3}, "needs the folders train and val")],
)
def test_a_folder_that_lacks_a_part_is_an_error(tmp_path, parts, says):
    with pytest.raises(ValueError, match=says):
        open_images(str(make_photos(tmp_path / "photos", parts)))


def test_one_class_is_an_error(tmp_path):
    make_photos(tmp_path, {".": 9})
    (tmp_path / "light").rename(tmp_path / ".light")
    with pytest.raises(ValueError, match="has one class, dark"):
        open_images(str(tmp_path))


def test_pretrained_weights_bring_their_preprocessing(tmp_path, monkeypatch):
    from dlcourse.experiment.build import make_model, make_train_transform
    from dlcourse.models import load_pretrained

    flags = ["--model.name", "efficientnet_lite0", "--model.pretrained", "true"]
    _, own = load_pretrained("efficientnet_lite0", 2)
    experiment = load_config(None, flags)
    model, preprocessing = make_model(experiment, 2)
    assert preprocessing == own
    smaller = load_config(None, [*flags, "--image_size", "64"])
    _, preprocessing = make_model(smaller, 2)
    assert (preprocessing.size, preprocessing.resize, preprocessing.mean) == (64, None, own.mean)
    image = torch.randint(256, (3, 80, 70), dtype=torch.uint8)
    assert make_train_transform(smaller, preprocessing)(image).shape == (3, 64, 64)
    plain = make_train_transform(load_config(None, [*flags, "--augmentation", "none"]), own)
    assert torch.equal(plain(image), own(image))
    assert sum(parameter.numel() for parameter in model.parameters()) > 3e6


def test_early_stopping_stops(fresh):
    training = TrainingConfig(epochs=9, patience=1, monitor="val_accuracy")
    run = train(replace(fresh, training=training))
    accuracies = run.history["val_accuracy"]
    assert len(accuracies) < 9
    assert accuracies[-1] <= max(accuracies[:-1])


@pytest.mark.parametrize(
    ("flags", "rates"),
    [
        ([], [1, 1, 1, 1]),
        (["--schedule.name", "cosine"], [1, 0.854, 0.5, 0.146]),
        (["--schedule.name", "warmup_cosine", "--schedule.warmup", "0.5"], [0.5, 1, 1, 0.5]),
        (["--schedule.name", "one_cycle", "--schedule.warmup", "0.5"], [0.04, 1, 0.5, 0]),
    ],
)
def test_the_schedule_runs_over_the_whole_run(flags, rates):
    from dlcourse.experiment.build import make_optimizer, make_schedule

    experiment = load_config(None, flags)
    optimizer = make_optimizer(experiment.optimizer, torch.nn.Linear(2, 2))
    made = make_schedule(experiment.schedule, optimizer, 4)
    seen = []
    for _ in range(4):
        seen.append(optimizer.param_groups[0]["lr"] / experiment.optimizer.lr)
        optimizer.step()
        if made is not None:
            made.step()
    assert seen == pytest.approx(rates, abs=1e-3)


@pytest.mark.parametrize(
    ("flags", "kind", "momentum"),
    [(["--optimizer.name", "sgd"], "SGD", 0.9), (["--optimizer.name", "sgd", "--optimizer.momentum", "0"], "SGD", 0), ([], "AdamW", None)],
)
def test_the_optimizer_is_the_one_that_was_asked_for(flags, kind, momentum):
    from dlcourse.experiment.build import make_optimizer

    made = make_optimizer(load_config(None, flags).optimizer, torch.nn.Linear(2, 2))
    assert type(made).__name__ == kind
    assert made.param_groups[0].get("momentum") == momentum


def test_layers_below_learn_more_slowly():
    from dlcourse.experiment.build import make_model, make_optimizer

    experiment = load_config(None, ["--model.name", "resnet18", "--optimizer.layer_decay", "0.5", "--optimizer.lr", "1"])
    model, _ = make_model(experiment, 2)
    rates = [group["lr"] for group in make_optimizer(experiment.optimizer, model).param_groups]
    assert rates == [0.5**i for i in reversed(range(len(rates)))]


def test_a_vision_transformer_is_made_for_the_size_of_the_images():
    from dlcourse.experiment.build import make_model

    flags = ["--model.name", "vit_tiny_patch16", "--image_size", "64"]
    model, _ = make_model(load_config(None, flags), 2)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


KILLED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it
from dlcourse.cli import main
from dlcourse.training import trainer
step, whole = trainer.Trainer._train_step, trainer.save_checkpoint
def train_step(self, window):
    step(self, window)
    if self.state.step == {step}:
        os.kill(os.getpid(), signal.{signal})
trainer.Trainer._train_step = train_step
sys.exit(main(["train", "--resume", "--run", sys.argv[1]] if {resume} else ["train", *sys.argv[2:], "--run", sys.argv[1]]))
"""


def start(folder, *, step, kind="SIGKILL", resume=False, flags=()):
    code = KILLED.format(step=step, signal=kind, resume=resume)
    return subprocess.run([sys.executable, "-c", code, folder, *flags], capture_output=True, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_and_an_interrupted_one_end_with_the_weights_of_one_left_alone(fresh):
    """8 steps in 2 epochs, saved every 2: killed after the fifth, resumed, interrupted after the seventh, resumed."""
    flags = [*FLAGS, "--training.checkpoint_every", "2", "--schedule.name", "one_cycle"]
    experiment = load_config(None, flags)
    whole = train(experiment, "whole")
    killed = start("killed", step=5, flags=flags)
    assert killed.returncode == -signal.SIGKILL
    assert load_checkpoint("killed/last.pt")["run"]["step"] == 4
    interrupted = start("killed", step=7, kind="SIGINT", resume=True)
    assert interrupted.returncode == 130, interrupted.stderr
    assert interrupted.stdout.endswith("Go on with: dlcourse train --resume --run killed\n")
    assert "epoch 1/2" not in interrupted.stdout  # it went on after the first epoch, and did not begin again
    assert "Traceback" not in interrupted.stderr
    assert load_checkpoint("killed/last.pt")["run"]["step"] == 7
    again = train(experiment, "killed", resume=True)
    assert_same(final(again)[0], final(whole)[0])
    assert_same(final(again)[1]["model"], final(whole)[1]["model"])
    assert again.history.epochs == whole.history.epochs
    assert (again.folder / "history.csv").read_bytes() == (whole.folder / "history.csv").read_bytes()


def test_a_run_killed_before_its_first_checkpoint_begins_again(fresh):
    whole = train(fresh, "whole")
    begun = Run.create(fresh, "begun")  # what is there after a kill in the first moment
    assert [path.name for path in begun.folder.iterdir()] == ["config.yaml"]
    with pytest.raises(FileNotFoundError, match="begun has no weights yet"):
        begun.model()
    assert_same(final(train(fresh, "begun", resume=True))[0], final(whole)[0])


def test_newest_is_what_was_trained_last(fresh):
    one = replace(fresh, training=TrainingConfig(epochs=1))
    first, second = train(one), train(one)
    assert newest_run() == second.folder
    time.sleep(0.01)
    train(replace(one, training=TrainingConfig(epochs=2)), first.folder, resume=True)
    assert newest_run() == first.folder
    with pytest.raises(FileNotFoundError, match="there is no run in elsewhere yet"):
        newest_run("elsewhere")


def test_a_damaged_checkpoint_is_named(fresh):
    run = train(replace(fresh, training=TrainingConfig(epochs=1)))
    content = (run.folder / "best.pt").read_bytes()
    (run.folder / "best.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(RuntimeError, match=re.escape("best.pt is damaged")):
        run.model()


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dlcourse", "--"]
EXACT = [  # nothing that depends on the number of processes
    *FLAGS, "--augmentation", "none", "--model.options", "{dropout: 0}", "--optimizer.name", "sgd", "--optimizer.lr", "0.02",
    "--training.sync_batch_norm", "true",
]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs libuv there, which its wheels lack")
def test_two_processes_of_torchrun_make_the_run_that_one_makes(fresh):
    one = train(load_config(None, EXACT), "one")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*TORCHRUN, "train", *EXACT, "--run", "two"], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(f"epoch {epoch}/2:") for epoch in (1, 2)] == [1, 1]  # the main process alone prints
    two = Run("two")
    assert json.loads((two.folder / "environment.json").read_text())[0]["processes"] == 2
    assert {path.name for path in two.folder.iterdir()} == {path.name for path in one.folder.iterdir()}
    for name, weights in final(one)[0].items():
        torch.testing.assert_close(final(two)[0][name], weights, rtol=1e-3, atol=1e-4, msg=name)
    for mine, other in zip(two.history.epochs, one.history.epochs, strict=True):
        assert mine == pytest.approx(other, abs=1e-3)

    more = [*EXACT]
    more[more.index("--training.epochs") + 1] = "3"
    again = train(load_config(None, more), "two", resume=True)  # on one process
    assert len(again.history.epochs) == 3
    other = train(load_config(None, more), "one", resume=True)
    assert again.history.epochs[-1] == pytest.approx(other.history.epochs[-1], abs=1e-3)


def test_a_batch_that_the_processes_cannot_share_is_refused(fresh, monkeypatch):
    monkeypatch.setattr(sys.modules["dlcourse.experiment.train"], "world_size", lambda: 3)
    with pytest.raises(ConfigError, match=re.escape("batch_size=8 must be a multiple of the 3 processes that share it")):
        train(fresh)
