"""Right answers to the exercise on calibration, in other styles than the reference's."""

import numpy as np
import torch
from planting import right_answer

NAME = "calibration.expected_error"


@right_answer(NAME)
def by_bincount(probabilities, labels, bins=15):
    p = probabilities.numpy().astype(np.float64)
    confidence, right = p.max(1), p.argmax(1) == labels.numpy()
    place = np.searchsorted(np.linspace(0, 1, bins + 1), confidence) - 1
    gaps = np.bincount(place, right, minlength=bins) - np.bincount(place, confidence, minlength=bins)
    return np.abs(gaps).sum() / len(p)


@right_answer(NAME)
def by_bucketize(probabilities, labels, bins=15):
    confidence, predicted = probabilities.max(1)
    place = torch.bucketize(confidence, torch.linspace(0, 1, bins + 1)[1:-1])
    gap = (predicted == labels).float() - confidence
    return torch.zeros(bins).index_add(0, place, gap).abs().sum() / len(labels)


@right_answer(NAME)
def sample_by_sample(probabilities, labels, bins=15):
    rows = {}
    for p, y in zip(probabilities.tolist(), labels.tolist(), strict=True):
        sure = max(p)
        m = next(m for m in range(bins) if sure <= (m + 1) / bins)
        rows.setdefault(m, []).append((sure, p.index(sure) == y))
    return sum(abs(sum(r for _, r in row) - sum(c for c, _ in row)) for row in rows.values()) / len(labels)


@right_answer(NAME)
def by_ceiling(probabilities, labels, bins=15):
    confidence, predicted = probabilities.max(dim=1)
    place = (confidence * bins).ceil().long() - 1
    member = torch.nn.functional.one_hot(place, bins).float()  # (N, bins)
    return (member.T @ ((predicted == labels).float() - confidence)).abs().sum() / len(labels)
