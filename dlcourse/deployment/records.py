"""A file of records, one JSON object a line: bounded in size, whole lines whatever happens, never in the way of an answer.

Not `logging`: there a handler that is added twice writes every record twice. Here a path has one writer in a process,
however many monitors use it, and another process is refused.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_writers: weakref.WeakValueDictionary[Path, RecordLog] = weakref.WeakValueDictionary()
_opening = threading.Lock()


class RecordLog:
    """Appends records to a file; past `max_bytes` it becomes path.1, that becomes path.2, up to `backups` of them.

    `RecordLog.at(path)` gives the one writer that this process has for the path. A record that cannot be written (a full
    disk, a folder taken away) is counted in `lost`, and the next one is tried again.
    """

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        self.path, self.max_bytes, self.backups = path, max_bytes, backups
        self.lost = 0
        self._lock = threading.Lock()
        self._file: io.FileIO | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._opened()
        except BlockingIOError:
            raise ValueError(f"log={path} is being written by another process; give each its own file") from None
        except OSError as error:
            raise ValueError(f"log={path} cannot be written: {error.strerror}") from error

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, max_bytes: int = 10_000_000, backups: int = 3) -> RecordLog:
        """Raises ValueError for a path that cannot be written, is another process's, or is open with other bounds."""
        if max_bytes < 1000 or backups < 0:
            raise ValueError(f"max_bytes={max_bytes} must be at least 1000, backups={backups} at least 0")
        resolved = Path(path).resolve()
        with _opening:
            log = _writers.get(resolved)
            if log is None:
                log = _writers[resolved] = cls(resolved, max_bytes, backups)
        if (log.max_bytes, log.backups) != (max_bytes, backups):
            raise ValueError(f"log={path} is open already, with max_bytes={log.max_bytes} and backups={log.backups}")
        return log

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record in a single system call, so that a killed process can tear no line but its last. Never raises."""
        with self._lock:
            try:
                line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                if self._file is None:
                    self._file = self._opened()
                status = os.fstat(self._file.fileno())
                if status.st_nlink == 0:  # somebody has deleted it
                    self._reopen()
                elif status.st_size > 0 and status.st_size + len(line) > self.max_bytes:
                    self._rotate()
                written = self._file.write(line)
                if written != len(line):
                    raise OSError(f"{written} of {len(line)} bytes written")
            except (OSError, TypeError, ValueError, RecursionError):
                self.lost += 1
                self._close()  # opened again, the file's torn end is seen

    def close(self) -> None:
        """Let go of the file; the next `write` opens it again."""
        with self._lock:
            self._close()

    def _opened(self) -> io.FileIO:
        """The file to append to, this process's own, ending in a whole line."""
        file = io.FileIO(self.path, "ab+")
        try:
            _claim(file)
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
        except OSError:
            file.close()
            raise
        return file

    def _reopen(self) -> None:
        self._close()
        self._file = self._opened()

    def _rotate(self) -> None:
        self._close()
        for number in range(self.backups, 0, -1):
            older = _numbered(self.path, number - 1)
            if older.exists():
                older.replace(_numbered(self.path, number))
        if self.backups == 0:
            self.path.unlink()
        self._file = self._opened()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._close()


def read_log(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The records of a log and its older files, oldest first. A torn line is passed over.

    Raises FileNotFoundError when there is none.
    """
    latest = Path(path)
    if not latest.exists() and not _numbered(latest, 1).exists():
        raise FileNotFoundError(f"there is no log {path}")
    return _records(latest)


def _records(latest: Path) -> Iterator[dict[str, Any]]:
    count = 0
    while _numbered(latest, count + 1).exists():
        count += 1
    for number in range(count, -1, -1):
        with contextlib.suppress(FileNotFoundError), _numbered(latest, number).open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    if isinstance(record := json.loads(line), dict):
                        yield record


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _claim(file: io.FileIO) -> None:
    """Lock the file against other processes, where the system has such locks. Raises BlockingIOError."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
