"""Wrong answers to the exercises on training with many processes."""

import random

import numpy as np
import torch
from planting import mistake
from torch.utils.data import DistributedSampler

PART, MERGE = "parallel.sampler_part", "parallel.merge_statistics"


def plant(exercise, says, name, wrong):
    wrong.__name__ = name
    mistake(exercise, says=says)(wrong)


def permutation(size, seed):
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()


def extend(order, world_size):
    return (order * world_size)[: -(-len(order) // world_size) * world_size]


def part(
    seed=lambda seed, epoch, rank: seed + epoch,
    draw=permutation,
    extended=extend,
    take=lambda order, rank, world_size: order[rank::world_size],
    finish=list,
):
    """The part of a process with one part of it replaced."""

    def sampler_part(size, epoch, rank, world_size, seed_):
        order = draw(size, seed(seed_, epoch, rank))
        return finish(take(extended(order, world_size), rank, world_size))

    return sampler_part


def of_torch(epoch=True, **options):
    def sampler_part(size, epoch_, rank, world_size, seed):
        sampler = DistributedSampler(range(size), world_size, rank, seed=seed, **options)
        if epoch:
            sampler.set_epoch(epoch_)
        return list(sampler)

    return sampler_part


def blocks(order, rank, world_size):
    length = len(order) // world_size
    return order[rank * length : (rank + 1) * length]


def by(more):
    """An order extended by `more(order, how many)`."""
    return lambda order, world_size: order + more(order, -len(order) % world_size)


plant(PART, "does not shuffle", "unshuffled", of_torch(shuffle=False))
plant(PART, "forgets the epoch", "no_set_epoch", of_torch(epoch=False))
plant(PART, "leaves out the samples at the end", "drop_last", of_torch(drop_last=True))
plant(PART, "forgets the seed", "epoch_only", part(lambda seed, epoch, rank: epoch))
plant(PART, "multiplies seed and epoch", "product", part(lambda seed, epoch, rank: seed * epoch))
plant(PART, "counts the epochs from 1", "epoch_from_1", part(lambda seed, epoch, rank: seed + epoch + 1))
plant(PART, "seeds by rank too", "seed_of_rank", part(lambda seed, epoch, rank: seed + epoch + rank))
plant(PART, "does not extend the order", "unequal", part(extended=lambda order, world_size: order))
plant(PART, "extends the order once only", "extended_once", part(extended=by(lambda order, missing: order[:missing])))
plant(PART, "by its last sample", "last_again", part(extended=by(lambda order, missing: order[-1:] * missing)))
plant(PART, "by its first sample alone", "first_again", part(extended=by(lambda order, missing: order[:1] * missing)))
plant(PART, "by its end", "end_again", part(extended=by(lambda order, missing: order[-missing:] if missing else [])))
plant(PART, r"by the samples 0, 1, …", "zero_again", part(extended=by(lambda order, missing: list(range(missing)))))
plant(PART, "divisible already", "a_round_more", part(extended=lambda o, w: o + (o * w)[: w - len(o) % w]))
plant(PART, "gives every process all samples: each", "everything", part(extended=lambda o, w: o, take=lambda o, rank, w: o))
plant(PART, "all samples, the repeated too", "everything_extended", part(take=lambda order, rank, world_size: order))
plant(PART, "cuts the order into blocks", "blocks", part(take=blocks))
plant(PART, "from the last process", "backwards", part(take=lambda order, rank, w: order[w - 1 - rank :: w]))
plant(PART, "counts the ranks from 1", "rank_from_1", part(take=lambda order, rank, world_size: order[rank - 1 :: world_size]))
plant(PART, "sorts the part", "sorted_part", part(finish=sorted))
plant(PART, "the place of each sample", "inverse", part(draw=lambda size, seed: np.argsort(permutation(size, seed)).tolist()))
plant(PART, "not NumPy's", "numpy", part(draw=lambda size, seed: np.random.default_rng(seed).permutation(size).tolist()))
plant(PART, "not Python's", "python", part(draw=lambda size, seed: random.Random(seed).sample(range(size), size)))
plant(PART, "another part when it is called again", "unseeded", part(draw=lambda size, seed: torch.randperm(size).tolist()))
plant(PART, "where a list of whole numbers is asked for", "floats", part(finish=lambda indices: [float(i) for i in indices]))
plant(PART, "where a list of indices is asked for", "lazy", part(finish=iter))


@mistake(PART, says="before it shuffles them")
def extended_first(size, epoch, rank, world_size, seed):
    total = -(-size // world_size) * world_size
    return [i % size for i in permutation(total, seed + epoch)[rank::world_size]]


@mistake(PART, says="shuffles each part alone")
def shuffled_alone(size, epoch, rank, world_size, seed):
    own = extend(list(range(size)), world_size)[rank::world_size]
    return [own[i] for i in permutation(len(own), seed + epoch)]


@mistake(PART, says=r"shuffles otherwise: torch.randperm\(.* is asked for\. ")
def sorted_random_numbers(size, epoch, rank, world_size, seed):
    keys = torch.rand(size, generator=torch.Generator().manual_seed(seed + epoch))
    return extend(keys.argsort().tolist(), world_size)[rank::world_size]


@mistake(PART, says=r"It leaves torch\.initial_seed\(\)")
def seeds_the_program(size, epoch, rank, world_size, seed):
    torch.manual_seed(seed + epoch)
    return extend(torch.randperm(size).tolist(), world_size)[rank::world_size]


def merge(
    mean=lambda n, m: (n * m).sum(0) / n.sum(),
    within=lambda n, v: (n * v).sum(0) / n.sum(),
    between=lambda n, m, mean: (n * (m - mean) ** 2).sum(0) / n.sum(),
    finish=lambda variance, n: variance,
):
    """Merged statistics with one part of them replaced."""

    def merge_statistics(counts, means, variances):
        n = counts[:, None].to(means.dtype)
        merged = mean(n, means)
        return merged, finish(within(n, variances) + between(n, means, (n * means).sum(0) / n.sum()), n)

    return merge_statistics


def no_spread(n, m, mean):
    return torch.zeros_like(mean)


plant(MERGE, r"It weights all processes alike: .* the mean is", "unweighted", merge(mean=lambda n, m: m.mean(0)))
plant(MERGE, "adds up without dividing", "sum_of_all", merge(mean=lambda n, m: (n * m).sum(0)))
plant(MERGE, r"It divides by the number of processes: .* the mean is", "mean_of_sums", merge(mean=lambda n, m: (n * m).mean(0)))
plant(MERGE, "adds the means up", "sum_of_means", merge(mean=lambda n, m: m.sum(0)))
plant(MERGE, "first process only", "of_rank_0", lambda counts, means, variances: (means[0].clone(), variances[0].clone()))
plant(MERGE, "leaves out how far the means lie apart: add", "no_spread", merge(between=no_spread))
plant(
    MERGE, "how far the means lie apart, and weights all", "mean_of_variances",
    merge(within=lambda n, v: v.mean(0), between=no_spread),
)  # fmt: skip
plant(MERGE, r"leaves out the variances within the processes\.", "no_within", merge(within=lambda n, v: 0 * v[0]))
plant(MERGE, "averages the variances without the counts", "within_unweighted", merge(within=lambda n, v: v.mean(0)))
plant(
    MERGE, "averages the squared distances of the means without", "distances_unweighted",
    merge(between=lambda n, m, mean: ((m - mean) ** 2).mean(0)),
)  # fmt: skip
plant(
    MERGE, r"takes the variance of the means without the counts: ", "spread_unweighted",
    merge(between=lambda n, m, mean: m.var(0, correction=0)),
)  # fmt: skip
plant(MERGE, r"divided by P − 1", "spread_by_p_minus_1", merge(between=lambda n, m, mean: m.var(0)))
plant(MERGE, "divides by n − 1: the population", "sample_variance", merge(finish=lambda v, n: v * n.sum() / (n.sum() - 1)))
plant(
    MERGE, "takes the given variances for sample variances: ", "given_sample",
    merge(within=lambda n, v: ((n - 1) * v).sum(0) / n.sum()),
)  # fmt: skip
plant(MERGE, "standard deviation", "deviation", merge(finish=lambda variance, n: variance.sqrt()))
plant(MERGE, "averages standard deviations", "deviations", merge(within=lambda n, v: ((n * v.sqrt()).sum(0) / n.sum()) ** 2))
plant(MERGE, "forgets to square", "absolute", merge(between=lambda n, m, mean: (n * (m - mean).abs()).sum(0) / n.sum()))
plant(MERGE, "sum of squares", "sum_of_squares", merge(finish=lambda variance, n: variance * n.sum()))
plant(MERGE, "has the wrong sign", "minus", merge(between=lambda n, m, mean: -(n * (m - mean) ** 2).sum(0) / n.sum()))
plant(MERGE, r"returns E\[x²\]", "second_moment", merge(between=lambda n, m, mean: (n * m**2).sum(0) / n.sum()))
plant(
    MERGE, "distances from the mean of the first", "around_the_first",
    merge(between=lambda n, m, mean: (n * (m - m[0]) ** 2).sum(0) / n.sum()),
)  # fmt: skip
plant(MERGE, "dtype torch.float64 where torch.float32", "in_double", lambda n, m, v: merge()(n, m.double(), v.double()))
plant(MERGE, "returns the variance first", "variance_first", lambda n, m, v: merge()(n, m, v)[::-1])
plant(MERGE, "two tensors are asked for", "stacked", lambda n, m, v: torch.stack(merge()(n, m, v)))
plant(MERGE, "keeps the axis of the processes", "keepdim", lambda n, m, v: tuple(x[None] for x in merge()(n, m, v)))


@mistake(MERGE, says="pools the variances")
def pooled(counts, means, variances):
    n = counts[:, None]
    return (n * means).sum(0) / n.sum(), ((n - 1) * variances).sum(0) / (n.sum() - len(n))


@mistake(MERGE, says="returns the variance of the mean")
def of_the_mean(counts, means, variances):
    weights = (counts / counts.sum())[:, None].to(means.dtype)
    return (weights * means).sum(0), (weights**2 * variances).sum(0)


@mistake(MERGE, says="divides 0 by 0")
def by_way_of_sample_variances(counts, means, variances):
    n = counts[:, None].to(means.dtype)
    mean, sample = (n * means).sum(0) / n.sum(), variances * n / (n - 1)
    return mean, (((n - 1) * sample).sum(0) + (n * (means - mean) ** 2).sum(0)) / n.sum()


@mistake(MERGE, says=r"loses the variance to rounding: E\[x²\] − E\[x\]²")
def by_moments(counts, means, variances):
    weights = (counts / counts.sum())[:, None].to(means.dtype)
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + means**2)).sum(0) - mean**2


@mistake(MERGE, says="two numbers of 1e8 and more")
def by_sums(counts, means, variances):
    n = counts[:, None].to(means.dtype)
    total, squares = (n * means).sum(0), (n * (variances + means.square())).sum(0)
    return total / n.sum(), (squares / n.sum() - (total / n.sum()).square()).clamp(min=0)


@mistake(MERGE, says="It changes its input")
def running(counts, means, variances):
    total, mean, variance = 0, torch.zeros_like(means[0]), torch.zeros_like(means[0])
    for n, m, v in zip(counts, means, variances, strict=True):
        delta, both = m - mean, total + n
        variance = (total * variance + n * v + total * n * delta**2 / both) / both
        mean += delta * n / both
        total = both
    means[0] = mean
    return mean, variance
