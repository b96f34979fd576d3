"""The Predictor: a file of a model in, answers to pictures out. It needs the file and nothing else.

Whatever form a picture arrives in (path, bytes, Pillow image, array, tensor) it becomes the same uint8 tensor, goes
through the preprocessing that the file names, and so gets the same answer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import nn

from dlcourse.data import read_image
from dlcourse.deployment.backends import Backend, TorchBackend, open_backend
from dlcourse.deployment.card import ModelCard

Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | torch.Tensor
"""A path; the bytes of a file; a Pillow image; uint8 pixels, (H, W, 3) or (H, W) of NumPy, (3, H, W) of torch."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one picture: a probability for each class, in the order of `classes`; they sum to 1."""

    classes: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def index(self) -> int:
        """The most probable class, as an index into `classes`."""
        return int(self.probabilities.argmax())

    @property
    def label(self) -> str:
        """The most probable class, by name."""
        return self.classes[self.index]

    @property
    def confidence(self) -> float:
        """The probability of the most probable class."""
        return float(self.probabilities[self.index])

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k most probable classes with their probabilities, largest first (all, when there are fewer)."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]


class Predictor:
    """Answers to pictures from an exported model: "model.onnx" (ONNX Runtime) or "model.safetensors" (torch).

        predictor = Predictor("model.onnx")
        predictor.predict("shoe.jpg").label
        predictor.predict(["shoe.jpg", open("bag.png", "rb").read()])

    threads  how many cores one answer may use; None takes those that this process may run on. With torch, which has one
             number for all that it computes, it holds for the whole process
    Raises FileNotFoundError, and ValueError for a file that is no such model or holds no model card.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads={threads} must be at least 1, or None for every core of this process")
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no model file {path}")
        self._use(*open_backend(Path(path), threads))

    @classmethod
    def of(cls, model: nn.Module, card: ModelCard) -> Predictor:
        """A Predictor of a model in memory, on the device where it is; it is switched to eval mode while it answers."""
        predictor = cls.__new__(cls)
        predictor._use(TorchBackend(model), card)
        return predictor

    def _use(self, backend: Backend, card: ModelCard) -> None:
        self.backend, self.card = backend, card

    @overload
    def predict(self, pictures: list[Source] | tuple[Source, ...], *, batch_size: int = ...) -> list[Prediction]: ...
    @overload
    def predict(self, pictures: Source, *, batch_size: int = ...) -> Prediction: ...
    def predict(self, pictures: Any, *, batch_size: int = 32) -> Prediction | list[Prediction]:
        """The answer to one picture, or to each of a list of them, computed `batch_size` at a time.

        Raises FileNotFoundError and ValueError, naming the picture, for one that is missing or cannot be read.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        if not isinstance(pictures, list | tuple):
            return self.answer(self.prepare(pictures)[None])[0]
        answers: list[Prediction] = []
        for start in range(0, len(pictures), batch_size):
            answers += self.answer(
                np.stack([self.prepare(picture) for picture in pictures[start : start + batch_size]])
            )
        return answers

    def prepare(self, picture: Source, **limits: Any) -> np.ndarray:
        """One picture as the network takes it: float32 (3, size, size). `limits` are those of `read_image`."""
        return self.card.preprocessing(pixels(picture, **limits)).numpy()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's outputs for prepared images: float32 (B, 3, size, size) -> float32 (B, K)."""
        if images.ndim != 4 or images.shape[1:] != self.card.input_shape:
            wanted = ", ".join(map(str, self.card.input_shape))
            raise ValueError(f"images has shape {images.shape}; this model takes (B, {wanted})")
        return self.backend(images)

    def answer(self, images: np.ndarray) -> list[Prediction]:
        """An answer to each of the prepared images (B, 3, size, size). Raises ValueError for outputs that are not finite."""
        logits = self.logits(images).astype(np.float64)
        if not np.isfinite(logits).all():
            raise ValueError("the model's outputs are not finite: its file or its input is damaged")
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return [Prediction(self.card.classes, row) for row in exponentials / exponentials.sum(axis=1, keepdims=True)]


def pixels(picture: Source, **limits: Any) -> torch.Tensor:
    """Any source as a uint8 tensor (3, H, W)."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or not (
            picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (1, 3, 4))
        ):
            raise ValueError(
                f"an array of pixels is uint8 (H, W), (H, W, 3) or (H, W, 4), not {picture.dtype} {picture.shape}"
            )
        picture = Image.fromarray(picture[:, :, 0] if picture.shape[2:] == (1,) else picture)
    if isinstance(picture, torch.Tensor):
        if picture.dtype != torch.uint8 or picture.ndim != 3 or len(picture) != 3:
            shape = tuple(picture.shape)
            raise ValueError(f"a picture is {picture.dtype} of shape {shape}; needs torch.uint8 of shape (3, H, W)")
        return picture.cpu()
    if isinstance(picture, str | os.PathLike | bytes | Image.Image):
        return read_image(picture, **limits)
    raise ValueError(
        f"a picture is a path, bytes, a Pillow image, an array or a tensor, not a {type(picture).__name__}"
    )
