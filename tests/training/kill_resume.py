"""Kill a training run at random moments with SIGKILL, resume each, and compare the end with a run left alone.

    python tests/training/kill_resume.py --kills 50 --seed 0

Every run is a process of its own, forked from one that has imported torch and computed nothing. It writes a checkpoint
every 1 to 3 steps, so that a good part of the kills fall into a write. A run killed before its first checkpoint starts
again from nothing. Prints "50 of 50 …", and exits with 1 when a final weight, an average or a number of the history
differs in a single bit, or when a checkpoint cannot be read.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from training_helpers import loaders, make_trainer

from dlcourse.training import load_checkpoint, save_checkpoint

EPOCHS = 20


def train(folder: Path, every: int) -> None:
    """Start or resume the run in `folder` and leave its end in final.pt."""
    trainer = make_trainer(
        folder, epochs=EPOCHS, checkpoint_every=every, ema=0.9, accumulate=2, clip_norm=1.0, scheduler_interval="step"
    )
    if (folder / "last.pt").exists():
        trainer.resume(folder / "last.pt")
    history = trainer.fit(*loaders(augment=True))
    save_checkpoint(folder / "final.pt", trainer.model, ema=trainer.ema, history=history.epochs)


def start(folder: Path, every: int) -> int:
    """Run `train` in a new process; returns its id."""
    process = os.fork()
    if process:
        return process
    try:
        train(folder, every)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_to_the_end(folder: Path, every: int) -> float:
    started = time.perf_counter()
    _, status = os.waitpid(start(folder, every), 0)
    if status:
        raise SystemExit(f"a run failed with status {status}")
    return time.perf_counter() - started


def killed(folder: Path, every: int, delay: float) -> bool:
    """Start a run, kill it after `delay` seconds; False when it had ended before."""
    process = start(folder, every)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def equal(one: Any, other: Any) -> bool:
    """Bit for bit, in nested dicts and lists."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    make_trainer(ema=0.9)  # imports what torch.optim imports late, so that a child starts training at once
    draw = random.Random(options.seed)
    work = Path(tempfile.mkdtemp())
    try:
        seconds = max(run_to_the_end(work / "whole", every) for every in (1, 1))
        whole = load_checkpoint(work / "whole" / "final.pt")
        done = same = writing = from_nothing = 0
        while done < options.kills:
            folder, every = work / f"run{done}", draw.randint(1, 3)
            shutil.rmtree(folder, ignore_errors=True)
            if not killed(folder, every, draw.uniform(0, seconds)):
                continue  # it had ended; draw another moment
            done += 1
            writing += any(folder.glob("*.tmp"))
            if (folder / "last.pt").exists():
                load_checkpoint(folder / "last.pt")
            else:
                from_nothing += 1
            run_to_the_end(folder, every)
            litter = [file.name for file in folder.iterdir() if file.suffix == ".tmp"]
            same += equal(load_checkpoint(folder / "final.pt"), whole) and not litter
    finally:
        shutil.rmtree(work)
    print(
        f"{same} of {done} killed runs ended with the weights of the run left alone, bit for bit "
        f"({writing} were killed while writing a checkpoint, {from_nothing} before the first one)"
    )
    return 0 if same == done else 1


if __name__ == "__main__":
    sys.exit(main())
