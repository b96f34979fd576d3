"""What a training ran on, without a name of the user, the machine or a folder of it."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import dlcourse
from dlcourse.runtime import usable_cores
from dlcourse.training.distributed import world_size

PACKAGES = ("dlcourse", "torch", "torchvision", "timm", "numpy")


def environment(seed: int, device: torch.device) -> dict[str, Any]:
    """Versions, facts of the machine, the commit of the course's code where it lies in a git repository, and the seed."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cores": usable_cores(),
        "processes": world_size(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "commit": _commit(Path(dlcourse.__file__).parent),
        "seed": seed,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit that the folder's files are of, with a "+" when they were changed since; None outside of git."""
    try:
        commit, changed = (
            subprocess.run(["git", "-C", str(folder), *question], capture_output=True, text=True, check=True, timeout=10).stdout
            for question in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "."])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.strip() + ("+" if changed.strip() else "")
