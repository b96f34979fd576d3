"""What is written down of one answer: the class, the confidence, and a few numbers about what the network saw.

Nothing here holds a picture or tells two people apart; it is what the log, the statistics and the drift test read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dlcourse.deployment.predictor import Prediction

PIXELS = 4096
"""About so many pixels of an image are looked at, evenly spread: more would only take longer."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One answer in numbers: the predicted class as an index, and the value of each statistic by name."""

    index: int
    values: Mapping[str, float]


def observe(prediction: Prediction, image: np.ndarray | None = None) -> Observation:
    """The numbers of one answer; with the prepared image (3, S, S) those of what the network saw too.

    Every value has four significant digits, so that one that comes back from a file, or from another processor, is the
    same number: a test of two samples would take a hair's breadth between two atoms for a shift.
    """
    values = {"confidence": prediction.confidence}
    if image is not None:
        values |= image_statistics(image)
    return Observation(prediction.index, {name: float(f"{value:.4g}") for name, value in values.items()})


def image_statistics(image: np.ndarray) -> dict[str, float]:
    """Simple numbers of a prepared image, float (3, H, W), in its own units.

    brightness  the mean                        contrast   the standard deviation
    darkest     the 1 % quantile                brightest  the 99 % quantile
    sharpness   the variance of the Laplacian   noise      the median of its size: edges are few, noise is everywhere
    colour      how far the means of the three channels lie apart
    """
    step = max(1, round(math.sqrt(image[0].size / PIXELS)))
    grey = image.sum(axis=0) / 3  # (3, H, W) -> (H, W)
    inner = slice(1, -1, step)
    neighbours = grey[:-2:step, inner] + grey[2::step, inner] + grey[inner, :-2:step] + grey[inner, 2::step]
    laplacian = neighbours - 4 * grey[inner, inner]
    pixels = np.sort(grey[::step, ::step], axis=None)
    edges = np.sort(np.abs(laplacian), axis=None) if laplacian.size else np.zeros(1)
    channels = image[:, ::step, ::step].mean(axis=(1, 2))
    return {
        "brightness": float(pixels.mean()),
        "contrast": float(pixels.std()),
        "darkest": float(pixels[len(pixels) // 100]),
        "brightest": float(pixels[-1 - len(pixels) // 100]),
        "sharpness": float(laplacian.var()) if laplacian.size else 0.0,
        "noise": float(edges[len(edges) // 2]),
        "colour": float(channels.max() - channels.min()),
    }
