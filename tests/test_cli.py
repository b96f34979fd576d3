"""The command `dlcourse`: what it prints and its exit status."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from dlcourse.cli import main

QUICK = ["doctor", "--steps", "8"]


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
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 12), ("validation", 4)):
        for label, level in (("dark", 40), ("light", 160)):
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = (level + 40 * torch.rand(32, 32, 3, generator=generator)).byte().numpy()
                Image.fromarray(pixels).save(folder / f"{number}.png")
    assert main([*QUICK, "--data", str(tmp_path), "--batch_size", "8", "--augmentation", "none"]) == 0
    assert capsys.readouterr().out.startswith("healthy")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--model.name", "simple_cn"], "there is no model 'simple_cn'; did you mean 'simple_cnn'?"),
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
        (["--optimiser.lr", "3"], "--optimiser.lr"),
        (["--optimizer.lr", "fast"], "fast"),
        (["--loss", "mse"], "cross_entropy"),
    ],
)
def test_a_flag_that_is_not_understood_ends_with_status_2(flags, says, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*QUICK, *flags])
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_an_unknown_key_in_a_config_is_an_error(tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text("optimizer: {learning_rate: 0.1}\n")
    with pytest.raises(SystemExit) as stop:
        main([*QUICK, "--config", str(config)])
    assert stop.value.code == 2
    assert "learning_rate" in capsys.readouterr().err


def test_help_shows_an_example():
    shown = subprocess.run(
        [sys.executable, "-m", "dlcourse.cli", "doctor", "--help"], capture_output=True, text=True, check=True
    )
    assert "Example: dlcourse doctor" in shown.stdout
