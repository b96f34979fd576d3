"""JupyterLab as a learner starts it (`jupyter lab notebooks`), kept away from this user's settings and from the network."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 40
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}  # either would ask the network


@dataclass(frozen=True)
class Lab:
    """A running server: where a notebook of its folder opens, and the folder."""

    url: str
    token: str
    folder: Path

    def page(self, notebook: str) -> str:
        # A workspace of its own, so that no notebook is open from an earlier page; `reset` forgets its layout.
        workspace = Path(notebook).stem
        return f"{self.url}lab/workspaces/{workspace}/tree/{notebook}?reset&token={self.token}"


@contextmanager
def running_lab(folder: Path, home: Path) -> Iterator[Lab]:
    """Run `jupyter lab FOLDER` until the block ends; all that it writes about itself goes under `home`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}/", secrets.token_hex(16), folder)
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(NO_NEWS))
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = (
        os.environ | {name: str(home / place) for name, place in places.items()} | {"JUPYTER_TOKEN": lab.token}
    )
    environment.pop("MPLBACKEND", None)  # the tests draw off screen; a learner's figures appear in the page
    command = [
        str(Path(sys.executable).with_name("jupyter")),
        "lab",
        str(folder),
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # continuous integration often is root; JupyterLab refuses it otherwise
    log = home / "jupyter.log"
    with log.open("w") as sink:
        server = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT)
        try:
            _wait_until_it_answers(lab, server, log)
            yield lab
        finally:
            _stop(server)


def _wait_until_it_answers(lab: Lab, server: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(f"{lab.url}api/status", headers={"Authorization": f"token {lab.token}"})
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start in {START_SECONDS} s:\n{log.read_text()[-2000:]}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server the way Ctrl-C twice does: it takes its kernels with it."""
    server.terminate()
    try:
        server.wait(timeout=15)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
