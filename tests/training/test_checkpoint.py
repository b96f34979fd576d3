"""Checkpoints: plain, whole or not written at all, and refused with a sentence when they are anything else."""

import errno
import os
import pickle
import stat
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from training_helpers import assert_same_weights, linear_net, small_net

from dlcourse.training import CheckpointError, load_checkpoint, load_weights, save_checkpoint
from dlcourse.training.checkpoint import FORMAT, VERSION


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "last.pt"


def files_beside(path):
    return [file.name for file in path.parent.iterdir()]


def test_what_goes_in_comes_out(path):
    model = small_net()
    model.spec = {"name": "small", "options": {"num_classes": 2}}
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 1, 6, 6)).sum().backward()
    optimizer.step()
    save_checkpoint(path, model, optimizer=optimizer, epoch=3, best=0.5, tags=("a", None, True), counts=Counter("aab"))
    saved = load_checkpoint(path)
    assert (saved["epoch"], saved["best"], saved["tags"], saved["counts"]) == (3, 0.5, ("a", None, True), Counter("aab"))
    assert saved["spec"] == model.spec
    other = small_net()
    load_weights(other, saved["model"])
    assert_same_weights(other, model)
    resumed = torch.optim.AdamW(other.parameters())
    resumed.load_state_dict(saved["optimizer"])
    assert str(resumed.state_dict()) == str(optimizer.state_dict())
    assert files_beside(path) == ["last.pt"]


def test_plain_weights_only_load_reads_it(path):
    save_checkpoint(path, linear_net(), score=np.float64(0.5), count=np.int64(3), right=np.bool_(True))
    saved = torch.load(path, weights_only=True)
    assert [type(saved[name]) for name in ("score", "count", "right")] == [float, int, bool]
    assert (saved["score"], saved["count"], saved["right"]) == (0.5, 3, True)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"curve": np.zeros(3)}, r"extra.curve is a ndarray; use .tolist\(\)"),
        ([1, {"where": Path("x")}], r"extra\[1\].where is a \w*Path"),
        (lambda: None, "extra is a function"),
        ({1, object()}, r"extra\[\d\] is a object"),
    ],
)
def test_anything_else_is_refused_when_saving(path, part, message):
    save_checkpoint(path, linear_net(), epoch=1)
    with pytest.raises(TypeError, match=message):
        save_checkpoint(path, linear_net(), extra=part)
    assert load_checkpoint(path)["epoch"] == 1


def test_a_missing_file(path):
    with pytest.raises(FileNotFoundError, match=r"last\.pt"):
        load_checkpoint(path)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path, kept):
    save_checkpoint(path, small_net())
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(CheckpointError, match=rf"{path} is (damaged|not a checkpoint)"):
        load_checkpoint(path)


def test_a_file_damaged_inside_is_refused(path):
    save_checkpoint(path, small_net())
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    del parts[next(name for name in parts if name.endswith("data/0"))]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        load_checkpoint(path)


def foreign(kind, path):
    path.parent.mkdir(parents=True)
    if kind == "state_dict":
        torch.save(linear_net().state_dict(), path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "image":
        Image.new("RGB", (8, 8)).save(path, format="PNG")
    elif kind == "text":
        path.write_text("epoch,loss\n1,0.5\n")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, weights=np.zeros(3))
    elif kind == "newer":
        torch.save({"format": FORMAT, "version": VERSION + 1}, path)
    elif kind == "model":
        torch.save(linear_net(), path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("state_dict", "holds no checkpoint of dlcourse. If it is a bare state_dict, load it with model.load_state_dict"),
        ("tensor", "holds no checkpoint of dlcourse"),
        ("image", "is not a checkpoint. Give a file that save_checkpoint wrote"),
        ("text", "is not a checkpoint"),
        ("zip", "damaged or not a checkpoint"),
        ("npz", "damaged or not a checkpoint"),
        ("newer", f"has format version {VERSION + 1}, this dlcourse reads up to {VERSION}. Upgrade dlcourse"),
        ("model", r"is refused: it holds Python objects \(torch.nn.*save the state_dict"),
    ],
)
def test_a_foreign_file_is_refused(path, kind, message):
    foreign(kind, path)
    with pytest.raises(CheckpointError, match=rf"{path}.*{message}"):
        load_checkpoint(path)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("how", ["torch.save", "inside", "pickle"])
def test_a_malicious_file_is_refused_and_runs_nothing(path, tmp_path, how):
    marker = tmp_path / "ran"
    path.parent.mkdir()
    if how == "pickle":
        path.write_bytes(pickle.dumps(Malicious(marker)))
    else:
        bad = Malicious(marker)
        torch.save(bad if how == "torch.save" else {"format": FORMAT, "version": 1, "model": bad}, path)
    reason = "not a checkpoint" if how == "pickle" else r"holds Python objects \(posix.system\), which can run any code"
    with pytest.raises(CheckpointError, match=f"{path} is .*{reason}"):
        load_checkpoint(path)
    assert not marker.exists()
    if how == "torch.save":
        torch.load(path, weights_only=False)  # the attack is real
        assert marker.exists()


def test_weights_that_do_not_fit_are_named(path):
    save_checkpoint(path, nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False)))
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, load_checkpoint(path)["model"], source=str(path))
    for part in (str(path), "only in the model: 1.bias", "0.weight (5, 3), (4, 3)", "1.weight (2, 5), (2, 4)"):
        assert part in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    names = ["0.weight", "0.bias", "1.weight", "2.weight", "3.weight", "4.weight"]
    with pytest.raises(CheckpointError, match=r"only in the checkpoint: 0.weight, 0.bias, 1.weight, 2.weight and 2 more"):
        load_weights(nn.Sequential(), dict.fromkeys(names, torch.zeros(1)))


def disk_full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("broken", ["fsync", "replace", "write"])
def test_a_failed_write_leaves_the_previous_checkpoint_whole(path, monkeypatch, broken):
    save_checkpoint(path, linear_net(), epoch=1)
    with monkeypatch.context() as patch:
        if broken == "fsync":
            patch.setattr(os, "fsync", disk_full)
        elif broken == "replace":
            patch.setattr(Path, "replace", disk_full)
        else:
            patch.setattr(Path, "open", disk_full)
        with pytest.raises(OSError, match=r"No space left .* previous checkpoint .* untouched.*last\.pt"):
            save_checkpoint(path, linear_net(), epoch=2)
    assert load_checkpoint(path)["epoch"] == 1
    assert files_beside(path) == ["last.pt"]
    save_checkpoint(path, linear_net(), epoch=3)
    assert load_checkpoint(path)["epoch"] == 3


def test_an_interrupted_write_leaves_the_previous_checkpoint_whole(path, monkeypatch):
    save_checkpoint(path, linear_net(), epoch=1)

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, linear_net(), epoch=2)
    assert load_checkpoint(path)["epoch"] == 1
    assert files_beside(path) == ["last.pt"]


FULL = """
import resource, signal, sys
import torch
from dlcourse.training import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, limit = sys.argv[1], int(sys.argv[2])
save_checkpoint(path, weights=torch.zeros(1000), epoch=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    save_checkpoint(path, weights=torch.zeros(100_000), epoch=2)
except OSError as error:
    print("OSError:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of a file")
def test_a_file_system_that_really_refuses_to_write(path):
    done = subprocess.run([sys.executable, "-c", FULL, path, "100000"], capture_output=True, text=True, check=True)
    assert "OSError: [Errno 27] File too large while writing; a previous checkpoint" in done.stdout
    assert load_checkpoint(path)["epoch"] == 1
    assert files_beside(path) == ["last.pt"]


def test_what_a_kill_left_behind_is_taken_away_by_the_next_save(path):
    save_checkpoint(path, linear_net(), epoch=1)
    path.with_name("last.pt.tmp").write_bytes(b"half a checkpoint")
    assert load_checkpoint(path)["epoch"] == 1
    save_checkpoint(path, linear_net(), epoch=2)
    assert files_beside(path) == ["last.pt"]
    assert load_checkpoint(path)["epoch"] == 2


def test_the_data_are_on_the_disk_before_the_name_is(path, monkeypatch):
    order, fsync, replace = [], os.fsync, Path.replace

    def recorded_fsync(descriptor):
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def recorded_replace(self, target):
        order.append("rename")
        replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    save_checkpoint(path, linear_net())
    assert order == ["file", "rename", "folder"]
