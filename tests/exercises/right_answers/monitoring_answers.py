"""Right answers to the exercises on watching a service, in other styles than the references'."""

from fractions import Fraction

import numpy as np
import torch
from planting import right_answer
from scipy.special import rel_entr
from scipy.stats import ks_2samp


@right_answer("monitoring.ks_statistic")
def ks_of_scipy(reference, live):
    return ks_2samp(reference, live, method="asymp").statistic


@right_answer("monitoring.ks_statistic")
def ks_by_comparing_everything(reference, live):
    places = np.union1d(reference, live)[:, None]
    return np.max(np.abs((reference <= places).mean(1) - (live <= places).mean(1)))


@right_answer("monitoring.ks_statistic")
def ks_by_walking(reference, live):
    steps = {}
    for value in reference.tolist():
        steps[value] = steps.get(value, 0) + Fraction(1, len(reference))
    for value in live.tolist():
        steps[value] = steps.get(value, 0) - Fraction(1, len(live))
    height = highest = Fraction(0)
    for value in sorted(steps):
        height += steps[value]
        highest = max(highest, abs(height))
    return float(highest)


@right_answer("monitoring.psi")
def psi_bin_by_bin(reference, live):
    total = 0.0
    for a, b in zip(reference.tolist(), live.tolist(), strict=True):
        p = (a + 0.5) / (reference.sum() + 0.5 * len(reference))
        q = (b + 0.5) / (live.sum() + 0.5 * len(live))
        total += (p - q) * np.log(p / q)
    return total


@right_answer("monitoring.psi")
def psi_as_two_divergences(reference, live):
    p, q = (np.add(c, 0.5) / np.add(c, 0.5).sum() for c in (reference, live))
    return np.sum(rel_entr(p, q)) + np.sum(rel_entr(q, p))


@right_answer("monitoring.psi")
def psi_in_torch(reference, live):
    p, q = (torch.as_tensor(c, dtype=torch.float64).add(0.5) for c in (reference, live))
    p, q = p / p.sum(), q / q.sum()
    return torch.dot(q - p, q.log() - p.log())
