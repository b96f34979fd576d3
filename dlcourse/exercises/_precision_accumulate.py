"""The check of precision.accumulate: the same epochs by the answer, by the reference, and with one mistake in them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from dlcourse.exercises.checking import Answer, Mistake, compare

Batch = tuple[Tensor, Tensor]
Epoch = Callable[..., Any]


class _Probe(nn.Module):
    """A linear layer of fixed start that records how many samples each call had, and how many graphs wait for backward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        nn.init.constant_(self.linear.weight, 0.5)
        nn.init.constant_(self.linear.bias, -0.25)
        self.sizes: list[int] = []
        self.waiting = self.most_waiting = 0

    def forward(self, x: Tensor) -> Tensor:
        out = self.linear(x)
        if out.requires_grad:
            self.sizes.append(len(x))
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            out.register_hook(self._done)
        return out

    def _done(self, gradient: Tensor) -> None:
        self.waiting -= 1

    def weights(self) -> Tensor:
        return torch.cat([self.linear.weight.flatten(), self.linear.bias]).detach().clone()

    def left(self) -> float:
        return sum(float(p.grad.abs().sum()) for p in self.parameters() if p.grad is not None)


def _batches(sizes: tuple[int, ...]) -> list[Batch]:
    x = torch.randn(sum(sizes), 2, generator=torch.Generator().manual_seed(len(sizes)))
    y = x @ torch.tensor([[1.0], [-2.0]]) + torch.linspace(0, 3, len(x))[:, None] ** 2
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def _sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05)


def _adam(model: nn.Module) -> Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.1)


def _lopsided(predicted: Tensor, targets: Tensor) -> Tensor:
    return torch.maximum(0.9 * (targets - predicted), 0.1 * (predicted - targets)).mean()


_CASES: tuple[tuple[tuple[int, ...], int, Any, Any, bool], ...] = (  # sizes, k, loss, optimizer, gradients left over
    ((2,), 1, F.mse_loss, _sgd, False),
    ((2, 2), 2, F.mse_loss, _sgd, False),
    ((2, 2, 2, 2), 2, F.mse_loss, _sgd, False),
    ((2, 2, 2), 2, F.mse_loss, _sgd, False),
    ((3, 1), 2, F.mse_loss, _sgd, False),
    ((2, 2), 4, F.mse_loss, _sgd, False),
    ((2, 2), 2, F.mse_loss, _sgd, True),
    ((4,) * 9 + (3,), 4, F.mse_loss, _sgd, False),
    ((4, 4, 4, 4, 1), 3, _lopsided, _sgd, False),
    ((4, 4, 4, 4, 1), 3, F.mse_loss, _adam, False),
)


def check(answer: Answer, reference: Epoch) -> str:
    later: list[str] = []  # what is wrong although the weights are right
    for number, (sizes, k, loss_fn, make, stale) in enumerate(_CASES):
        batches, (want, right) = _batches(sizes), _run(reference, number)
        for once in (False, True):
            given = f"k={k} and batches of {', '.join(map(str, sizes))} samples"
            given += ", another loss" * (loss_fn is _lopsided) + ", Adam" * (make is _adam)
            given += ", gradients left by whoever ran before" * stale + ", given as an iterator (no len, no second round)" * once
            got, model = _run(answer, number, once=once)
            _check_memory(model, right, given)
            weights, left = model.weights(), model.left()
            if not torch.allclose(weights, right.weights(), rtol=1e-4, atol=1e-5):
                if left > 0 and got == len(batches) // k < want:
                    raise Mistake(
                        f"It leaves the last window's gradient without a step, given {given}: it leaks into the next epoch. Flush it."
                    )
                compare(weights, right.weights(), given=given, what="the weight after the epoch",
                        mistakes=dict.fromkeys(_names(answer), weights))  # fmt: skip
            if left > 0:
                later.append(f"It leaves gradients behind after the last step, given {given}: clear them.")
            compare(got, want, given=given, what="the number of updates", mistakes={
                "returns the number of batches: count the steps of the optimizer": len(batches),
                "returns batches // k, which misses the short window": len(batches) // k,
                "returns the number of samples": sum(sizes),
                "counts one update too few": want - 1,
            })  # fmt: skip
    if later:
        raise Mistake(later[0])
    return (
        "the weights and the number of updates, with a short window, a short batch, more than one window, left gradients, two "
        "losses and two optimizers, one batch in memory at a time"
    )


def _run(epoch: Epoch, number: int, *, once: bool = False) -> tuple[Any, _Probe]:
    """What an epoch of the case returns, and the model after it; `once` gives the batches as an iterator."""
    sizes, k, loss_fn, make, stale = _CASES[number]
    batches, model = _batches(sizes), _Probe()
    if stale:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 5.0)
    return epoch(model, iter(batches) if once else batches, loss_fn, make(model), k), model


def _check_memory(model: _Probe, right: _Probe, given: str) -> None:
    if model.sizes and max(model.sizes) > max(right.sizes):
        raise Mistake(
            f"It puts the batches of a window together, given {given}: the model saw {max(model.sizes)} samples at once. That "
            "needs the memory that accumulation saves."
        )
    if model.most_waiting > 1:
        raise Mistake(
            f"It keeps the graphs of {model.most_waiting} batches until backward(), given {given}: call backward() after each "
            "batch, or nothing is saved."
        )


def _names(answer: Answer) -> list[str]:
    """The mistake that explains what the answer does in every case, if one does."""

    def trace(epoch: Epoch) -> Tensor:
        return torch.cat([_run(epoch, number)[1].weights() for number in range(len(_CASES))])

    with contextlib.suppress(Mistake):
        got = trace(answer)
        for sentence, how in _MISTAKES.items():
            if torch.allclose(got, trace(functools.partial(_wrong_epoch, **how)), rtol=1e-3, atol=1e-4, equal_nan=True):
                return [sentence]
    return []


def _windows(batches: list[Batch], k: int, how: str) -> Iterator[list[Batch]]:
    if how == "first alone":  # `if i % k == 0: step()`
        yield batches[:1]
        batches = batches[1:]
    for start in range(0, len(batches), k):
        window = batches[start : start + k]
        if how != "drop" or len(window) == k:
            yield window


def _wrong_epoch(
    model: nn.Module, batches: list[Batch], loss_fn: Any, optimizer: Optimizer, k: int, *, divide: str = "samples",
    window: str = "k", clear: str = "window", start: bool = True, swap: bool = False, own: str = "",
) -> int:  # fmt: skip
    """The epoch with one part missing or wrong."""
    optimizer = _sgd(model) if own == "optimizer" else optimizer
    loss_fn = F.mse_loss if own == "loss" else loss_fn
    if start:
        optimizer.zero_grad()
    for part in _windows(batches, {"one": 1, "all": len(batches)}.get(window, k), window):
        samples = sum(len(y) for _, y in part)
        for x, y in part:
            loss = loss_fn(y, model(x)) if swap else loss_fn(model(x), y)
            share = {
                "samples": len(y) / samples, "no": 1.0, "k": 1 / k, "batches": 1 / len(part), "full": len(y) / (k * len(part[0][1])),
                "all samples": len(y) / sum(len(y) for _, y in batches), "only samples": 1 / samples,
                "sum": float(len(y)),
            }[divide]  # fmt: skip
            if clear == "batch":
                optimizer.zero_grad()
            (loss * share).backward()
        optimizer.step()
        if clear == "window":
            optimizer.zero_grad()
    return 0


_MISTAKES: dict[str, dict[str, Any]] = {
    "counts the gradients that were left by whoever ran before: clear them at the start": {"start": False},
    "clears the gradients before every batch: only the last batch of a window counts": {"clear": "batch"},
    "clears the gradients before every batch, and divides by k: only the last batch counts": {"clear": "batch", "divide": "k"},
    "steps after every batch": {"window": "one"},
    "steps after every batch, with a k-th of its gradient": {"window": "one", "divide": "k"},
    "steps once, after the last batch": {"window": "all"},
    "drops the short window at the end": {"window": "drop"},
    "drops the short window at the end, and weighs batches of all sizes alike": {"window": "drop", "divide": "k"},
    "steps after the first batch alone: the windows are shifted by one": {"window": "first alone"},
    "steps after the first batch alone (i % k == 0), and divides by k": {"window": "first alone", "divide": "k"},
    "adds the gradients up and never divides": {"divide": "no"},
    "divides by k in a window that has fewer batches": {"divide": "k"},
    "weighs the batches of a window alike: a short batch counts by its samples": {"divide": "batches"},
    "takes every window for a full one: divide by the samples it really has": {"divide": "full"},
    "divides by the samples of the whole epoch: those of the window are meant": {"divide": "all samples"},
    "divides by the window's samples without multiplying by the batch's: loss_fn is a mean already": {"divide": "only samples"},
    "multiplies by the batch's size and never divides by the window's": {"divide": "sum"},
    "never clears the gradients between two windows": {"clear": "no"},
    "calls loss_fn(targets, predicted): the predictions come first": {"swap": True},
    "computes a loss of its own: use the loss_fn it is given": {"own": "loss"},
    "makes an optimizer of its own: use the one it is given": {"own": "optimizer"},
}
