"""Exercise on normalisation: batch norm as a function, in training and in eval mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import grad

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Mistakes = dict[str, torch.Tensor | Callable[[], torch.Tensor]]
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Root = Callable[[torch.Tensor], torch.Tensor]


def batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if training:
        mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
        unbiased = x.detach().var(dim=(0, 2, 3), correction=1)
        running_mean = (1 - momentum) * running_mean + momentum * mean.detach()
        running_var = (1 - momentum) * running_var + momentum * unbiased
    else:
        mean, var = running_mean, running_var
    normalised = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + eps)
    return weight[:, None, None] * normalised + bias[:, None, None], running_mean, running_var


def check_batch_norm(answer: Answer) -> str:
    # (2, 2, 1, 2): the channels' means are 5 and 25.
    small = torch.tensor([[[[1.0, 3.0]], [[10.0, 20.0]]], [[[5.0, 11.0]], [[30.0, 40.0]]]])
    cases = [
        (small, torch.ones(2), torch.zeros(2)),
        (small, torch.tensor([2.0, 3.0]), torch.tensor([0.5, -1.0])),
        (torch.randn(4, 3, 5, 2) * torch.tensor([0.3, 1.0, 4.0])[:, None, None] + 2, torch.randn(3), torch.randn(3)),
        (1e-3 * torch.randn(3, 2, 3, 3), torch.randn(2), torch.randn(2)),  # so small that eps matters
        (torch.randn(5, 5, 5, 5), torch.randn(5), torch.randn(5)),  # so square that a wrong axis fits
    ]
    for x, weight, bias in cases:
        for training in (True, False):
            channels = len(weight)
            given = (x, weight, bias, 0.5 + torch.arange(channels), 2.0 + torch.arange(channels))
            for options in ({}, {"momentum": 0.3, "eps": 1e-2}):
                _compare_one(answer, given, {"training": training, **options})
    _check_gradients(answer)
    return "outputs and running statistics in training and in eval mode, momentum, eps, and every gradient"


@dataclass(frozen=True)
class _Given:
    """What the answer was called with."""

    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor
    training: bool
    momentum: float = 0.1
    eps: float = 1e-5

    def mean(self) -> torch.Tensor:
        return self.x.mean((0, 2, 3))

    def var(self, correction: int = 0) -> torch.Tensor:
        return self.x.var((0, 2, 3), correction=correction)


def _compare_one(answer: Answer, tensors: Tensors, options: dict[str, Any]) -> None:
    result = answer(*tensors, **options)
    text = describe(*tensors, **options)
    if not isinstance(result, (tuple, list)) or len(result) != 3:
        raise Mistake(f"It returns {describe(result)}; three tensors are asked for: output, running_mean, running_var.")
    wanted = batch_norm(*tensors, **options)
    given = _Given(*tensors, **options)
    parts = (("the output", _output_mistakes), ("running_mean", _mean_mistakes), ("running_var", _var_mistakes))
    for got, want, (what, mistakes) in zip(result, wanted, parts, strict=True):
        compare(got, want, given=text, what=what, mistakes=mistakes(given))


def _output_mistakes(given: _Given) -> Mistakes:
    x, mean, var, ones = given.x, given.running_mean, given.running_var, torch.ones_like(given.weight)

    def norm(mean: torch.Tensor, var: torch.Tensor, *, eps: float = given.eps, root: Root = torch.sqrt) -> torch.Tensor:
        return (x - mean) / root(var + eps)

    def affine(x: torch.Tensor, weight: torch.Tensor = given.weight, bias: torch.Tensor = given.bias) -> torch.Tensor:
        return x * weight[:, None, None] + bias[:, None, None]

    def over(*dims: int, correction: int = 0) -> torch.Tensor:
        return affine(norm(x.mean(dims, keepdim=True), x.var(dims, correction=correction, keepdim=True)))

    def tracked(momentum: float, correction: int) -> torch.Tensor:
        new_var = torch.lerp(var, given.var(correction), momentum)
        return affine(norm(torch.lerp(mean, given.mean(), momentum)[:, None, None], new_var[:, None, None]))

    used = [t[:, None, None] for t in ((given.mean(), given.var()) if given.training else (mean, var))]
    other = [t[:, None, None] for t in ((mean, var) if given.training else (given.mean(), given.var()))]
    mistakes: Mistakes = {
        "forgets the weight and the bias": lambda: norm(*used),
        "forgets the weight": lambda: affine(norm(*used), weight=ones),
        "forgets the bias": lambda: affine(norm(*used), bias=0 * ones),
        "adds eps to the standard deviation; it belongs under the root":
            lambda: affine(norm(*used, eps=0, root=lambda v: v.sqrt() + given.eps)),
        "does not use the eps it is given": lambda: affine(norm(*used, eps=0)),
        "divides by the variance instead of its root": lambda: affine(norm(*used, root=torch.clone)),
        "does not divide by the standard deviation": lambda: affine(x - used[0]),
    }
    if not given.training:
        return {
            "ignores the running variance in eval mode": lambda: affine(x - used[0]),
            "uses the batch's statistics in eval mode": lambda: affine(norm(*other)),
            "uses the batch's variance in eval mode": lambda: affine(norm(used[0], other[1])),
            "uses the batch's mean in eval mode": lambda: affine(norm(other[0], used[1])),
        } | mistakes
    updated = "normalises with the updated running statistics in training; the batch's own are meant"
    return mistakes | {
        "normalises with the unbiased variance: divide the squares by the number of values, not by one less":
            lambda: over(0, 2, 3, correction=1),
        "normalises with the running statistics in training": lambda: affine(norm(*other)),
        updated: lambda: tracked(given.momentum, 1),
        f"{updated} (and keeps the biased variance)": lambda: tracked(given.momentum, 0),
        "normalises each sample by itself; the statistics are over the batch": lambda: over(1, 2, 3),
        "normalises each channel of each sample by itself; the statistics are over the batch": lambda: over(2, 3),
        "normalises each pixel over the batch; the statistics are over the pixels too": lambda: over(0),
        "takes one mean and variance for all channels together": lambda: over(0, 1, 2, 3),
    }


def _mean_mistakes(given: _Given) -> Mistakes:
    old, new, momentum = given.running_mean, given.mean(), given.momentum
    if not given.training:
        return {"updates the running mean in eval mode": torch.lerp(old, new, momentum)}
    return {
        "never updates the running mean": old,
        "takes momentum the wrong way round: it is the weight of the new batch": torch.lerp(new, old, momentum),
        "does not use the momentum it is given": torch.lerp(old, new, 0.1),
        "replaces the running mean by the batch's": new,
        "adds momentum times the batch's mean and keeps all of the old one": old + momentum * new,
    }


def _var_mistakes(given: _Given) -> Mistakes:
    old, new, momentum = given.running_var, given.var(correction=1), given.momentum
    if not given.training:
        return {"updates the running variance in eval mode": torch.lerp(old, new, momentum)}
    return {
        "never updates the running variance": old,
        "feeds the biased variance into the running one; the batch is a sample, so the unbiased one is meant":
            torch.lerp(old, given.var(), momentum),
        "takes momentum the wrong way round for the variance": torch.lerp(new, old, momentum),
        "averages the standard deviation, not the variance": torch.lerp(old, new.sqrt(), momentum),
        "replaces the running variance by the batch's": new,
    }


def _check_gradients(answer: Answer) -> None:
    x, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 2, 2, 3), (2,), (2,)))
    given = [t.requires_grad_() for t in (x, weight, bias)]
    statistics = [torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)]
    for training in (True, False):
        out, *tracked = answer(*given, *statistics, training=training)
        want = batch_norm(*given, *statistics, training=training)[0]
        compare(out, want, given="the same in float64, with gradients asked for")
        if any(t.requires_grad for t in tracked):
            raise Mistake("It returns running statistics that carry a gradient: detach them, or past batches are kept.")
        slopes = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).reshape(x.shape)
        scale = weight[:, None, None] / torch.sqrt(x.var((0, 2, 3), correction=0)[:, None, None] + 1e-5)
        constant = (slopes * scale).detach()
        for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
            ours = None
            if out.requires_grad:
                ours = grad((out * slopes).sum(), tensor, retain_graph=True, allow_unused=True)[0]
            theirs = grad((want * slopes).sum(), tensor, retain_graph=True)[0]
            if ours is None:
                raise Mistake(f"It cuts the gradient of {name}.")
            treated = {"treats the batch's mean and variance as constants; the gradient goes through them": constant}
            compare(ours, theirs, given=f"float64 input, training={training}", what=f"the gradient of {name}",
                    mistakes=treated if name == "x" else None)


register(
    "normalisation.batch_norm",
    batch_norm,
    check_batch_norm,
    difficulty=3,
    importance=5,
    minutes=20,
    hints=(
        "Which values does one channel's mean run over? Take x.mean(dim=...) so that a tensor of shape (C,) is left.",
        "In training normalise with the batch's mean and its variance with correction=0; in eval with the running "
        "ones. Divide by sqrt(var + eps).",
        "running = (1 − momentum) · running + momentum · new, as new tensors and detached; the new variance is the one "
        "with correction=1. mean[:, None, None] lines a (C,) tensor up with (B, C, H, W).",
    ),
)
