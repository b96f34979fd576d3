"""The command `dlcourse`: what it prints and its exit status."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlcourse.cli import main
from dlcourse.commands import COMMANDS

QUICK = ["doctor", "--steps", "8"]


def shell(*arguments, **options):
    """The command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "dlcourse.cli", *arguments], capture_output=True, text=True, **options)


def not_understood(arguments, capsys):
    """What the command says of arguments that it ends with status 2."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def make_photos(root, parts):
    generator = np.random.default_rng(0)
    for part, count in parts.items():
        for label, level in (("dark", 40), ("light", 160)):
            folder = root / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray((level + generator.integers(0, 40, (32, 32, 3))).astype(np.uint8)).save(folder / f"{number}.png")
    return root


def test_a_healthy_training_ends_with_status_0(capsys):
    assert main(QUICK) == 0
    assert capsys.readouterr().out == "healthy: nothing found\n"


def test_a_sick_training_ends_with_status_1_and_flags_win_over_the_config(tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text("model: {name: simple_cnn, options: {dropout: 0.1}}\noptimizer: {name: sgd, lr: 1e-2}\n")
    assert main([*QUICK, "--config", str(config), "--optimizer.lr", "1e-9", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [finding["code"] for finding in report["findings"]] == ["learning-rate-too-low"]
    assert report["findings"][0]["where"] == "lr = 1e-09"


def test_a_folder_of_images_is_examined(tmp_path, capsys):
    make_photos(tmp_path, {"train": 12, "validation": 4})
    assert main([*QUICK, "--data", str(tmp_path), "--batch_size", "8", "--augmentation", "none"]) == 0
    assert capsys.readouterr().out.startswith("healthy")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--data", "no/such/folder"], "data=no/such/folder is neither a folder nor the name of a data set"),
        (["--data", "fashion-min"], "fashion-min"),
    ],
)
def test_what_cannot_be_built_is_named_and_ends_with_status_1(flags, says, capsys):
    assert main([*QUICK, *flags]) == 1
    message = capsys.readouterr().err
    assert message.startswith("dlcourse doctor: ")
    assert says in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_an_error(capsys):
    assert main([*QUICK, "--device", "cuda"]) == 1
    assert "device='cuda' is not on this machine; use cpu" in capsys.readouterr().err


def test_a_folder_without_splits_is_an_error(tmp_path, capsys):
    assert main([*QUICK, "--data", str(tmp_path)]) == 1
    assert "needs the folders train and val" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--optimiser.lr", "3"], "there is no --optimiser.lr; did you mean --optimizer.lr?"),
        (["--optimizer.lr", "fast"], "fast"),
        (["--loss", "mse"], "cross_entropy"),
        # A config is checked when it is read, as far as it can be without the data: this was status 1 once.
        (["--model.name", "simple_cn"], "there is no model 'simple_cn'; did you mean 'simple_cnn'?"),
        (["--optimizer.momentum", "0.5"], "optimizer.momentum=0.5 is not used"),
        (["--step", "3"], "there is no --step; did you mean --steps?"),
    ],
)
def test_a_flag_that_is_not_understood_ends_with_status_2(flags, says, capsys):
    message = not_understood(["doctor", *flags], capsys)
    assert message.startswith("dlcourse doctor: ")
    assert says in message
    assert message.endswith("See dlcourse doctor --help\n")


def test_an_unknown_key_in_a_config_is_an_error(tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text("optimizer: {learning_rate: 0.1}\n")
    message = not_understood([*QUICK, "--config", str(config)], capsys)
    assert "line 1: there is no optimizer.learning_rate; did you mean optimizer.lr?" in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "dlcourse: there is no command 'trian'; did you mean 'train'?"),
        ([], "dlcourse: "),
        (["--seed", "3"], "dlcourse: "),
        (["train", "fashion-mini"], "dlcourse train: what is 'fashion-mini'?"),
        (["train", "--resme"], "there is no --resme; did you mean --resume?"),
        (["train", "--config", "fashion_mini"], "there is no config 'fashion_mini'; did you mean 'fashion-mini'?"),
        (["evaluate", "--split", "tset"], "dlcourse evaluate: split: 'tset'"),
        (["export", "--kind", "tflite"], "dlcourse export: kind: 'tflite'"),
        (["serve", "--port", "high"], "dlcourse serve: port: 'high' is not a whole number"),
        (["predict"], "dlcourse predict: "),
    ],
)
def test_a_command_that_is_not_understood_ends_with_status_2(arguments, says, capsys):
    assert says in not_understood(arguments, capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_shows_an_example_that_it_understands(command, capsys):
    from dlcourse.commands import make_parser

    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    example = COMMANDS[command][3]
    assert f"Example: {example}" in shown
    assert make_parser([command]).parse_args(example.split()[1:]).command == command


def test_help_shows_what_stands_under_each_field_and_loads_little():
    shown = shell("train", "--help")
    assert shown.returncode == 0
    words = " ".join(shown.stdout.split())
    assert "Of sgd (0.9 when it is not given)." in words
    assert "--config CONFIG a YAML file of the values below, or one of cifar10, clothing-small, fashion-mini" in words
    code = "import sys; from dlcourse.commands import make_parser; make_parser(['train']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torchvision", "timm", "matplotlib", "onnx", "onnxruntime", "fastapi", "pandas", "sklearn"} & set(loaded) == set()


def test_the_module_itself_is_imported_at_once():
    code = "import time, dlcourse; a = time.perf_counter(); import dlcourse.cli; print(time.perf_counter() - a)"
    seconds = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(seconds) < 0.2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with a folder of photos, and a run of it that `dlcourse train` made."""
    root = tmp_path_factory.mktemp("place")
    make_photos(root / "photos", {"train": 12, "val": 12, "test": 6})
    flags = ["--data", "photos", "--name", "tiny", "--batch_size", "8", "--training.epochs", "3", "--optimizer.lr", "3e-3"]
    trained = shell("train", *flags, cwd=root)
    assert trained.returncode == 0, trained.stderr
    assert "epoch 3/3: train_loss" in trained.stdout
    assert trained.stdout.endswith("Next: dlcourse evaluate --run runs/tiny-1\n")
    return root


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def test_evaluate_prints_the_interval_and_a_row_a_class(here, capsys):
    assert main(["evaluate"]) == 0
    printed = capsys.readouterr().out
    assert "accuracy 1.000, 95 % interval 0.758 to 1.000" in printed
    assert "\ndark   1.000      1.000   1.000  6\n" in printed
    assert main(["evaluate", "--split", "val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 24


def test_predict_answers_files_and_folders_and_names_what_it_cannot_read(here, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "empty").mkdir()
    pictures = ["photos/test/dark", str(tmp_path / "broken.png"), "photos/test/light/3.png", "gone.jpg", str(tmp_path / "empty")]
    assert main(["predict", *pictures, "--top", "1"]) == 1
    printed = capsys.readouterr()
    rows = printed.out.splitlines()
    assert rows[0].split() == ["file", "1."]
    assert [row.split()[:2] for row in rows[1:]] == [
        *([f"photos/test/dark/{number}.png", "dark"] for number in range(6)),
        ["photos/test/light/3.png", "light"],
    ]
    assert [line.split(": ")[0] for line in printed.err.splitlines()] == ["dlcourse predict"] * 3
    for name in ("broken.png cannot be read as an image", "there is no image gone.jpg", "empty holds no image"):
        assert name in printed.err


def test_predict_prints_json(here, capsys):
    assert main(["predict", "photos/test/dark/0.png", "--json", "--top", "2"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["label"] == "dark" == answer["top"][0]["label"]
    assert answer["probability"] == answer["top"][0]["probability"] > 0.5
    assert sum(each["probability"] for each in answer["top"]) == pytest.approx(1)
    assert main(["predict", "gone.jpg", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluate", "--run", "photos"], "photos holds no run"),
        (["predict", "a.png", "--model", "gone.onnx"], "there is no model file gone.onnx"),
        (["predict", "a.png", "--model", "m.onnx", "--run", "runs/tiny-1"], "give one of them"),
        (["predict", "a.png", "--top", "0"], "--top=0 must be at least 1"),
        (["train", "--run", "runs/tiny-1"], "runs/tiny-1 holds a run already. Go on with it: --resume"),
        (["train", "--run", "photos"], "photos is not empty and holds no run"),
        (["train", "--resume", "--run", "photos"], "photos holds no run"),
        (["serve", "--api-key-file", "gone.txt"], "gone.txt"),
        (["serve", "--max-files", "0"], "files=0 must be greater than 0"),
    ],
)
def test_what_fails_ends_with_status_1_and_a_sentence(here, arguments, says, capsys):
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"dlcourse {arguments[0]}: ")
    assert says in message
    assert "Traceback" not in message


def test_an_unforeseen_error_is_named_without_a_traceback_unless_asked(here, monkeypatch, capsys):
    monkeypatch.setattr("dlcourse.experiment.run.Run.evaluate", lambda run, split: {}["surprise"])
    assert main(["evaluate"]) == 1
    assert capsys.readouterr().err == "dlcourse evaluate: KeyError: 'surprise' (DLCOURSE_TRACEBACK=1 shows where)\n"
    monkeypatch.setenv("DLCOURSE_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["evaluate"])


def test_ctrl_c_ends_with_status_130(here, monkeypatch, capsys):
    def interrupted(run, split):
        raise KeyboardInterrupt

    monkeypatch.setattr("dlcourse.experiment.run.Run.evaluate", interrupted)
    assert main(["evaluate"]) == 130
    assert "ended by Ctrl-C" in capsys.readouterr().err


def test_without_a_run_the_message_says_how_one_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in (["evaluate"], ["export"], ["predict", "a.png"], ["serve"], ["train", "--resume"]):
        assert main(command) == 1
        assert "there is no run in runs yet: dlcourse train makes one" in capsys.readouterr().err


def test_resume_takes_the_runs_own_config_and_more_epochs_alone(here, capsys):
    assert main(["train", "--resume", "--training.epochs", "4"]) == 0
    printed = capsys.readouterr().out
    assert "epoch 4/4" in printed
    assert "epoch 3/" not in printed
    says = not_understood(["train", "--resume", "--run", "runs/tiny-1", "--optimizer.lr", "1e-2"], capsys)
    assert "runs/tiny-1 was begun with optimizer.lr=0.003, not 0.01" in says
    assert main(["train", "--resume"]) == 0  # it is over, and stays over
    assert "the best of 4 epochs" in capsys.readouterr().out


def post(url, path, key=None):
    content = Path(path).read_bytes()
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + content + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x", **({"X-API-Key": key} if key else {})}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/predict", body, headers), timeout=30) as answer:
        return json.load(answer)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_what_was_trained_is_exported_and_served_until_sigterm(here):
    assert main(["export"]) == 0
    Path("key.txt").write_text("a-long-enough-key\n")
    service = subprocess.Popen(
        [sys.executable, "-m", "dlcourse.cli", "serve", "--port", "0", "--monitor", "logs", "--api-key-file", "key.txt",
         "--max-files", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = service.stdout.readline()
        assert line.startswith("tiny at http://127.0.0.1:"), line + service.stderr.read()
        url = line.split()[2]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            post(url, "photos/test/light/0.png")
        answer = post(url, "photos/test/light/0.png", key="a-long-enough-key")
        assert answer["model"] == "tiny"
        assert answer["predictions"][0]["label"] == "light"
        request = urllib.request.Request(f"{url}/samples", headers={"X-API-Key": "a-long-enough-key"})
        with urllib.request.urlopen(request, timeout=30) as samples:
            assert len(json.load(samples)) == 8
        time.sleep(0.1)
        service.send_signal(signal.SIGTERM)
        _, errors = service.communicate(timeout=30)
    finally:
        service.kill()
    assert service.returncode == 0, errors
    assert "Traceback" not in errors
    assert len(Path("logs/predictions.jsonl").read_text().splitlines()) == 1
    assert json.loads(Path("logs/reference.json").read_text())["classes"] == ["dark", "light"]


def test_the_key_of_a_service_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    from dlcourse.experiment.serving import _api_key

    monkeypatch.delenv("DLCOURSE_API_KEY", raising=False)
    assert _api_key(None) is None
    monkeypatch.setenv("DLCOURSE_API_KEY", "from-the-environment")
    assert _api_key(None) == "from-the-environment"
    (tmp_path / "key").write_text("from-the-file\n")
    assert _api_key(str(tmp_path / "key")) == "from-the-file"
    (tmp_path / "key").write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        _api_key(str(tmp_path / "key"))


def test_a_failure_is_a_status_of_the_process_too(tmp_path):
    failed = shell("evaluate", cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (1, "")
    wrong = shell("train", "--epochs", "3", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == (
        "dlcourse train: there is no --epochs; did you mean --training.epochs?\nSee dlcourse train --help\n"
    )
    assert list(tmp_path.iterdir()) == []
