"""Ctrl-C at any moment leaves a resumable checkpoint and one clear line; a second one stops at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from torch.nn import functional as F
from torch.utils.data import DataLoader
from training_helpers import Points, assert_same_weights, loaders, make_trainer

from dlcourse.training import Callback, CheckpointError, load_checkpoint
from dlcourse.training.interrupts import Interrupts

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _ctrl_c_is_heeded():
    """A shell that runs the tests in the background has Ctrl-C ignored, and they would inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


class CtrlCLoader(DataLoader):
    """Presses Ctrl-C in the middle of loading batch number `at`, when some of its random numbers are drawn."""

    def __init__(self, at):
        self.items, self.at = 0, at
        loader = self

        class Dataset(Points):
            def __getitem__(self, index):
                loader.items += 1
                item = super().__getitem__(index)
                if loader.items == 8 * (loader.at - 1) + 3:
                    press_ctrl_c()
                return item

        super().__init__(Dataset(augment=True), 8, shuffle=True)


@pytest.fixture(scope="module")
def whole():
    trainer = make_trainer(ema=0.9)
    trainer.fit(*loaders(augment=True))
    return trainer


def assert_resumes(tmp_path, whole):
    resumed = make_trainer(tmp_path, ema=0.9).resume(tmp_path / "last.pt")
    history = resumed.fit(*loaders(augment=True))
    assert history.epochs == whole.history.epochs
    assert_same_weights(resumed.model, whole.model)


@pytest.mark.parametrize("batch", [1, 4, 7, 9])
def test_while_a_batch_is_loaded(tmp_path, whole, batch, capsys):
    trainer = make_trainer(tmp_path, ema=0.9)
    history = trainer.fit(CtrlCLoader(batch), loaders()[1])
    assert history.interrupted
    step = trainer.state.step
    assert step < batch
    path = str(tmp_path / "last.pt")
    epoch = 1 + step // 6
    assert capsys.readouterr().out == (
        f"Interrupted in epoch {epoch}, after step {step}. "
        f"Call fit again to go on; in a new process: trainer.resume({path!r}).fit(…)\n"
    )
    assert_resumes(tmp_path, whole)


@pytest.mark.parametrize("call", [1, 5, 7, 8, 9, 15])  # 6 training losses and 2 of validation an epoch
def test_in_the_middle_of_a_step_or_an_evaluation(tmp_path, whole, call):
    calls = []

    def loss_fn(outputs, targets):
        calls.append(outputs)
        if len(calls) == call:
            press_ctrl_c()
        return F.cross_entropy(outputs, targets)

    trainer = make_trainer(tmp_path, ema=0.9)
    trainer.loss_fn = loss_fn
    assert trainer.fit(*loaders(augment=True)).interrupted
    assert trainer.state.step == {1: 1, 5: 5, 7: 6, 8: 6, 9: 7, 15: 12}[call]
    assert_resumes(tmp_path, whole)


def test_during_the_end_of_an_epoch(tmp_path, whole):
    class CtrlC(Callback):
        def on_epoch_end(self, trainer, record):
            press_ctrl_c()

    history = make_trainer(tmp_path, ema=0.9, callbacks=[CtrlC()]).fit(*loaders(augment=True))
    assert (history.interrupted, len(history.epochs)) == (True, 1)
    assert load_checkpoint(tmp_path / "last.pt")["run"]["epoch"] == 1
    assert_resumes(tmp_path, whole)


def test_fit_again_in_the_same_process_goes_on(whole, capsys):
    class CtrlC(Callback):
        def on_step_end(self, trainer):
            if trainer.state.step in (4, 11):
                press_ctrl_c()

    trainer = make_trainer(ema=0.9, callbacks=[CtrlC()])
    pair = loaders(augment=True)
    assert [trainer.fit(*pair).interrupted for _ in range(3)] == [True, True, False]
    assert "without a checkpoint_dir nothing was saved" in capsys.readouterr().out
    assert trainer.history.epochs == whole.history.epochs
    assert_same_weights(trainer.model, whole.model)


@pytest.mark.parametrize("saved", [True, False])
def test_a_second_one_stops_at_once_and_saves_no_half_step(tmp_path, whole, capsys, saved):
    calls = []

    def loss_fn(outputs, targets):
        calls.append(outputs)
        if len(calls) == 4:
            press_ctrl_c()
            press_ctrl_c()
        return F.cross_entropy(outputs, targets)

    trainer = make_trainer(tmp_path, ema=0.9, checkpoint_every=2 if saved else 10)
    trainer.loss_fn = loss_fn
    assert trainer.fit(*loaders(augment=True)).interrupted
    text = "Interrupted in epoch 1, after step 3. The next step was cut short"
    assert capsys.readouterr().out == f"{text}; resume from {tmp_path / 'last.pt'}.\n" if saved else f"{text}.\n"
    with pytest.raises(RuntimeError, match="broke off within a step"):
        trainer.fit(*loaders(augment=True))
    if saved:
        assert load_checkpoint(tmp_path / "last.pt")["run"]["step"] == 2
        assert_resumes(tmp_path, whole)
    else:
        with pytest.raises((CheckpointError, FileNotFoundError)):
            make_trainer(ema=0.9).resume(tmp_path / "last.pt")


def test_the_handler_is_given_back():
    before = signal.getsignal(signal.SIGINT)
    make_trainer(epochs=1).fit(*loaders())
    assert signal.getsignal(signal.SIGINT) is before


def test_a_program_that_ignores_ctrl_c_still_does():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        history = make_trainer(epochs=1).fit(CtrlCLoader(2), loaders()[1])
    finally:
        signal.signal(signal.SIGINT, before)
    assert not history.interrupted


def test_fit_works_in_another_thread():
    trainer = make_trainer(epochs=1)
    thread = threading.Thread(target=lambda: trainer.fit(*loaders()))
    thread.start()
    thread.join()
    assert len(trainer.history.epochs) == 1


def test_an_exception_leaves_the_handler_as_it_was():
    before, interrupts = signal.getsignal(signal.SIGINT), Interrupts()
    with pytest.raises(ZeroDivisionError), interrupts, interrupts.held():
        raise ZeroDivisionError
    assert interrupts.broken
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are not forked here")
def test_a_forked_worker_leaves_ctrl_c_to_the_process_that_trains():
    with Interrupts():
        child = os.fork()
        if child == 0:
            try:
                press_ctrl_c()
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


PROGRAM = """
import signal
import sys
from pathlib import Path
from torch.utils.data import ConcatDataset, DataLoader
from training_helpers import Points, loaders, make_trainer
from dlcourse.training import Callback

class Slow(Callback):
    def on_step_end(self, trainer):
        if trainer.state.step == 3:
            Path(sys.argv[1], "third step").touch()

signal.signal(signal.SIGINT, signal.default_int_handler)
many = ConcatDataset([Points(augment=True)] * 2000)  # an epoch longer than the test: the workers start only once
train_loader = DataLoader(many, 8, shuffle=True, num_workers=2)
history = make_trainer(sys.argv[1], epochs=1, callbacks=[Slow()]).fit(train_loader, loaders()[1])
print("interrupted:", history.interrupted)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals another process group")
def test_ctrl_c_in_a_terminal_with_workers(tmp_path):
    """The terminal sends it to the workers as well."""
    here = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not (tmp_path / "third step").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Interrupted in epoch")
    assert lines[1] == "interrupted: True"
    assert not err
    assert load_checkpoint(tmp_path / "last.pt")["run"]["step"] >= 3
