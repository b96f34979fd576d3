"""Kill one of two processes in the middle of `torchrun … -m dlcourse train`, go on with one process, and compare.

    python tests/experiment/kill_a_process.py --config fashion-mini --seconds 2

Prints the exit status of torchrun, what it said, the step that was saved, and the largest difference of the final weights
and metrics from a run on two processes that nothing stopped, and from one on one process. Without augmentation and
dropout, and with batch norm over the whole batch, they differ by rounding only, which training makes grow.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from dlcourse.experiment import Run
from dlcourse.training import load_checkpoint

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dlcourse", "--", "train"]
ONE = [sys.executable, "-m", "dlcourse", "train"]


def start(command: list[str], folder: Path, *flags: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *flags, "--run", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str], name: str) -> float:
    started = time.perf_counter()
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}:\n{error}")
    return time.perf_counter() - started


def workers_after_a_checkpoint(torchrun: subprocess.Popen[str], checkpoint: Path, seconds: float) -> list[psutil.Process]:
    """The processes that train, so many seconds after the first checkpoint."""
    while not checkpoint.exists() and torchrun.poll() is None:
        time.sleep(0.05)
    time.sleep(seconds)
    if torchrun.poll() is not None:
        raise SystemExit(f"the run was over {seconds:g} s after its first checkpoint: give fewer --seconds or more --epochs\n{torchrun.communicate()[1]}")
    return [child for child in psutil.Process(torchrun.pid).children() if "dlcourse" in child.cmdline()]


def difference(run: Run, other: Run) -> str:
    weights, others = (load_checkpoint(each.folder / "last.pt")["model"] for each in (run, other))
    largest = max(float((weights[name].double() - others[name].double()).abs().max()) for name in weights)
    scale = max(float(value.double().abs().max()) for value in others.values())
    metrics = [abs(run.history.epochs[-1][key] - other.history.epochs[-1][key]) for key in ("val_loss", "val_accuracy")]
    return f"weights {largest:.2g} of at most {scale:.2g}, val_loss {metrics[0]:.2g}, val_accuracy {metrics[1]:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="fashion-mini")
    parser.add_argument("--epochs", default="6")
    parser.add_argument("--seconds", type=float, default=2, help="from the first checkpoint to the kill")
    given = parser.parse_args()
    flags = [
        "--config", given.config, "--training.epochs", given.epochs, "--training.checkpoint_every", "5",
        "--augmentation", "none", "--optimizer.name", "sgd", "--optimizer.lr", "0.02", "--model.options", "{dropout: 0}", "--training.sync_batch_norm", "true",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        print(f"one process:   {finish(start(ONE, root / 'one', *flags), 'one process'):.0f} s")
        print(f"two processes: {finish(start(TORCHRUN, root / 'two', *flags), 'two processes'):.0f} s")
        killed = start(TORCHRUN, root / "killed", *flags)
        workers = workers_after_a_checkpoint(killed, root / "killed" / "last.pt", given.seconds)
        workers[-1].send_signal(signal.SIGKILL)
        began = time.perf_counter()
        _, said = killed.communicate(timeout=120)
        left = [worker.pid for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
        print(f"killed one of {len(workers)}: torchrun ended {time.perf_counter() - began:.1f} s later with {killed.returncode}, left running: {left}")
        lines = [line for line in said.splitlines() if line.startswith("dlcourse")]
        print(*lines, sep="\n")
        saved = load_checkpoint(root / "killed" / "last.pt")["run"]
        print(f"saved: epoch {saved['epoch'] + 1}, step {saved['step']}, of {saved['processes']} processes")
        print(f"resumed on one: {finish(start(ONE, root / 'killed', *flags, '--resume'), 'resumed'):.0f} s")
        killed_run, two, one = (Run(root / name) for name in ("killed", "two", "one"))
        print(f"killed and resumed against two processes: {difference(killed_run, two)}")
        print(f"killed and resumed against one process:   {difference(killed_run, one)}")
        print(f"two processes against one:                {difference(two, one)}")


if __name__ == "__main__":
    main()
