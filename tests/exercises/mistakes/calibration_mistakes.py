"""Wrong answers to the exercise on calibration."""

from itertools import pairwise

import torch
from planting import mistake

NAME = "calibration.expected_error"


def build(
    sure=lambda p, y: p.max(dim=1).values,
    hit=lambda p, y: (p.argmax(dim=1) == y).float(),
    edges=lambda c, bins: torch.arange(bins + 1) / bins,
    inside=lambda c, low, high: (c > low) & (c <= high),
    gap=lambda right, c, low, high: (right.mean() - c.mean()).abs(),
    total=lambda shares, gaps, bins: (shares * gaps).sum(),
    count=lambda bins: bins,
    skip_empty=True,
):
    """The error with one part of it replaced."""

    def expected_calibration_error(probabilities, labels, bins=15):
        c, right = sure(probabilities, labels), hit(probabilities, labels)
        bins = count(bins)
        borders = edges(c, bins)
        shares, gaps = [], []
        for low, high in pairwise(borders):
            chosen = inside(c, low, high)
            if chosen.any() or not skip_empty:
                shares.append(chosen.float().mean())
                gaps.append(gap(right[chosen], c[chosen], low, high))
        return float(total(torch.stack(shares), torch.stack(gaps), bins))

    return expected_calibration_error


def plant(says, name, **parts):
    wrong = build(**parts)
    wrong.__name__ = name
    mistake(NAME, says=says)(wrong)


def signed(right, c, low, high):
    return right.mean() - c.mean()


plant("takes the plain mean over the bins that hold samples", "mean_of_filled", total=lambda s, g, bins: g.mean())
plant("divides by the number of bins", "mean_of_bins", total=lambda s, g, bins: g.sum() / bins)
plant("adds the gaps up", "sum_of_gaps", total=lambda s, g, bins: g.sum())
plant("the maximum calibration error", "largest_gap", total=lambda s, g, bins: g.max())
plant("squares the gaps", "squares", total=lambda s, g, bins: (s * g**2).sum())
plant("takes the root of the mean squared gap", "root", total=lambda s, g, bins: (s * g**2).sum().sqrt())
plant("lets the bins cancel", "cancels", gap=signed, total=lambda s, g, bins: (s * g).sum().abs())
plant("forgets the absolute value", "signed", gap=signed)
plant(
    "take the absolute value of each bin's gap before adding", "signed_the_other_way",
    gap=lambda right, c, low, high: c.mean() - right.mean(),
)  # fmt: skip
plant("leaves out a confidence of 1", "half_open_above", inside=lambda c, low, high: (c >= low) & (c < high))
plant(
    "puts a confidence on an edge into the bin above", "edge_above",
    inside=lambda c, low, high: (c >= low) & ((c < high) | (high == 1)),
)  # fmt: skip
plant("takes the middle of a bin", "middle", gap=lambda right, c, low, high: (right.mean() - (low + high) / 2).abs())
plant(
    "takes the probability of the true class", "true_class", sure=lambda p, y: p.gather(1, y[:, None])[:, 0]
)
plant(
    "uses every probability", "all_columns", sure=lambda p, y: p.flatten(),
    hit=lambda p, y: torch.nn.functional.one_hot(y, p.shape[1]).float().flatten(),
)  # fmt: skip
plant("does not use the bins it is given", "always_15", count=lambda bins: 15)
plant(r"does not use the bins it is given\.", "always_10", count=lambda bins: 10)
plant("It gives nan", "empty_bins", skip_empty=False)


@mistake(NAME, says="makes bins with equally many samples")
def equal_counts(probabilities, labels, bins=15):
    confidence, predicted = probabilities.max(dim=1)
    place = confidence.argsort().argsort() * bins // len(confidence)
    right = (predicted == labels).float()
    chosen = [place == m for m in range(bins) if (place == m).any()]
    return sum((c.float().mean() * (right[c].mean() - confidence[c].mean()).abs()).item() for c in chosen)


@mistake(NAME, says="takes the mean gap of each sample")
def without_bins(probabilities, labels, bins=15):
    confidence, predicted = probabilities.max(dim=1)
    return ((predicted == labels).float() - confidence).abs().mean().item()
