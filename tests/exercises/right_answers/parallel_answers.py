"""Right answers to the exercises on training with many processes, in other styles than the references'."""

from itertools import cycle, islice

import numpy as np
import torch
from planting import right_answer
from torch.utils.data import DistributedSampler


@right_answer("parallel.sampler_part")
def the_part_that_torch_gives(size, epoch, rank, world_size, seed):
    sampler = DistributedSampler(range(size), num_replicas=world_size, rank=rank, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


@right_answer("parallel.sampler_part")
def part_as_a_column(size, epoch, rank, world_size, seed):
    generator = torch.Generator()
    generator.manual_seed(epoch + seed)
    rounds = -(-size // world_size)
    order = torch.randperm(size, generator=generator).repeat(world_size)
    return order[: rounds * world_size].view(rounds, world_size)[:, rank]


@right_answer("parallel.sampler_part")
def part_by_going_round(size, epoch, rank, world_size, seed):
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed + epoch))
    total = size + (world_size - size % world_size) % world_size
    return tuple(islice(cycle(order), rank, total, world_size))


@right_answer("parallel.sampler_part")
def part_as_an_array(size, epoch, rank, world_size, seed):
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed + epoch)).numpy()
    return np.resize(order, int(np.ceil(size / world_size)) * world_size)[rank::world_size]


@right_answer("parallel.sampler_part")
def part_by_adding_what_is_missing(size, epoch, rank, world_size, seed):
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
    for place in range(1_000):
        if len(order) % world_size == 0:
            break
        order.append(order[place])
    return [index for place, index in enumerate(order) if place % world_size == rank]


@right_answer("parallel.merge_statistics")
def merged_one_after_the_other(counts, means, variances):
    total, mean, squares = 0, torch.zeros_like(means[0]), torch.zeros_like(means[0])
    for n, m, v in zip(counts.tolist(), means, variances, strict=True):
        delta, both = m - mean, total + n
        squares = squares + n * v + delta**2 * (total * n / both)
        mean, total = mean + delta * n / both, both
    return mean, squares / total


@right_answer("parallel.merge_statistics")
def merged_in_pairs(counts, means, variances):
    parts = [(int(n), m, v * n) for n, m, v in zip(counts, means, variances, strict=True)]
    while len(parts) > 1:
        (a, mean_a, squares_a), (b, mean_b, squares_b), *rest = parts
        delta, both = mean_b - mean_a, a + b
        parts = [*rest, (both, mean_a + delta * (b / both), squares_a + squares_b + delta**2 * (a * b / both))]
    return [parts[0][1], parts[0][2] / parts[0][0]]


@right_answer("parallel.merge_statistics")
def merged_by_moments_in_double(counts, means, variances):
    n, m = counts.double() / counts.sum().double(), means.double()
    mean = n @ m
    return mean.to(means.dtype), (n @ (variances.double() + m**2) - mean**2).to(means.dtype)


@right_answer("parallel.merge_statistics")
def merged_by_moments_around_one_of_the_means(counts, means, variances):
    n = counts.to(means.dtype)[:, None]
    moved = means - means[:1]
    mean = (n * moved).sum(0) / n.sum()
    return means[0] + mean, (n * (variances + moved**2)).sum(0) / n.sum() - mean**2


@right_answer("parallel.merge_statistics")
def merged_with_numpy(counts, means, variances):
    n, m, v = counts.numpy(), means.numpy(), variances.numpy()
    mean = np.average(m.astype(np.float64), axis=0, weights=n)
    variance = np.average(v + (m - mean) ** 2, axis=0, weights=n)
    return torch.as_tensor(mean).to(means.dtype), torch.as_tensor(variance).to(means.dtype)


@right_answer("parallel.merge_statistics")
def merged_as_samples(counts, means, variances):
    # n samples of a mean and a variance have the moments of n/2 at mean − σ and n/2 at mean + σ.
    samples = torch.cat([means - variances.sqrt(), means + variances.sqrt()]).double()
    each = torch.cat([counts, counts])
    everything = samples.repeat_interleave(each, dim=0)
    return everything.mean(0).to(means.dtype), everything.var(0, unbiased=False).to(means.dtype)
