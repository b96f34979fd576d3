"""The real service in a process of its own, for those who attack it and those who load it.

As a script it is that process: `python tests/deployment/running.py MODEL [--log FILE] [--api-key KEY] [--limits JSON]`.
It prints its URL once it takes connections.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

START_SECONDS = 60


@dataclass
class Running:
    """A service process: where it answers, and the largest memory that it was seen to have."""

    url: str
    process: subprocess.Popen[str]
    peak: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def watch(self) -> None:
        """Follow the process's resident memory until it ends; `peak` may be set back to 0 at any time."""
        seen = psutil.Process(self.process.pid)
        while not self._stop.wait(0.02):
            try:
                self.peak = max(self.peak, seen.memory_info().rss)
            except psutil.Error:
                return


@contextmanager
def running(model: Path, *options: str) -> Iterator[Running]:
    """The service of a model file, started as a program; ended with SIGKILL if it is still alive after the block."""
    command = [sys.executable, str(Path(__file__)), str(model), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    killer = threading.Timer(START_SECONDS, process.kill)
    killer.start()
    url = process.stdout.readline().strip()
    killer.cancel()
    if not url:
        process.kill()
        raise RuntimeError(f"the service did not start: {' '.join(command)}")
    service = Running(url, process)
    watcher = threading.Thread(target=service.watch, daemon=True)
    watcher.start()
    try:
        yield service
    finally:
        service._stop.set()
        process.kill()
        process.wait()
        process.stdout.close()


def export_model(path: Path, name: str = "simple_cnn", **options: object) -> Path:
    """An untrained model of ten classes for 32 × 32 pixels, as an ONNX file."""
    import torch

    from dlcourse.data import eval_transform
    from dlcourse.deployment import ModelCard, export_onnx
    from dlcourse.models import create_model

    torch.manual_seed(0)
    card = ModelCard(tuple(f"class {n}" for n in range(10)), eval_transform(32), name=name)
    return export_onnx(create_model(name, 10, **options), path, card)


def one_picture(size: int = 32, kind: str = "PNG", **options: object) -> bytes:
    """A small picture of noise, as a file."""
    import numpy as np
    from PIL import Image

    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--log", help="the monitor's log; without it there is no monitor")
    parser.add_argument("--api-key")
    parser.add_argument("--limits", type=json.loads, default={}, help='as JSON, e.g. {"header_seconds": 2}')
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    from dlcourse.deployment import Limits, Predictor, create_app, serve

    monitor = None
    if given.log:
        from dlcourse.deployment.monitoring import PredictionMonitor

        monitor = PredictionMonitor(log=given.log)
    predictor = Predictor(given.model, threads=given.threads)
    limits = Limits(**given.limits)
    samples = [("one.png", one_picture())]
    app = create_app(predictor, limits=limits, monitor=monitor, api_key=given.api_key, samples=samples)
    serve(app, port=0, on_start=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
