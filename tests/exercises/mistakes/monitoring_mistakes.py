"""Wrong answers to the exercises on watching a service."""

import numpy as np
from planting import mistake

KS, PSI = "monitoring.ks_statistic", "monitoring.psi"


def ks(
    places=lambda x, y: np.concatenate([x, y]),
    sort=np.sort,
    sides=("right", "right"),
    shares=lambda counts, own, both: counts / own,
    combine=lambda gap: np.abs(gap).max(),
):
    """The statistic with one part of it replaced."""

    def ks_statistic(reference, live):
        at, both = places(reference, live), len(reference) + len(live)
        below = [
            shares(np.searchsorted(sorted_, at, side=side), len(sorted_), both)
            for sorted_, side in zip((sort(reference), sort(live)), sides, strict=True)
        ]
        return float(combine(below[0] - below[1]))

    return ks_statistic


def psi(
    smooth=lambda counts, which: counts + 0.5,
    share=lambda smoothed, counts: smoothed / smoothed.sum(),
    term=lambda p, q: (q - p) * np.log(q / p),
    combine=np.sum,
):
    """The index with one part of it replaced."""

    def population_stability_index(reference, live):
        with np.errstate(all="ignore"):
            p, q = (share(smooth(c, which), c) for which, c in enumerate((reference, live)))
            return float(combine(term(p, q)))

    return population_stability_index


def plant(exercise, says, name, wrong):
    wrong.__name__ = name
    mistake(exercise, says=says)(wrong)


plant(KS, r"takes a tie for a difference.*live ones come first", "left_and_right", ks(sides=("left", "right")))
plant(KS, r"takes a tie for a difference.*reference's come first", "right_and_left", ks(sides=("right", "left")))
plant(KS, "takes one direction only", "signed", ks(combine=np.max))
plant(KS, "looks only at the values of the reference", "reference_only", ks(places=lambda x, y: x))
plant(KS, "looks only at the live values", "live_only", ks(places=lambda x, y: y))
plant(KS, "averages the distances", "mean", ks(combine=lambda gap: np.abs(gap).mean()))
plant(KS, "adds the distances up", "total", ks(combine=lambda gap: np.abs(gap).sum()))
plant(KS, "compares counts", "counts", ks(shares=lambda counts, own, both: counts))
plant(KS, "divides by the size of both samples together", "together", ks(shares=lambda counts, own, both: counts / both))
plant(KS, "forgets to sort", "unsorted", ks(sort=np.asarray))
plant(KS, "drops repeated values", "unique", ks(sort=np.unique))
plant(KS, "gives one minus the distance", "similarity", ks(combine=lambda gap: 1 - np.abs(gap).max()))


@mistake(KS, says="values that are equal are passed together")
def merged(reference, live):
    x, y, i, j, largest = sorted(reference), sorted(live), 0, 0, 0.0
    while i < len(x) and j < len(y):
        if x[i] <= y[j]:
            i += 1
        else:
            j += 1
        largest = max(largest, abs(i / len(x) - j / len(y)))
    return largest


@mistake(KS, says="compares the means")
def means(reference, live):
    return abs(reference.mean() - live.mean())


@mistake(KS, says="compares the medians")
def medians(reference, live):
    return abs(np.median(reference) - np.median(live))


@mistake(KS, says="sorts values into bins first")
def histograms(reference, live):
    both = np.concatenate([reference, live])
    bins = np.linspace(both.min(), both.max() + 1e-12, 11)
    p, q = (np.histogram(x, bins)[0] / len(x) for x in (reference, live))
    return np.abs(np.cumsum(p - q)).max()


@mistake(KS, says="It changes its input")
def sorts_in_place(reference, live):
    reference.sort()
    live.sort()
    return ks()(reference, live)


plant(PSI, "works with counts", "counts", psi(share=lambda smoothed, counts: smoothed))
plant(PSI, "adds nothing to empty bins", "plain", psi(smooth=lambda counts, which: counts))
plant(PSI, "adds 1 to each count", "laplace", psi(smooth=lambda counts, which: counts + 1))
plant(PSI, "adds to the shares, after dividing", "late", psi(smooth=lambda c, which: c, share=lambda s, c: c / c.sum() + 0.5))
plant(PSI, "divides by the sum of the counts as they were", "old_sum", psi(share=lambda s, c: s / c.sum()))
plant(PSI, "to empty bins: the logarithm of 0", "live_only", psi(smooth=lambda c, which: c + 0.5 * which))
plant(PSI, "the logarithm of 0 is not finite", "reference_only", psi(smooth=lambda c, which: c + 0.5 * (1 - which)))
plant(PSI, "puts a floor under the shares", "floor", psi(share=lambda s, c: np.maximum(c / c.sum(), 1e-4)))
plant(PSI, "is the divergence in one direction", "one_way", psi(term=lambda p, q: q * np.log(q / p)))
plant(PSI, "is the divergence in the other direction", "other_way", psi(term=lambda p, q: p * np.log(p / q)))
plant(PSI, "has the ratio upside down", "upside_down", psi(term=lambda p, q: (q - p) * np.log(p / q)))
plant(PSI, "averages over the bins", "mean", psi(combine=np.mean))
plant(PSI, "uses the logarithm to base 2", "bits", psi(term=lambda p, q: (q - p) * np.log2(q / p)))
plant(PSI, "uses the logarithm to base 10", "decimal", psi(term=lambda p, q: (q - p) * np.log10(q / p)))
plant(PSI, "forgets the logarithm", "absolute", psi(term=lambda p, q: np.abs(q - p)))
plant(PSI, "is the chi-squared distance", "chi_squared", psi(term=lambda p, q: (q - p) ** 2 / p))


@mistake(PSI, says="leaves empty bins out")
def without_empty_bins(reference, live):
    both = (reference > 0) & (live > 0)
    p, q = (reference / reference.sum())[both], (live / live.sum())[both]
    return float(((q - p) * np.log(q / p)).sum())
