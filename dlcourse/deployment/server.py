"""Running the service: until it is told to stop, or in the background of a notebook or a test.

A stop is graceful: no new connection is taken, what was taken is answered, then the model's thread ends.
"""

from __future__ import annotations

import gc
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dlcourse.deployment.limits import Limits, guarded_protocol

if TYPE_CHECKING:
    from fastapi import FastAPI

SECONDS_TO_STOP = 40
LOOPBACK = "127.0.0.1"


def serve(
    app: FastAPI, host: str = LOOPBACK, port: int = 8000, *, on_start: Callable[[str], None] | None = None
) -> None:
    """Serve until Ctrl-C or SIGTERM. The default host is reachable from this machine only.

    on_start  called with the URL once the service takes connections
    Raises OSError when the port is taken.
    """
    listener = _listen(host, port)
    # What is loaded stays: the collector need not look through it again and again, while every request waits.
    gc.collect()
    gc.freeze()
    name = f"[{host}]" if ":" in host else host
    server = _server(app, lambda: on_start and on_start(f"http://{name}:{listener.getsockname()[1]}"))
    server.run(sockets=[listener])


class BackgroundServer:
    """The service in a thread, on a free port of this machine, for a notebook or a test.

    with BackgroundServer(create_app(predictor)) as server:
        urllib.request.urlopen(server.url + "/health")
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.url = ""

    def __enter__(self) -> BackgroundServer:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> BackgroundServer:
        """Start it, and wait until it takes connections."""
        if self.url:
            raise RuntimeError("this server runs already")
        listener = _listen(LOOPBACK, 0)
        self._server = _server(self.app)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the service did not start; its reason stands in the log above")
            time.sleep(0.01)
        self.url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        return self

    def stop(self) -> None:
        """Answer what was taken, then end. Stopping twice is no error."""
        if self.url:
            self._server.should_exit = True
            self._thread.join()
            self.url = ""


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener


def _server(app: FastAPI, started: Callable[[], Any] = lambda: None) -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            """As uvicorn's, which would raise the signal again at the end: a stop that was asked for is a success."""
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()

    limits: Limits = app.state.limits
    config = uvicorn.Config(
        app,
        http=guarded_protocol(limits),
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SECONDS_TO_STOP,
        timeout_keep_alive=15,
    )
    return Server(config)
