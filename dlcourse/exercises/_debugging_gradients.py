"""What the checks of the exercises on gradients (chapter 14) do: the length of a gradient, and clipping it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlcourse.exercises.checking import Answer, Mistake, compare

Reference = Callable[..., Any]


class _Probe(nn.Module):
    """Two layers around a batch norm, a frozen one, an unused one, and a record of the modes of its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first, self.last = nn.BatchNorm1d(3), nn.Linear(3, 4), nn.Linear(4, 2)
        self.frozen, self.unused = nn.Linear(4, 4).requires_grad_(False), nn.Linear(2, 2)
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training and self.norm.training)
        return self.last(self.frozen(torch.tanh(self.first(self.norm(x)))))


def check_gradient_norm(answer: Answer, gradient_norm: Reference) -> str:
    layers = [nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False)]
    for layer, weight in zip(layers, ([[1.8, 2.4]], [[4.0]]), strict=True):
        layer.weight = nn.Parameter(torch.tensor(weight))
    pair = nn.Sequential(*layers)
    given = "two layers whose gradients are [2.4, 3.2] and [3]"
    before: nn.Module = copy.deepcopy(pair)
    got = answer(pair, torch.tensor([[0.6, 0.8]]), torch.zeros(1, 1), lambda out, targets: (out - targets).sum())
    _no_graph(got)
    _unchanged(pair, before, [True] * 3, [None, None], given)
    compare(got, 5.0, given=given, mistakes=_wrong_lengths([torch.tensor([[2.4, 3.2]]), torch.tensor([[3.0]])]), what="the norm")
    probe = _Probe()
    x, y = torch.randn(6, 3), torch.randint(2, (6,))
    for stale in (False, True):
        model = copy.deepcopy(probe)
        model.norm.eval()
        if stale:
            for parameter in model.first.parameters():
                parameter.grad = torch.ones_like(parameter)
        given = "a model with a batch norm, a frozen and an unused layer" + ", in which old gradients lie" * stale
        before, modes = copy.deepcopy(model), [m.training for m in model.modules()]
        grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        got = answer(model, x, y, F.cross_entropy)
        _unchanged(model, before, modes, grads, given)
        fresh = copy.deepcopy(probe)
        wrong: dict[str, Any] = {"measures in eval mode: train mode is asked for, as in training": gradient_norm(_Evaluated(fresh), x, y, F.cross_entropy)}
        F.cross_entropy(fresh.train()(x), y).backward()
        parts = [p.grad for p in fresh.parameters() if p.grad is not None]
        wrong |= _wrong_lengths(parts)
        wrong["leaves the old gradients in: backward() adds to what lies there"] = math.hypot(
            *(((g if g is not None else 0) + (f.grad if f.grad is not None else torch.zeros(1))).norm()
              for g, f in zip(grads, fresh.parameters(), strict=True))
        )  # fmt: skip
        compare(got, gradient_norm(before, x, y, F.cross_entropy), given=given, mistakes=wrong, what="the norm")
    return "the length of the whole gradient, with frozen and unused layers and old gradients; the model as it was"


class _Evaluated(nn.Module):
    """A model that no train() reaches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.eval()(x)


def _no_graph(got: Any) -> None:
    if isinstance(got, Tensor) and got.requires_grad:
        raise Mistake("It returns a norm with a graph attached: .item() is the number alone.")


def _wrong_lengths(parts: list[Tensor]) -> dict[str, float]:
    norms = [part.norm().item() for part in parts]
    everything = torch.cat([part.flatten() for part in parts])
    return {
        "adds the norms of the tensors: lengths add up only where all point the same way": sum(norms),
        "averages the norms of the tensors: together they are one vector": sum(norms) / len(norms),
        "returns the largest norm of a tensor: together they are one vector": max(norms),
        "returns the square of the norm: the root is missing": everything.square().sum().item(),
        "returns the sum of the absolute values, which is the L1 norm": everything.abs().sum().item(),
        "takes the root of the mean square: the norm is the root of the sum": everything.square().mean().sqrt().item(),
        "leaves the biases out: all parameters count": math.hypot(*(p.norm().item() for p in parts if p.ndim > 1)),
    }


def _unchanged(model: Any, before: nn.Module, modes: list[bool], grads: list[Tensor | None], given: str) -> None:
    """Raise Mistake for anything about the model that an instrument may not change."""
    after = model.state_dict()
    for name, value in before.state_dict().items():
        if not torch.equal(value, after[name]):
            what = "the running statistics of the batch norm" if "running" in name or "batches" in name else "the weights"
            raise Mistake(f"Given {given}, it changes {what}: a look must leave no trace. Work on a copy.")
    for parameter, old in zip(model.parameters(), grads, strict=True):
        same = parameter.grad is None if old is None else parameter.grad is not None and torch.equal(parameter.grad, old)
        if not same:
            raise Mistake(f"Given {given}, it changes what lies in .grad: the next step would add to it. Work on a copy.")
    if [m.training for m in model.modules()] != modes:
        raise Mistake(f"Given {given}, it leaves modules in another mode than they were in. Work on a copy.")


def check_clip_gradients(answer: Answer) -> str:
    shapes = [(4, 3), (5,), (2, 2, 2)]
    random = [torch.randn(shape) for shape in shapes]
    cases: list[tuple[str, list[Tensor | None], float]] = [
        ("gradients [3, 4] and [12]", [torch.tensor([3.0, 4.0]), torch.tensor([12.0])], 1.0),
        ("gradients [0.3] and [0.4]", [torch.tensor([0.3]), torch.tensor([0.4])], 1.0),
        ("three gradients and a parameter without one", [random[0], None, 100 * random[1], 0.01 * random[2]], 2.5),
        ("gradients in float64", [g.double() for g in random], 0.1),
        ("gradients that are all zero", [torch.zeros(2), torch.zeros(3)], 1.0),
    ]
    for words, gradients, max_norm in cases:
        given = f"{words}, max_norm={max_norm}"
        parameters = [torch.zeros_like(g) if g is not None else torch.zeros(2) for g in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        got = answer((p for p in parameters), max_norm)  # as model.parameters() is: gone after one pass
        if any(p.any() for p in parameters):
            raise Mistake(f"Given {given}, it changes the parameters: only their .grad is to be scaled.")
        there = [g for g in gradients if g is not None]
        after = [p.grad for p, g in zip(parameters, gradients, strict=True) if g is not None]
        if any(g is None for g in after):
            raise Mistake(f"Given {given}, a gradient is gone: scale it, do not clear it.")
        total = math.hypot(*(g.norm().item() for g in there))
        want = [g * (max_norm / total) for g in there] if total > max_norm else there
        compare(after, want, given=given, mistakes=_wrong_clips(there, max_norm), what="the gradients afterwards")
        _no_graph(got)
        norms = [g.norm().item() for g in there]
        compare(got, total, given=given, what="what it returns", mistakes={
            "returns the norm after clipping: the one before tells you how often you clip": min(total, max_norm),
            "returns the sum of the norms": sum(norms),
            "returns the factor, not the norm": max_norm / total if total else 0.0,
            "returns the square of the norm": total**2,
            "returns the largest norm of a tensor": max(norms),
        })  # fmt: skip
    return "one factor for all, short gradients left alone, parameters without gradients, float64, zeros, the norm before"


def _wrong_clips(gradients: list[Tensor], max_norm: float) -> dict[str, Any]:
    norms = [g.norm().item() for g in gradients]
    total, tiny = math.hypot(*norms), 1e-12

    def scaled(length: float, always: bool = False) -> list[Tensor]:
        return [g * (max_norm / (length + tiny)) if always or length > max_norm else g for g in gradients]

    return {
        "clips each tensor on its own: the direction of the whole gradient is lost": [
            g * min(1.0, max_norm / (n + tiny)) for g, n in zip(gradients, norms, strict=True)
        ],
        "clips each number on its own: the direction of the whole gradient is lost": [
            g.clamp(-max_norm, max_norm) for g in gradients
        ],
        "scales short gradients up, too: one that is below max_norm stays as it is": scaled(total, always=True),
        "compares with the sum of the norms: lengths add up only where all point the same way": scaled(sum(norms)),
        "compares with the largest norm of a tensor": scaled(max(norms)),
        "forgets the root: it compares the sum of squares with max_norm": scaled(total**2),
        "divides by the norm and forgets max_norm": [g / (total + tiny) if total > max_norm else g for g in gradients],
        "changes no gradient: scale in place (mul_), or assign to parameter.grad. A generator is empty after its first loop": gradients,
    }  # fmt: skip
