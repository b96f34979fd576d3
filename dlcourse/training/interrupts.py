"""Ctrl-C that waits for a step to end, so that what is saved then is a state the run really was in."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """As a context, takes over Ctrl-C (SIGINT): inside `held()` the first one waits for the block to end.

    Everywhere else, and for a second one inside `held()`, it raises KeyboardInterrupt at once, as always. `broken` says
    that an exception left a `held()` block halfway. Outside the main thread, where Python allows no handler, and where
    the program ignores Ctrl-C, nothing is taken over.

    With `agree`, which says whether a flag is set in any process of the run, all processes stop together: at the end of
    a block that `breaks`, the same one in each. Every Ctrl-C waits for it then; torchrun sends several.
    """

    def __init__(self, agree: Callable[[bool], bool] | None = None) -> None:
        self.broken = False
        self._agree = agree
        self._held = False
        self._pending = False
        self._previous: Any = None
        self._process = os.getpid()

    def __enter__(self) -> Interrupts:
        self._pending = False
        self._process = os.getpid()
        previous = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(previous):
            self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    @contextmanager
    def held(self, *, raise_after: bool = True, breaks: bool = True) -> Iterator[None]:
        """A block that Ctrl-C does not break; KeyboardInterrupt comes at its end instead, unless not `raise_after`.

        `breaks` says whether an exception that leaves the block halfway makes the run `broken`.
        """
        self._held = True
        try:
            yield
        except BaseException:
            self.broken = self.broken or breaks
            raise
        finally:
            self._held = False
        if self._agree is not None:
            if not breaks:
                return
            self._pending = self._agree(self._pending)
        interrupted, self._pending = self._pending, False
        if interrupted and raise_after:
            raise KeyboardInterrupt

    def request(self) -> None:
        """Ask for a KeyboardInterrupt at the end of the block that is held."""
        self._pending = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader's worker, forked with this handler: the process that trains decides, and ends its workers
        if self._agree is not None or (self._held and not self._pending):
            self._pending = True
        else:
            self._previous(number, frame)
