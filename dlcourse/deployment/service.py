"""What stands between a request and the model: pictures checked by their headers, decoded, batched and answered.

Nothing here knows of HTTP but the status in a Refusal; `app` puts the routes in front.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dlcourse.deployment.batching import Batcher, QueueFull
from dlcourse.deployment.limits import Limits, Refusal
from dlcourse.deployment.predictor import Prediction, Predictor
from dlcourse.deployment.screening import FORMATS, screen
from dlcourse.deployment.telemetry import Telemetry

if TYPE_CHECKING:
    from dlcourse.deployment.monitoring import PredictionMonitor

SMALL_PIXELS = 1_000_000
"""A larger picture is decoded apart, one at a time: it must neither hold up the others nor, with its like, fill the memory."""
LOG = logging.getLogger("dlcourse.service")


@dataclass(frozen=True)
class Picture:
    """A picture of a request on its way to the model: a file's bytes, or, once decoded, the network's input."""

    name: str
    content: bytes | np.ndarray
    arrived: float


class Service:
    """The application's state: the model, the thread that computes, and whether it is ready."""

    def __init__(self, predictor: Predictor, limits: Limits, monitor: PredictionMonitor | None) -> None:
        self.predictor, self.limits, self.monitor = predictor, limits, monitor
        self.telemetry = Telemetry(predictor.card.classes)
        self.batcher: Batcher[Picture, Prediction] | None = None
        self.tested = False
        self._large = asyncio.Semaphore(1)

    @property
    def ready(self) -> bool:
        """Whether the model has answered the self-test and takes pictures."""
        return self.tested and self.batcher is not None and self.batcher.alive

    async def start(self) -> None:
        """Start the thread, and ask the model for an answer to a grey picture, on the way that every picture takes."""
        self.batcher = Batcher(self._compute, max_queue=self.limits.queue)
        size = self.predictor.card.preprocessing.size
        picture = io.BytesIO()
        Image.new("RGB", (size, size), "grey").save(picture, "PNG")
        try:
            await self.batcher.submit([Picture("the self-test", picture.getvalue(), 0.0)])
            self.tested = True
        except Exception:
            LOG.exception("the model failed its self-test; the service is not ready")

    def stop(self) -> None:
        """Answer what waits, and take nothing new."""
        if self.batcher is not None:
            self.batcher.close()

    async def answers(self, files: Sequence[tuple[str, bytes]]) -> list[Prediction]:
        """An answer to each of the (name, content). Raises Refusal for a file that is no picture, and when it takes too long."""
        arrived = time.perf_counter()
        if not self.ready or self.batcher is None:
            raise Refusal(503, "the model is not ready yet, or the service is stopping; try again in a moment")
        try:
            async with asyncio.timeout(self.limits.answer_seconds):
                pictures = [Picture(name, await self._checked(name, content), arrived) for name, content in files]
                return await self.batcher.submit(pictures)
        except QueueFull:
            raise Refusal(503, "the service is busy; try again in a moment") from None
        except TimeoutError:
            raise Refusal(503, "the answer took too long; try again in a moment") from None

    async def _checked(self, name: str, content: bytes) -> bytes | np.ndarray:
        """The content, known to be a picture by its structure; a large one is decoded here. Raises Refusal."""
        if not content:
            raise Refusal(400, f"{name} is empty")
        found = screen(content)
        if found is None:
            raise Refusal(415, f"{name} is not a picture of a kind that is read here: {', '.join(FORMATS)}")
        if found.pixels > self.limits.pixels:
            most = f"{self.limits.pixels / 1e6:.3g} million pixels that one may have"
            raise Refusal(413, f"{name} has {found.pixels / 1e6:.3g} million pixels, more than the {most}")
        if found.pixels <= SMALL_PIXELS:
            return found.content
        async with self._large:
            prepared = await asyncio.to_thread(self._prepare, name, found.content, self.limits.pixels)
        if isinstance(prepared, Exception):
            raise prepared
        return prepared

    def _prepare(self, name: str, content: bytes, pixels: int = SMALL_PIXELS) -> np.ndarray | Refusal:
        try:
            return self.predictor.prepare(content, max_pixels=pixels, formats=FORMATS)
        except ValueError:
            return Refusal(400, f"{name} is damaged or cut short")

    def _compute(self, pictures: list[Picture]) -> list[Prediction | Exception]:
        """Runs in the thread of the batcher."""
        inputs = [
            p.content if isinstance(p.content, np.ndarray) else self._prepare(p.name, p.content) for p in pictures
        ]
        images = [image for image in inputs if isinstance(image, np.ndarray)]
        predictions = iter(self.predictor.answer(np.stack(images)) if images else [])
        answers: list[Prediction | Exception] = []
        now = time.perf_counter()
        for picture, image in zip(pictures, inputs, strict=True):
            if isinstance(image, Exception):
                answers.append(image)
                continue
            prediction = next(predictions)
            answers.append(prediction)
            if picture.arrived:  # the self-test is no prediction
                self.telemetry.predicted(prediction)
                if self.monitor is not None:
                    self.monitor.record(prediction, image=image, seconds=now - picture.arrived)
        self.telemetry.batch_size.observe(len(pictures))
        return answers
