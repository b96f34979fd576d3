"""Exercises on training (chapter 03): an epoch of training, the evaluation of a regression."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from dlcourse.exercises.checking import Answer, Mistake, compare
from dlcourse.exercises.registry import register

Batches = Iterable[tuple[Tensor, Tensor]]


def train_one_epoch(
    model: nn.Module, loader: Batches, loss_fn: Callable[[Tensor, Tensor], Tensor], optimizer: Optimizer
) -> float:
    """Train on every batch once; returns the mean loss over the samples seen, each measured before its update."""
    model.train()
    total, count = 0.0, 0
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(targets)
        count += len(targets)
    return total / count


def check_train_one_epoch(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    adam = functools.partial(torch.optim.Adam, lr=0.1)
    cases: list[tuple[int, int, bool, Any, Any]] = [
        (2, 2, False, F.mse_loss, _sgd), (6, 2, False, F.mse_loss, _sgd), (7, 3, False, F.mse_loss, _sgd),
        (8, 3, True, F.mse_loss, _sgd), (4, 2, False, _pinball, _sgd), (4, 2, False, F.mse_loss, adam),
    ]  # fmt: skip
    for rows, batch, drop_last, loss_fn, optimizer in cases:
        x = torch.randn(rows, 2, generator=generator)
        y = x @ torch.tensor([[1.0], [-2.0]]) + torch.linspace(0, 3, rows)[:, None] ** 2
        loader = DataLoader(TensorDataset(x, y), batch, drop_last=drop_last)
        given = f"batches of {' and '.join(str(len(t)) for _, t in loader)} samples" + ", drop_last=True" * drop_last
        given += ", another loss" * (loss_fn is _pinball) + ", Adam" * (optimizer is adam)

        def run(epoch: Any, loader: Any = loader, loss_fn: Any = loss_fn, optimizer: Any = optimizer) -> tuple[Any, Tensor, _Probe]:
            model = _Probe()
            model.eval()
            loss = epoch(model, loader, loss_fn, optimizer(model.parameters()))
            return loss, model.linear.weight.detach(), model

        loss, weight, model = run(answer)
        if not all(model.modes):
            raise Mistake(
                f"It does not call model.train(). Given {given} and a model in eval mode, the forward pass ran with "
                "model.training = False: dropout and batch norm would stay switched off."
            )
        want, want_weight, _ = run(train_one_epoch)
        wrong = {sentence: run(lambda *a, how=how: _wrong_epoch(*a, **how))[1] for sentence, how in _EPOCH_MISTAKES.items()}
        compare(weight, want_weight, given=given, mistakes=wrong, what="the weight after the epoch")
        if isinstance(loss, Tensor) and loss.requires_grad:
            raise Mistake(f"It returns a loss with its graph attached, given {given}: loss.item() is the number alone.")
        compare(loss, want, given=given, mistakes=_wrong_means(_losses(loader, loss_fn, optimizer), batch, rows), what="the mean loss")
    return "the weights after an epoch and the mean loss, with an uneven last batch, with drop_last, from eval mode, two losses and two optimizers"


class _Probe(nn.Module):
    """A linear layer of fixed start that records in which mode, and whether with gradients, it was called."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(2, outputs)
        nn.init.constant_(self.linear.weight, 0.5)
        nn.init.constant_(self.linear.bias, -0.25)
        self.modes: list[bool] = []
        self.recorded: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        self.recorded.append(torch.is_grad_enabled())
        return self.linear(x)


def _pinball(predicted: Tensor, targets: Tensor) -> Tensor:
    """Neither symmetric nor squared: an answer that swaps its arguments, or has a loss of its own, is seen."""
    return torch.maximum(0.9 * (targets - predicted), 0.1 * (predicted - targets)).mean()


def _sgd(parameters: Any) -> Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def _wrong_epoch(
    model: Any, loader: Any, loss_fn: Any, optimizer: Any, *, zero: str = "first", step: str = "last", only_first: bool = False,
    own_optimizer: bool = False, own_loss: bool = False, swap: bool = False,
) -> float:  # fmt: skip
    """The epoch with one statement missing or in the wrong place."""
    optimizer = _sgd(model.parameters()) if own_optimizer else optimizer
    loss_fn = F.mse_loss if own_loss else loss_fn
    if swap:
        loss_fn = lambda predicted, targets, right=loss_fn: right(targets, predicted)  # noqa: E731
    for inputs, targets in list(loader)[:1] if only_first else loader:
        if zero == "first":
            optimizer.zero_grad()
        loss = loss_fn(model(inputs), targets)
        if step == "before backward":
            optimizer.step()
        loss.backward()
        if step == "last":
            optimizer.step()
    if step == "once":
        optimizer.step()
    return 0.0


_EPOCH_MISTAKES: dict[str, dict[str, Any]] = {
    "never changes the weights: step() is missing, or runs while the gradients are zero": {"step": "no"},
    "never sets the gradients to zero between batches: backward() adds to what the batches before left": {"zero": "no"},
    "steps before backward(): each batch moves the weights by stale gradients": {"step": "before backward", "zero": "no"},
    "steps once after the loop: one update an epoch, from the last batch": {"step": "once"},
    "steps once after the loop, with the gradients of all batches added up": {"step": "once", "zero": "no"},
    "trains on the first batch alone": {"only_first": True},
    "makes an optimizer of its own: the one it is given decides how the weights move": {"own_optimizer": True},
    "calls loss_fn(targets, predicted): the predictions come first": {"swap": True},
    "computes a loss of its own: use the loss_fn it is given": {"own_loss": True},
}


def _losses(loader: Any, loss_fn: Any, make_optimizer: Any) -> list[tuple[float, float, int]]:
    """(loss before the update, loss after it, samples) of each batch of a right epoch."""
    model = _Probe()
    optimizer = make_optimizer(model.parameters())
    losses = []
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append((loss.item(), loss_fn(model(inputs), targets).item(), len(targets)))
    return losses


def _wrong_means(losses: list[tuple[float, float, int]], batch: int, rows: int) -> dict[str, float]:
    seen = sum(n for _, _, n in losses)
    total = sum(loss * n for loss, _, n in losses)
    return {
        "averages the batch means: the small last batch counts as much as a full one": sum(x for x, _, _ in losses) / len(losses),
        "returns the loss of the last batch": losses[-1][0],
        "measures the loss after the update": sum(x * n for _, x, n in losses) / seen,
        "sums the batch losses and never divides": sum(x for x, _, _ in losses),
        "returns the sum over the samples: divide by their number": total,
        "divides by the number of batches where the number of samples is meant": total / len(losses),
        "divides by len(loader.dataset), which counts samples that drop_last left out": total / rows,
        "takes every batch for a full one: the last is smaller": sum(x for x, _, _ in losses) * batch / seen,
    }


register(
    "training.train_one_epoch",
    train_one_epoch,
    check_train_one_epoch,
    difficulty=2,
    importance=5,
    minutes=15,
    hints=(
        "Go through the broken loop line by line: which mode is the model in, and what do the gradients hold when backward() "
        "adds to them?",
        "The order is zero_grad, forward, backward, step. The mean over the samples needs each batch's own size.",
        "total += loss.item() * len(targets) and count += len(targets) in the loop; return total / count after it.",
    ),
)


def evaluate_regression(model: nn.Module, loader: Batches) -> tuple[float, float]:
    """Mean absolute error and R² = 1 − Σ(y − ŷ)² / Σ(y − ȳ)² over all samples.

    The model returns (B, 1), the targets are (B,). The model is evaluated in eval mode and left in the mode it was in.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        pairs = [(model(inputs).squeeze(1), targets) for inputs, targets in loader]  # (B, 1) -> (B,)
    model.train(was_training)
    predicted, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))  # (N,), (N,)
    squares = ((targets - predicted) ** 2).sum()
    return (targets - predicted).abs().mean().item(), (1 - squares / ((targets - targets.mean()) ** 2).sum()).item()


def check_evaluate_regression(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    for rows, batch in ((4, 4), (4, 2), (7, 3)):
        x = torch.randn(rows, 2, generator=generator)
        y = x @ torch.tensor([0.8, 0.1]) + torch.linspace(0, 1, rows)
        loader = DataLoader(TensorDataset(x, y), batch)
        given = f"batches of {' and '.join(str(len(t)) for _, t in loader)} samples"
        for training in (True, False):
            model = _Probe()
            model.train(training)
            before = copy.deepcopy(model)
            try:
                got = answer(model, loader)
            except Mistake as mistake:
                if "zero-dimensional" not in str(mistake):
                    raise
                raise Mistake(
                    f"Its squeeze() takes the batch axis away too where a batch has one sample, given {given}: squeeze(1) or "
                    f"flatten() keeps it. ({mistake})"
                ) from None
            if any(model.modes):
                raise Mistake("It does not call model.eval(): with dropout the score would change from call to call.")
            if model.training is not training:
                raise Mistake(
                    f"It leaves the model in {'train' if model.training else 'eval'} mode; it was in "
                    f"{'train' if training else 'eval'} mode when it came. Keep model.training and restore it."
                )
            if any(model.recorded):
                raise Mistake("It records a graph for every batch: evaluate under torch.no_grad().")
            if not all(parameter.requires_grad for parameter in model.parameters()):
                raise Mistake("It leaves the model frozen (requires_grad = False): use `with torch.no_grad():`, which ends.")
            if any(not torch.equal(a, b) for a, b in zip(before.parameters(), model.parameters(), strict=True)):
                raise Mistake("It changes the model's weights: an evaluation only looks.")
            want = evaluate_regression(before, loader)
            compare(got, want, given=given, mistakes=_wrong_scores(model, loader), what="(MAE, R²)")
    return "MAE and R² with even and uneven batches, eval mode, no graph, the mode restored, predictions flattened"


def _wrong_scores(model: nn.Module, loader: Any) -> dict[str, tuple[float, float]]:
    with torch.no_grad():
        pairs = [(model.eval()(inputs).squeeze(1), targets) for inputs, targets in loader]
    p, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    around = ((y - y.mean()) ** 2).sum()

    def mae(p: Tensor, y: Tensor) -> float:
        return (y - p).abs().mean().item()

    def r2(p: Tensor, y: Tensor) -> float:
        return (1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()).item()

    right = mae(p, y), r2(p, y)
    wide = [(p[:, None], y) for p, y in pairs]  # (B, 1) − (B,) -> (B, B)
    wide_mae = sum(mae(*pair) * len(pair[1]) for pair in wide) / len(y)
    batch_mae, batch_r2 = (fmean(score(*pair) for pair in pairs) for score in (mae, r2))
    weighted_r2 = sum(r2(p, y) * len(y) for p, y in pairs) / len(y)
    wide_r2 = (1 - sum(((y - p) ** 2).sum() for p, y in wide) / around).item()
    return {
        "subtracts (B,) from (B, 1), which makes a (B, B) table: flatten the predictions first": (wide_mae, wide_r2),
        "subtracts (N,) from (N, 1), which makes an (N, N) table: flatten the predictions first": (
            mae(p[:, None], y), (1 - ((y - p[:, None]) ** 2).sum() / around).item()
        ),
        "averages the batches' MAE: the small last batch counts as much as a full one": (batch_mae, right[1]),
        "averages the R² of the batches: each has another mean, R² needs all samples at once": (right[0], batch_r2),
        "averages the batches' MAE and their R², whatever the sizes: R² needs all samples at once": (batch_mae, batch_r2),
        "weights the batches' R²: each has another mean, R² needs all samples at once": (right[0], weighted_r2),
        "sums the absolute errors: the mean is asked for": ((y - p).abs().sum().item(), right[1]),
        "divides Σ(y − ŷ)² by n and Σ(y − ȳ)² by n − 1 (the default of var)": (right[0], 1 - (1 - right[1]) * (len(y) - 1) / len(y)),
        "returns the mean squared error where the absolute error is asked for": (((y - p) ** 2).mean().item(), right[1]),
        "returns the root of the mean squared error, not the absolute error": (((y - p) ** 2).mean().sqrt().item(), right[1]),
        "takes Σ y² below the line of R², where the spread around the mean belongs": (
            right[0], (1 - ((y - p) ** 2).sum() / (y**2).sum()).item()
        ),
        "gives the squared correlation for R²: that forgives a wrong scale or offset": (
            right[0], (torch.corrcoef(torch.stack([p, y]))[0, 1] ** 2).item()
        ),
        "returns the unexplained share, 1 − R²": (right[0], 1 - right[1]),
        "swaps predictions and targets in R²": (right[0], r2(y, p)),
        "returns R² first": right[::-1],
    }  # fmt: skip


register(
    "training.evaluate_regression",
    evaluate_regression,
    check_evaluate_regression,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "Three things belong around the loop: eval mode, no graph, and the mode as it was. And what shape has (B, 1) − (B,)?",
        "R² compares with the mean over all samples, which no batch knows: collect predictions and targets, compute at the end.",
        "torch.cat the squeezed predictions and the targets; MAE = (y − p).abs().mean(); "
        "R² = 1 − ((y − p) ** 2).sum() / ((y − y.mean()) ** 2).sum().",
    ),
)
