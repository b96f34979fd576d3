"""Requests that arrive together are computed together.

One thread computes. While it is busy with a batch, new items queue up, and all that wait become the next batch: no item
ever waits for company, a lone one is computed at once, and the batches grow by themselves as the load does.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Waiting = tuple[Item, "asyncio.Future[Answer]", asyncio.AbstractEventLoop]


class QueueFull(Exception):
    """More items wait than may; the request was not taken."""


class Batcher(Generic[Item, Answer]):
    """A thread that answers items in batches of at most `max_batch`, in the order in which they came.

    compute    list of items -> list of as many answers; an answer that is an exception is raised for its item alone,
               one raised by compute itself is raised for every item of the batch
    max_queue  items that may wait; a request that would make them more raises QueueFull
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Sequence[Answer | Exception]],
        *,
        max_batch: int = 32,
        max_queue: int = 256,
    ) -> None:
        if max_batch < 1 or max_queue < 1:
            raise ValueError(f"max_batch={max_batch} and max_queue={max_queue} must both be at least 1")
        self.compute, self.max_batch, self.max_queue = compute, max_batch, max_queue
        self._waiting: deque[Waiting[Item, Answer]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the thread still takes items."""
        return self._thread.is_alive() and not self._closing

    async def submit(self, items: Sequence[Item]) -> list[Answer]:
        """The answers to all of the items of one request. Raises QueueFull, and what `compute` raised for one of them."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = [loop.create_future() for _ in items]
        with self._changed:
            if not self.alive:
                raise QueueFull("the service is stopping")
            if len(self._waiting) + len(items) > self.max_queue:
                raise QueueFull(f"{len(self._waiting)} pictures wait already")
            self._waiting.extend((item, future, loop) for item, future in zip(items, futures, strict=True))
            self._changed.notify()
        try:
            return await asyncio.gather(*futures) if len(futures) > 1 else [await futures[0]]
        finally:
            for future in futures:  # a request that was given up: what still waits of it is not computed
                future.cancel()

    def close(self) -> None:
        """Answer what waits, take nothing new, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                answers = self.compute([item for item, _, _ in batch])
                if len(answers) != len(batch):
                    raise RuntimeError(f"{len(answers)} answers to {len(batch)} items")
            except Exception as error:
                answers = [error] * len(batch)
            self._deliver(
                [(future, answer) for (_, future, _), answer in zip(batch, answers, strict=True)], batch[0][2]
            )

    def _next_batch(self) -> list[Waiting[Item, Answer]]:
        """What waits, at most `max_batch`; waits for the first item. Empty when the batcher is closed and all is done."""
        with self._changed:
            while True:
                batch: list[Waiting[Item, Answer]] = []
                while self._waiting and len(batch) < self.max_batch:
                    entry = self._waiting.popleft()
                    if not entry[1].cancelled():
                        batch.append(entry)
                if batch or self._closing:
                    return batch
                self._changed.wait()

    def _deliver(
        self, answered: list[tuple[asyncio.Future[Answer], Answer | Exception]], loop: asyncio.AbstractEventLoop
    ) -> None:
        def settle() -> None:
            for future, answer in answered:
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

        if not loop.is_closed():
            loop.call_soon_threadsafe(settle)  # futures belong to their loop; one call for the batch wakes it once
