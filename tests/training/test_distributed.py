"""Two processes of torchrun against one: gradients, metrics, files, a death, Ctrl-C, and a run that changes its number."""

import os
import subprocess
import sys
from pathlib import Path

import on_processes
import pytest
import torch

from dlcourse.training import load_checkpoint

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SCRIPT = Path(__file__).with_name("on_processes.py")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs libuv there, which its wheels lack")


def torchrun(*arguments, timeout=120):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*TORCHRUN, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, env=environment
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def two(folder):
    """What two processes found."""
    done = torchrun(SCRIPT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return {**torch.load(folder / "found.pt", weights_only=True), "output": done.stdout}


@pytest.fixture(scope="module")
def one(folder):
    """The run of `two` on one process."""
    trainer = on_processes.make_trainer(folder / "alone")
    history = trainer.fit(*on_processes.loaders())
    return trainer.model.state_dict(), history.epochs


def assert_close_weights(weights, others, tolerance=1e-4):
    assert weights.keys() == others.keys()
    for name in weights:
        torch.testing.assert_close(weights[name], others[name], rtol=tolerance, atol=tolerance, msg=name)


def assert_close_history(epochs, others):
    for epoch, other in zip(epochs, others, strict=True):
        assert epoch == pytest.approx(other, abs=2e-3)


def test_each_process_knows_its_place(two):
    assert two["ranks"] == [0, 1]
    assert two["from main"] == "process 0"
    assert two["any"] == [True, False]
    assert two["parts"] == [[0, 2, 4, 6], [1, 3, 5]]
    assert two["threads"] >= 1


WITH_A_CYCLE = """
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dlcourse.training.distributed import processes


def gloo_threads():
    return sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))


def train():
    model = DistributedDataParallel(nn.Linear(4, 2))
    model.holders = [model]
    model(torch.ones(1, 4)).sum().backward()


assert "torch._dynamo" not in sys.modules
with processes():
    train()
    assert gloo_threads() >= 2
print(f"left:{gloo_threads()};", end="", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc names the threads")
def test_the_end_ends_gloos_threads(tmp_path):
    """One that still let go of its last message while Python ended aborted the process now and then."""
    program = tmp_path / "program.py"
    program.write_text(WITH_A_CYCLE)
    done = torchrun(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "left:0;" * 2


def test_two_halves_give_the_gradient_of_the_whole_batch(two):
    for kind in ("no norm", "synchronized"):
        assert two[kind]["scale"] > 1e-2
        assert two[kind]["gradient"] < 1e-6
        assert two[kind]["state"] < 1e-6  # running statistics too
    assert two["not synchronized"]["gradient"] > 1e-3  # each half normalised by itself: another function


def test_metrics_of_ragged_parts_are_those_of_all_images(two):
    metrics = two["metrics"]
    assert metrics["found"]["accuracy"] == metrics["accuracy"]  # exactly: a count over 77
    assert metrics["found"]["loss"] == pytest.approx(metrics["loss"], rel=1e-6)


def test_all_processes_end_with_the_same_weights_and_history(two):
    assert two["same weights"][0] == two["same weights"][1]
    assert two["histories"][0] == two["histories"][1]


def test_two_processes_train_like_one(two, one):
    assert two["norms"] == 2
    assert_close_weights(two["weights"], one[0])
    assert_close_history(two["histories"][0], one[1])


def test_only_the_main_process_calls_what_prints_and_writes(two):
    assert two["calls"] == [(15, 15), (15, 0)]
    assert two["output"].count("Interrupted in epoch 2, after step 7") == 1


def test_what_stops_one_process_stops_all(two):
    assert two["stopped"] == [1, 1]
    assert two["interrupted"] == [(True, 7), (True, 7)]


def test_a_loader_that_does_not_share_the_samples_is_refused(two):
    same, unequal = two["refusals"]
    assert "gives each of the 2 processes all samples" in same
    assert "DistributedSampler" in same
    assert "[10, 7] batches" in unequal


def test_a_nan_of_one_process_is_an_error_there(two):
    assert "NaN" in two["nan"][1]


def test_a_process_that_dies_ends_the_run_which_goes_on_with_one_process_or_two(two, one, folder):
    done = torchrun(SCRIPT, folder, "die")
    assert done.returncode != 0
    saved = load_checkpoint(folder / "die" / "last.pt")["run"]
    assert (saved["processes"], saved["step"]) == (2, 7) or saved["step"] == 6

    trainer = on_processes.make_trainer(None).resume(folder / "die" / "last.pt")
    history = trainer.fit(*on_processes.loaders())
    assert_close_weights(trainer.model.state_dict(), one[0])
    assert_close_history(history.epochs, one[1])

    done = torchrun(SCRIPT, folder, "finish")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("die", "ctrl-c"):
        weights, epochs = torch.load(folder / f"{name} finished.pt", weights_only=True)
        assert_close_weights(weights, one[0])
        assert_close_history(epochs, one[1])


def test_a_run_of_one_process_goes_on_with_two_as_well(folder, one):
    trainer = on_processes.make_trainer(folder / "die", epochs=1)
    trainer.fit(*on_processes.loaders())
    done = torchrun(SCRIPT, folder, "finish")
    assert done.returncode == 0, done.stdout + done.stderr
    weights, _ = torch.load(folder / "die finished.pt", weights_only=True)
    assert_close_weights(weights, one[0])
