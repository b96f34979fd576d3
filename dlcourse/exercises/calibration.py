"""Exercise on calibration (chapter 15): the expected calibration error.

Source: Guo, Pleiss, Sun, Weinberger 2017, On calibration of modern neural networks (arXiv:1706.04599).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Σ over the bins ((m − 1)/M, m/M] of share of samples · |accuracy − mean confidence|, from (N, K) and (N,)."""
    confidence, predicted = probabilities.max(dim=1)
    right = (predicted == labels).float()
    error = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            gap = right[inside].mean() - confidence[inside].mean()
            error += inside.float().mean().item() * abs(gap.item())
    return error


def two_columns(confidences: list[float]) -> Tensor:
    sure = torch.tensor(confidences)
    return torch.stack([sure, 1 - sure], dim=1)


def check_expected_calibration_error(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    cases = [
        (two_columns([0.92, 0.91, 0.86, 0.84, 0.65]), torch.tensor([0, 1, 0, 0, 0]), 3),
        (two_columns([1.0, 1.0, 0.625]), torch.tensor([0, 1, 0]), 4),
        (two_columns([0.75, 0.875, 0.75, 0.5625]), torch.tensor([0, 1, 1, 0]), 4),  # 0.75 is an edge
        (two_columns([0.9, 0.6]), torch.tensor([0, 1]), 1),
    ]
    for n, k, bins in ((40, 3, 10), (200, 10, 15), (60, 4, 30)):
        probabilities = (2 * torch.randn(n, k, generator=generator)).softmax(dim=1)
        cases.append((probabilities, torch.randint(k, (n,), generator=generator), bins))
    for probabilities, labels, bins in cases:
        _compare_error(answer, probabilities, labels, bins, {"bins": bins})
    _compare_error(answer, *cases[-2][:2], 15, {})
    return "one to thirty bins, empty bins, a confidence of 1 and one on an edge, two to ten classes"


def _compare_error(answer: Answer, probabilities: Tensor, labels: Tensor, bins: int, options: dict[str, int]) -> None:
    want = expected_calibration_error(probabilities, labels, bins)
    got, given = answer(probabilities, labels, **options), describe(probabilities, labels, **options)
    if isinstance(got, (float, Tensor)) and math.isnan(float(got)):
        raise Mistake(f"It gives nan for {given}: a bin without samples has no mean, so leave it out.")
    compare(got, want, given=given, mistakes=_error_mistakes(probabilities, labels, bins), rtol=1e-4, atol=1e-6)


def _error_mistakes(probabilities: Tensor, labels: Tensor, bins: int) -> dict[str, Callable[[], float]]:
    confidence, predicted = probabilities.max(dim=1)
    right = (predicted == labels).float()
    edges = torch.arange(bins + 1) / bins

    def table(sure: Tensor = confidence, place: Tensor | None = None, hit: Tensor = right) -> tuple[Tensor, Tensor]:
        """The share and the gap of each filled bin."""
        place = (torch.searchsorted(edges, sure.contiguous()) - 1).clamp(0) if place is None else place
        shares, gaps = [], []
        for m in place.unique():
            shares.append((place == m).float().mean())
            gaps.append(hit[place == m].mean() - sure[place == m].mean())
        return torch.stack(shares), torch.stack(gaps)

    def error(sure: Tensor = confidence, place: Tensor | None = None, hit: Tensor = right) -> float:
        shares, gaps = table(sure, place, hit)
        return float((shares * gaps.abs()).sum())

    def from_centres() -> float:
        place = torch.searchsorted(edges, confidence) - 1
        return float(sum((place == m).float().mean() * (right[place == m].mean() - (m + 0.5) / bins).abs() for m in place.unique()))

    def below_one() -> float:
        shares = [((confidence >= m / bins) & (confidence < (m + 1) / bins)) for m in range(bins)]
        return float(sum(s.float().mean() * (right[s].mean() - confidence[s].mean()).abs() for s in shares if s.any()))

    above = (confidence * bins).floor().long().clamp(max=bins - 1)
    rank = confidence.argsort().argsort() * bins // len(confidence)
    own = probabilities.gather(1, labels[:, None])[:, 0]
    every = torch.nn.functional.one_hot(labels, probabilities.shape[1]).float()
    return {
        "takes the plain mean over the bins that hold samples: weigh each by its share": lambda: float(table()[1].abs().mean()),
        "divides by the number of bins: weigh each bin by its share of the samples": lambda: float(table()[1].abs().sum() / bins),
        "adds the gaps up: weigh each bin by its share of the samples": lambda: float(table()[1].abs().sum()),
        "gives the largest gap, the maximum calibration error": lambda: float(table()[1].abs().max()),
        "squares the gaps: the absolute value is meant": lambda: float((table()[0] * table()[1] ** 2).sum()),
        "takes the root of the mean squared gap": lambda: float((table()[0] * table()[1] ** 2).sum().sqrt()),
        "lets the bins cancel: take the absolute value of each bin's gap before adding": lambda: float((table()[0] * table()[1]).sum().abs()),
        "forgets the absolute value": lambda: float((table()[0] * table()[1]).sum()),
        "puts a confidence on an edge into the bin above: the upper edge is part of a bin": lambda: error(place=above),
        "leaves out a confidence of 1: a bin's upper edge is part of it": below_one,
        "does not use the bins it is given": lambda: expected_calibration_error(probabilities, labels, 15),
        "does not use the bins it is given.": lambda: expected_calibration_error(probabilities, labels, 10),
        "takes the mean gap of each sample, without bins": lambda: float((right - confidence).abs().mean()),
        "takes the middle of a bin instead of the mean confidence in it": from_centres,
        "takes the probability of the true class: confidence is the highest probability": lambda: error(own),
        "uses every probability and not the highest of each row": lambda: error(probabilities.flatten(), None, every.flatten()),
        "makes bins with equally many samples: their width is to be equal": lambda: error(place=rank),
        "makes its bins from the samples' own least and greatest confidence":
            lambda: error(place=((confidence - confidence.min()) / (confidence.max() - confidence.min()) * bins).ceil().long().sub(1).clamp(0)),
    }  # fmt: skip


register(
    "calibration.expected_error",
    expected_calibration_error,
    check_expected_calibration_error,
    difficulty=3,
    importance=4,
    minutes=20,
    hints=(
        "For each bin three numbers: the share of the samples in it, their mean confidence, the share of them that is right.",
        "A confidence c lies in bin m when m / bins < c <= (m + 1) / bins. A bin without samples adds nothing.",
        "probabilities.max(dim=1) gives confidence and predicted class. Sum inside.float().mean() * |right.mean() - confidence.mean()| over the bins.",
    ),
)
