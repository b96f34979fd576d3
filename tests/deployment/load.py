"""Requests a second and latency of three ways to serve one model, one after another on this machine.

    python tests/deployment/load.py --seconds 60 --clients 64 [--model resnet18] [--only ours]

ours      the service of dlcourse.deployment: what waits is computed together
flask     a plain route of Flask, one picture a call, in its own threaded server, which closes each connection
litserve  LitServe with batches of up to 32; it gets the picture as base64 in JSON, since it hands no form to its workers

Each serves the same ONNX file, does the same preprocessing and gives the same answer to one 32 × 32 PNG, sent as a form
over kept-alive connections, by clients in a process of their own. Exit status 1 when an answer differs, a request fails,
or ours is not ahead.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clients import Measured

HERE = Path(__file__).parent
MODELS = {"simple_cnn": {}, "resnet18": {"stem": "cifar"}}
WAYS = ("ours", "flask", "litserve")
START_SECONDS = 90


# ---- The services ------------------------------------------------------------------------------------------------


def serve_ours(model: Path, port: int, threads: int | None) -> None:
    from dlcourse.deployment import Predictor, create_app, serve

    serve(create_app(Predictor(model, threads=threads)), port=port)


def serve_flask(model: Path, port: int, threads: int | None) -> None:
    import logging

    from flask import Flask, request
    from lit_api import as_json

    from dlcourse.deployment import Predictor

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    predictor = Predictor(model, threads=threads)
    app = Flask("plain")

    @app.post("/predict")
    def predict():
        return as_json(predictor, predictor.predict(request.files["files"].read()))

    @app.get("/health")
    def health():
        return {"status": "ok"}

    app.run("127.0.0.1", port, threaded=True)


def serve_litserve(model: Path, port: int, threads: int | None) -> None:
    import litserve
    from lit_api import LitClassifier

    api = LitClassifier(model, threads)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, track_requests=False)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, num_api_servers=1, log_level="error")


# ---- The measurement ---------------------------------------------------------------------------------------------


def measure(way: str, model: Path, clients: int, seconds: float, threads: int | None) -> Measured:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "--serve", way, str(model), str(port), *([str(threads)] if threads else [])]
    service = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(port, service)
        drive = [sys.executable, str(HERE / "clients.py"), f"http://127.0.0.1:{port}", f"--clients={clients}", f"--seconds={seconds}"]
        drive += ["--json"] if way == "litserve" else []
        done = subprocess.run(drive, check=True, capture_output=True, text=True, timeout=seconds + 60)
        return Measured(**json.loads(done.stdout))
    finally:
        os.killpg(service.pid, signal.SIGKILL)
        service.wait()


def wait_for(port: int, service: subprocess.Popen[bytes]) -> None:
    from urllib.request import urlopen

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and service.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the service did not start")


def same(first: str, other: str) -> bool:
    """Whether two answers name the same classes with the same probabilities, to five places."""
    one, two = (json.loads(text)["predictions"][0]["top"] for text in (first, other))
    return all(a["label"] == b["label"] and abs(a["probability"] - b["probability"]) < 1e-5 for a, b in zip(one, two, strict=True))


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        way, model, port, *threads = sys.argv[2:]
        globals()[f"serve_{way}"](Path(model), int(port), int(threads[0]) if threads else None)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of measurement for each, after 2 s of warm-up")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--only", choices=WAYS)
    parser.add_argument("--threads", type=int, help="of the model, for each; by default as many as there are cores")
    given = parser.parse_args()
    measured: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as folder:
        from running import export_model

        model = export_model(Path(folder, "model.onnx"), given.model, **MODELS[given.model])
        print(f"{given.model}, {given.clients} clients, {given.seconds:g} s each")
        print(f"{'':<10} {'requests/s':>10} {'p50':>9} {'p95':>9} {'p99':>9} {'errors':>7}")
        for way in [given.only] if given.only else WAYS:
            found = measured[way] = measure(way, model, given.clients, given.seconds, given.threads)
            times = " ".join(f"{1000 * t:6.1f} ms" for t in (found.p50, found.p95, found.p99))
            print(f"{way:<10} {found.per_second:10.0f} {times} {found.errors:7}", flush=True)
    ours = measured.get("ours")
    if ours is None:
        return 0
    faults = [f"{ours.errors} errors"] if ours.errors else []
    for way, other in measured.items():
        if not same(ours.first, other.first):
            faults.append(f"{way} answers otherwise than ours")
        if way != "ours" and ours.per_second <= other.per_second:
            faults.append(f"{way} answers more requests a second")
        if way != "ours" and ours.p99 > other.p99:
            faults.append(f"{way} has the shorter p99")
    print("; ".join(faults) or "every answer equal, none failed")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
