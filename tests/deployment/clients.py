"""Clients that cost as little as can be, because they share the machine with the service that they measure.

As a script: `python tests/deployment/clients.py URL --clients 64 --seconds 10`; it prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from hostile_requests import form, post
from PIL import Image


@dataclass
class Measured:
    """What the clients saw."""

    seconds: float
    answered: int
    errors: int
    p50: float
    p95: float
    p99: float
    first: str
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds


class Client(asyncio.Protocol):
    """Sends the same request over and over on one connection, each as soon as the one before is answered."""

    def __init__(self, drive: Drive) -> None:
        self.drive = drive
        self.received = b""
        self.done = False
        self.began = time.perf_counter()  # making the connection counts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._send()

    def _send(self) -> None:
        self.transport.write(self.drive.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.received += data
        head = self.received.find(b"\r\n\r\n")
        if head < 0:
            return
        where = self.received[:head].lower().find(b"content-length:")
        length = int(self.received[where + 15 : head].split(b"\r\n", 1)[0])
        if len(self.received) < head + 4 + length:
            return
        self.drive.answered(time.perf_counter() - self.began, self.received[9:12], self.received[head + 4 :])
        if b"connection: close" in self.received[:head].lower():  # Flask's own server keeps no connection
            self.done = True
            self.transport.abort()
            self.drive.again()
            return
        self.received = b""
        self.began = time.perf_counter()
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done:
            self.drive.lost()


class Drive:
    """All clients, for a while."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.host, self.port, self.request = host, port, request
        self.counting = False
        self.latencies: list[float] = []
        self.statuses: dict[str, int] = {}
        self.first = b""
        self.broken = 0
        self.ending = False

    def answered(self, seconds: float, status: bytes, body: bytes) -> None:
        self.first = self.first or body
        if self.counting:
            self.latencies.append(seconds)
            name = status.decode()
            self.statuses[name] = self.statuses.get(name, 0) + 1

    def lost(self) -> None:
        if not self.ending:
            self.broken += 1
            self.again()

    def again(self) -> None:
        """Replace a connection that has ended."""
        if not self.ending:
            self._tasks.add(task := asyncio.ensure_future(self.connect()))
            task.add_done_callback(self._tasks.discard)

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: Client(self), self.host, self.port)

    async def run(self, clients: int, seconds: float, warm: float) -> Measured:
        self._tasks: set[asyncio.Future[None]] = set()
        for _ in range(clients):
            await self.connect()
        await asyncio.sleep(warm)
        self.counting, began = True, time.perf_counter()
        await asyncio.sleep(seconds)
        self.counting, self.ending = False, True
        took = time.perf_counter() - began
        times = sorted(self.latencies) or [float("inf")]
        good = self.statuses.get("200", 0)
        at = [times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.95, 0.99)]
        errors = len(self.latencies) - good + self.broken
        return Measured(took, good, errors, *at, self.first.decode(), self.statuses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true", help="send the picture as base64 in JSON, not as a form")
    parser.add_argument("--warm", type=float, default=2)
    given = parser.parse_args()
    host, _, port = given.url.removeprefix("http://").rstrip("/").rpartition(":")
    if sys.platform != "win32":
        import uvloop

        uvloop.install()
    request = post(form([("files", "picture.png", a_garment())]))
    if given.json:
        body = json.dumps({"picture": base64.b64encode(a_garment()).decode()}).encode()
        request = post(body, kind="application/json")
    drive = Drive(host, int(port), request)
    print(json.dumps(asdict(asyncio.run(drive.run(given.clients, given.seconds, given.warm)))))


def a_garment() -> bytes:
    """A picture of the embedded data set, as a file; read without torch, whose import would take the clients seconds."""
    stored = Path(__file__).parents[2] / "assets" / "fashion_mini" / "fashion_mini.npz"
    with np.load(stored) as arrays:
        name = next(name for name in arrays.files if arrays[name].ndim >= 3)
        pixels = arrays[name][0].squeeze()
    content = io.BytesIO()
    Image.fromarray(pixels if pixels.ndim == 2 or pixels.shape[-1] == 3 else pixels.transpose(1, 2, 0)).convert("RGB").save(content, "PNG")
    return content.getvalue()


if __name__ == "__main__":
    main()
