"""Right answers to the exercises on tuning, in other styles than the references'."""

import math

import numpy as np
import torch
from planting import right_answer


@right_answer("tuning.log_uniform")
def log_uniform_by_logarithms(u, low, high):
    return torch.exp(math.log(low) + u * (math.log(high) - math.log(low)))


@right_answer("tuning.log_uniform")
def log_uniform_by_lerp(u, low, high):
    ends = torch.tensor([low, high], dtype=u.dtype).log10()
    return 10 ** torch.lerp(ends[0], ends[1], u)


@right_answer("tuning.log_uniform")
def log_uniform_by_weights(u, low, high):
    return low ** (1 - u) * high**u


@right_answer("tuning.log_uniform")
def log_uniform_by_numpy(u, low, high):
    return torch.from_numpy(np.asarray(np.geomspace(low, high, 3)[0] * np.power(high / low, u.numpy().astype(float)))).to(u.dtype)


@right_answer("tuning.should_stop")
def should_stop_by_numpy(curve, finished, *, startup=5, warmup=1):
    n = len(curve)
    there = [other[n - 1] for other in finished if len(other) > n - 1]
    return np.bool_(len(finished) >= startup and n > warmup and len(there) > 0 and np.max(curve) < np.median(there))


@right_answer("tuning.should_stop")
def should_stop_by_nan(curve, finished, *, startup=5, warmup=1):
    if len(finished) < startup or len(curve) < warmup + 1:
        return False
    table = np.full((len(finished), max(len(curve), *map(len, finished), 1)), np.nan)
    for row, other in zip(table, finished, strict=True):
        row[: len(other)] = other
    column = table[:, len(curve) - 1]
    return False if np.isnan(column).all() else bool(np.nanmedian(column) > max(curve))


@right_answer("tuning.should_stop")
def should_stop_by_sorting(curve, finished, *, startup=5, warmup=1):
    epoch = len(curve)
    there = sorted(other[epoch - 1] for other in finished if epoch <= len(other))
    if epoch <= warmup or startup > len(finished) or not there:
        return False
    middle = (there[len(there) // 2] + there[(len(there) - 1) // 2]) / 2
    return all(value < middle for value in curve)


@right_answer("tuning.select_and_report")
def select_by_numpy(val, test, *, t):
    best = np.argmax(np.mean(val.numpy(), axis=1))
    scores = test.numpy()[best]
    return best, np.mean(scores), t * np.std(scores, ddof=1) / np.sqrt(scores.size)


@right_answer("tuning.select_and_report")
def select_with_tensors(val, test, *, t):
    best = val.sum(dim=-1).argmax()
    var, mean = torch.var_mean(test[best])
    return [best, mean, t * (var / test.shape[-1]).sqrt()]


@right_answer("tuning.select_and_report")
def select_in_plain_python(val, test, *, t):
    rows = val.tolist()
    best = max(range(len(rows)), key=lambda i: sum(rows[i]))
    scores = test.tolist()[best]
    mean = sum(scores) / len(scores)
    squares = sum((score - mean) ** 2 for score in scores)
    return best, mean, t * math.sqrt(squares / (len(scores) - 1) / len(scores))
