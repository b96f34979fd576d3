"""Exercises on training with many processes (chapter 19): each one's part of an epoch, and statistics of all parts together.

The part is that of torch.utils.data.DistributedSampler. The variance of all samples from those of the processes is that of
Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Mistakes = dict[str, Callable[[], Any]]


def sampler_part(size: int, epoch: int, rank: int, world_size: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed + epoch)  # the same in every process
    order = torch.randperm(size, generator=generator).tolist()
    total = math.ceil(size / world_size) * world_size
    return [order[place % size] for place in range(rank, total, world_size)]


def check_sampler_part(answer: Answer) -> str:
    sizes = ((10, 3), (5, 2), (4, 2), (7, 3), (9, 4), (2, 5), (1, 3), (6, 1), (12, 12), (50, 8))
    for epoch, seed in ((0, 0), (2, 5), (1, 0), (0, 7), (30, 40)):
        for size, world_size in sizes:
            for rank in range(world_size):
                given = (size, epoch, rank, world_size, seed)
                text = f"size={size}, epoch={epoch}, rank={rank}, world_size={world_size}, seed={seed}"
                got = _indices(answer(*given), text)
                if got != _indices(answer(*given), text):
                    raise Mistake(
                        "It gives another part when it is called again, and so to every process: draw from "
                        f"torch.Generator().manual_seed(seed + epoch). Given {text}."
                    )
                compare(got, sampler_part(*given), given=text, rtol=0, atol=0, mistakes=_part_mistakes(*given))
    return "DistributedSampler's parts for every rank of 1 to 12 processes, in five epochs, fewer samples than processes too"


def _indices(got: Any, given: str) -> list[int]:
    """A list, tensor or array of whole numbers as a list; raises Mistake for anything else."""
    values = got.tolist() if isinstance(got, (Tensor, np.ndarray)) else got
    if not isinstance(values, (list, tuple, range)):
        raise Mistake(f"It returns {describe(got)}, where a list of indices is asked for. Given {given}.")
    numbers: list[Any] = [value.tolist() if isinstance(value, (Tensor, np.integer)) else value for value in values]
    if any(type(value) is not int for value in numbers):
        raise Mistake(f"It returns {describe(got)}, where a list of whole numbers is asked for. Given {given}.")
    return numbers


def _part_mistakes(size: int, epoch: int, rank: int, world_size: int, seed: int) -> Mistakes:
    each, extra = math.ceil(size / world_size), -size % world_size
    total = each * world_size

    def draw(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    def shuffled(seed: int = seed + epoch, length: int = size) -> list[int]:
        return torch.randperm(length, generator=draw(seed)).tolist()

    def part(order: list[int], first: int = rank) -> list[int]:
        return (order * world_size)[:total][first::world_size]

    order = shuffled()
    drawn = "shuffles otherwise: torch.randperm(size, generator=torch.Generator().manual_seed(seed + epoch)) is asked for"
    return {
        "does not shuffle: the order is that of torch.randperm, not 0, 1, 2, …": lambda: part(list(range(size))),
        "seeds by rank too: all processes must share one order, or samples are missed and others come twice":
            lambda: part(shuffled(seed + epoch + rank)),
        "forgets the epoch: the seed is seed + epoch, or all epochs have the same order": lambda: part(shuffled(seed)),
        "forgets the seed: the generator's is seed + epoch": lambda: part(shuffled(epoch)),
        "multiplies seed and epoch: add them, or epoch 0 is the same for every seed": lambda: part(shuffled(seed * epoch)),
        "counts the epochs from 1: epoch 0 has the seed itself": lambda: part(shuffled(seed + epoch + 1)),
        "takes epoch - 1: epoch 0 has the seed itself": lambda: part(shuffled(seed + epoch - 1)),
        "extends the order once only: with fewer samples than processes it is repeated several times":
            lambda: (order + order[:extra])[rank::world_size],
        "does not extend the order: parts of unequal length let one process wait for ever": lambda: order[rank::world_size],
        "leaves out the samples at the end, as drop_last=True does: extend the order instead":
            lambda: order[: size - size % world_size][rank::world_size],
        "extends the order by its last sample: extend it from its beginning":
            lambda: (order + order[-1:] * extra)[rank::world_size],
        "extends the order by its first sample alone: go on with its second":
            lambda: (order + order[:1] * extra)[rank::world_size],
        "extends the order by its end: extend it from its beginning":
            lambda: (order + (order * world_size)[-extra:])[rank::world_size] if extra else None,
        "extends the order by the samples 0, 1, …: extend it by its own beginning":
            lambda: (order + list(range(extra)))[rank::world_size],
        "extends the samples before it shuffles them: shuffle range(size), then extend the order":
            lambda: [i % size for i in shuffled(length=total)][rank::world_size],
        "extends an order whose size is divisible already: then nothing is missing":
            lambda: (order + (order * world_size)[: world_size - size % world_size])[rank::world_size],
        "gives every process all samples: each gets a part of its own": lambda: order,
        "gives every process all samples, the repeated too: each gets a part of its own": lambda: (order * world_size)[:total],
        "cuts the order into blocks: give process r every world_size-th sample, from place r on":
            lambda: (order * world_size)[:total][rank * each : (rank + 1) * each],
        "counts the ranks from the last process": lambda: part(order, world_size - 1 - rank),
        "counts the ranks from 1: the first process has rank 0": lambda: (order * world_size)[:total][rank - 1 :: world_size],
        "sorts the part: keep the order that was drawn": lambda: sorted(part(order)),
        "shuffles each part alone: a sample then never changes its process":
            lambda: [part(list(range(size)))[i] for i in shuffled(length=each)],
        "gives the place of each sample in the order: the sample at each place is asked for":
            lambda: part(torch.tensor(order).argsort().tolist()),
        drawn: lambda: part(torch.rand(size, generator=draw(seed + epoch)).argsort().tolist()),
        f"{drawn}, not NumPy's": lambda: part(np.random.default_rng(seed + epoch).permutation(size).tolist()),
        f"{drawn}, not Python's": lambda: part(random.Random(seed + epoch).sample(range(size), size)),
    }  # fmt: skip


register(
    "parallel.sampler_part", sampler_part, check_sampler_part, difficulty=2, importance=5, minutes=10,
    hints=(
        "All processes must draw the same order, so the seed may depend on the epoch but not on the rank.",
        "order = torch.randperm(size, generator=torch.Generator().manual_seed(seed + epoch)).tolist(). The total is the next "
        "multiple of world_size.",
        "Place p of the extended order holds order[p % size]. Process `rank` gets the places range(rank, total, world_size).",
    ),
)  # fmt: skip


def merge_statistics(counts: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    weights = counts[:, None].to(means.dtype) / counts.sum()  # (P, 1): the share of each process
    mean = (weights * means).sum(0)
    variance = (weights * (variances + (means - mean) ** 2)).sum(0)  # within each process, and between them
    return mean, variance


def check_merge_statistics(answer: Answer) -> str:
    # In the first no two of the mistakes have the same result.
    cases = [
        (torch.tensor([2, 3]), torch.tensor([[1.0], [6.0]]), torch.tensor([[2.0], [5.0]])),
        (torch.tensor([2, 5, 3]), torch.tensor([[1.0, 0], [3, -2], [8, 1]]), torch.tensor([[2, 1], [4, 0.5], [1, 3]])),
        (torch.tensor([1, 4]), torch.tensor([[3.0], [1.0]]), torch.tensor([[0.0], [2.0]])),  # one sample
        (torch.tensor([1, 1, 1]), torch.randn(3, 2), torch.zeros(3, 2)),
        (torch.tensor([6]), torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[0.5, 3.0, 0.0]])),  # one process
        (torch.tensor([64, 64, 64, 40]), torch.randn(4, 4), torch.rand(4, 4)),
        (torch.randint(1, 300, (9,)), 10 * torch.randn(9, 5), 0.01 + torch.rand(9, 5)),
        (torch.tensor([3, 1, 30]), torch.randn(3, 3).double(), torch.rand(3, 3).double()),
    ]
    for counts, means, variances in cases:
        _check_merged(answer, counts, means, variances)
    far = torch.tensor([[10000.0, -10000, 30000], [10001, -10002, 30000], [10000, -10001, 30001]])
    variances = torch.tensor([[1.0, 1.5, 0.5], [1.0, 0.5, 2.5], [0.7, 1.0, 0.0]])
    _check_merged(answer, torch.tensor([32, 20, 7]), far, variances, far=True)
    return "counts that differ, one process, one sample, means near 0 and in float32 far from it (10000, with a variance of 1)"


def _check_merged(answer: Answer, counts: Tensor, means: Tensor, variances: Tensor, *, far: bool = False) -> None:
    result, given = answer(counts, means, variances), describe(counts, means, variances)
    if far:  # where four digits would not do
        given = f"counts {counts.tolist()}, means {means.tolist()}, {describe(variances=variances)}"
    mean, variance = (part.to(means.dtype) for part in merge_statistics(counts, means.double(), variances.double()))
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Mistake(f"It returns {describe(result)}; two tensors are asked for: mean, variance. Given {given}.")
    got = tuple(result)
    order: Mistakes = {"returns the variance first: the mean comes first": lambda: variance}
    about_mean = order | _mean_mistakes(counts, means)
    compare(got[0], mean, given=given, rtol=1e-5, atol=1e-5, what="the mean", mistakes=about_mean)
    mistakes = _variance_mistakes(counts, means, variances)
    if far and isinstance(got[1], Tensor) and got[1].shape == variance.shape and got[1].dtype == variance.dtype:
        # Whoever comes as far as this was right near 0.
        mistakes[
            "loses the variance to rounding: E[x²] − E[x]² subtracts two numbers of 1e8 and more, where float32 counts in steps "
            "of 8 or more; average the variances and the squared distances of the means instead"
        ] = lambda: got[1]
    compare(got[1], variance, given=given, rtol=1e-2 if far else 1e-4, atol=1e-5, what="the variance", mistakes=mistakes)


def _mean_mistakes(counts: Tensor, means: Tensor) -> Mistakes:
    n, total = counts[:, None].to(means.dtype), counts.sum()
    return {
        "weights all processes alike: one with more samples counts for more": lambda: means.mean(0),
        "adds up without dividing by the number of all samples": lambda: (n * means).sum(0),
        "adds the means up": lambda: means.sum(0),
        "divides by the number of processes: divide by the number of all samples": lambda: (n * means).sum(0) / len(counts),
        "divides by n − 1: a mean is divided by n": lambda: (n * means).sum(0) / (total - 1),
        "returns the statistics of the first process only": lambda: means[0],
        "returns the statistics of the last process only": lambda: means[-1],
        "averages over the channels: average over the processes": lambda: (n * means).mean(1),
        "weights by the reciprocal of the counts: more samples count for more": lambda: (means / n).sum(0) / (1 / n).sum(),
        "weights by the roots of the counts: weight by the counts": lambda: (means * n.sqrt()).sum(0) / n.sqrt().sum(),
        "keeps the axis of the processes: (C,) is asked for": lambda: (n * means).sum(0, keepdim=True) / total,
    }  # fmt: skip


def _variance_mistakes(counts: Tensor, means: Tensor, variances: Tensor) -> Mistakes:
    n, total, processes = counts[:, None].double(), counts.sum().double(), len(counts)
    m, v = means.double(), variances.double()
    mean = (n * m).sum(0) / total
    within, between = (n * v).sum(0) / total, (n * (m - mean) ** 2).sum(0) / total
    right = within + between
    wrong: dict[str, Callable[[], Tensor]] = {
        "leaves out how far the means lie apart: add the mean of (mean of a process − mean of all)²": lambda: within,
        "leaves out how far the means lie apart, and weights all processes alike": lambda: v.mean(0),
        "leaves out the variances within the processes": lambda: between,
        "leaves out the variances within the processes, and weights all processes alike": lambda: m.var(0, correction=0),
        "averages the variances without the counts": lambda: v.mean(0) + between,
        "averages the squared distances of the means without the counts": lambda: within + ((m - mean) ** 2).mean(0),
        "takes the variance of the means without the counts: take Σ n · (mean − mean of all)² / Σ n":
            lambda: within + m.var(0, correction=0),
        "takes the variance of the means without the counts, divided by P − 1": lambda: within + m.var(0, correction=1),
        "weights all processes alike: one with more samples counts for more": lambda: v.mean(0) + m.var(0, correction=0),
        "divides by n − 1: the population variance is divided by n": lambda: right * total / (total - 1),
        "takes the given variances for sample variances: they are divided by n, not by n − 1":
            lambda: ((n - 1) * v).sum(0) / total + between,
        "takes the given variances for sample variances, and divides by n − 1 again":
            lambda: (((n - 1) * v).sum(0) + total * between) / (total - 1),
        "pools the variances and leaves out how far the means lie apart: Σ (n − 1) · variance / (Σ n − P)":
            lambda: ((n - 1) * v).sum(0) / (total - processes),
        "returns the standard deviation: leave out the root": lambda: right.sqrt(),
        "averages standard deviations: average variances": lambda: ((n * v.sqrt()).sum(0) / total) ** 2 + between,
        "returns the variance of the mean: that of the samples does not shrink with their number":
            lambda: (n**2 * v).sum(0) / total**2,
        "returns E[x²]: subtract the square of the mean": lambda: (n * (v + m**2)).sum(0) / total,
        "has the wrong sign for how far the means lie apart: add it": lambda: within - between,
        "forgets to square the distances of the means": lambda: within + (n * (m - mean).abs()).sum(0) / total,
        "weights the distances of the means twice": lambda: within + (n**2 * (m - mean) ** 2).sum(0) / total**2,
        "returns the sum of squares: divide it by the number of all samples": lambda: right * total,
        "divides by the number of processes: divide by the number of all samples": lambda: right * total / processes,
        "returns the statistics of the first process only": lambda: v[0],
        "measures the distances from the mean of the first process": lambda: within + (n * (m - m[0]) ** 2).sum(0) / total,
        "keeps the axis of the processes: (C,) is asked for": lambda: right[None],
    }  # fmt: skip
    if (counts == 1).any():
        wrong["divides 0 by 0 where a process has one sample (n − 1 is 0)"] = lambda: torch.full_like(right, math.nan)
    return {says: partial(_as, value, means.dtype) for says, value in wrong.items()}


def _as(value: Callable[[], Tensor], dtype: torch.dtype) -> Tensor:
    return value().to(dtype)


register(
    "parallel.merge_statistics", merge_statistics, check_merge_statistics, difficulty=3, importance=4, minutes=15,
    hints=(
        "A process counts for as much as it has samples: its share is counts / counts.sum(). The mean is a weighted mean.",
        "A sample's distance from the mean of all has two parts: from it to the mean of its process, and from there to the "
        "mean of all. Their squares, averaged, add up.",
        "variance = Σ share · (variance of the process + (mean of the process − mean of all)²). E[x²] − E[x]² is the same on "
        "paper, but in float32 it loses all digits where the mean is large.",
    ),
)  # fmt: skip
