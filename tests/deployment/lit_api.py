"""What LitServe serves in load.py: a class of a module, because LitServe's processes must be able to import it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import litserve
import numpy as np

from dlcourse.deployment import Prediction, Predictor


def as_json(predictor: Predictor, prediction: Prediction) -> dict[str, Any]:
    """The answer of all the services that are compared."""
    top = [{"label": label, "probability": probability} for label, probability in prediction.top(3)]
    return {"model": predictor.card.name, "predictions": [{"file": "picture.png", **top[0], "top": top}]}


class LitClassifier(litserve.LitAPI):
    """A Predictor behind LitServe: pictures decoded one by one, computed in batches."""

    def __init__(self, model: Path, threads: int | None) -> None:
        super().__init__(max_batch_size=32, batch_timeout=0.005)
        self.model, self.threads = model, threads

    def setup(self, device: str) -> None:
        self.predictor = Predictor(self.model, threads=self.threads)

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        return self.predictor.prepare(base64.b64decode(request["picture"]))

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, images: np.ndarray) -> list[Prediction]:
        return self.predictor.answer(images)

    def unbatch(self, output: list[Prediction]) -> list[Prediction]:
        return output

    def encode_response(self, output: Prediction) -> dict[str, Any]:
        return as_json(self.predictor, output)
