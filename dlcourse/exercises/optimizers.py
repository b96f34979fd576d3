"""Exercises on optimizers (chapter 03): one step of AdamW.

Source: Loshchilov and Hutter 2019 (arXiv:1711.05101), in the order of operations of torch.optim.AdamW.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlcourse.exercises.checking import Answer, compare, describe
from dlcourse.exercises.registry import register

State = tuple[Tensor, Tensor, Tensor]


def adamw_step(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int,
    *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float,
) -> State:  # fmt: skip
    """One step of AdamW: the new weights and moments (w, m, v), all of w's shape. `step` counts from 1."""
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    m_hat = m / (1 - betas[0] ** step)  # moments start at 0: without this the first steps would be far too small or large
    v_hat = v / (1 - betas[1] ** step)
    w = w - lr * weight_decay * w  # decoupled: the decay never meets the moments
    return w - lr * m_hat / (v_hat.sqrt() + eps), m, v


def check_adamw_step(answer: Answer) -> str:
    plain = {"lr": 0.1, "betas": (0.9, 0.96), "eps": 1e-8, "weight_decay": 0.0}
    one, zero = torch.tensor([1.0]), torch.tensor([0.0])
    generator = torch.Generator().manual_seed(0)
    w, g, m, v = torch.randn(4, 2, 3, generator=generator).abs() + 0.5
    cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((one, 2 * one, 0.5 * one, 3 * one, 3), plain),  # moments that are not zero tell more mistakes apart
        ((one, 2 * one, zero, zero, 1), plain),  # the first step has size lr, whatever the gradient
        ((one, 2 * one, zero, zero, 1), plain | {"eps": 0.1}),
        ((3 * one, 2 * one, zero, zero, 1), plain | {"weight_decay": 0.5}),
        ((w, -g, m, v, 7), {"lr": 0.02, "betas": (0.8, 0.95), "eps": 0.01, "weight_decay": 0.1}),
    ]
    for args, options in cases:
        given = f"w, g, m, v, step = {describe(*args)} and {describe(**options)}"
        mistakes = {sentence: _adamw_wrong(args, options, **how) for sentence, how in _ADAMW_MISTAKES.items()}
        compare(answer(*args, **options), adamw_step(*args, **options), given=given, mistakes=mistakes, what="(w, m, v)")

    state: Any = (w.double(), torch.zeros(2, 3).double(), torch.zeros(2, 3).double())
    parameter = nn.Parameter(state[0].clone())
    optimizer = torch.optim.AdamW([parameter], lr=0.05, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.2)
    for step in range(1, 21):
        g = torch.randn(2, 3, generator=generator).double()
        parameter.grad = g
        optimizer.step()
        state = answer(state[0], g, *state[1:], step, lr=0.05, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.2)
        compare(state[0], parameter.detach(), given=f"{step} steps on a (2, 3) tensor", rtol=1e-6, atol=1e-6, what="w")
    return "five single steps (eps and decay visible in them) and 20 steps beside torch.optim.AdamW"


_ADAMW_MISTAKES: dict[str, dict[str, Any]] = {
    "leaves out the bias correction: divide m by 1 − β₁^step and v by 1 − β₂^step": {"correct": "none"},
    "corrects the bias of m but not of v": {"correct": "m"},
    "corrects with 1 − β·step where β^step is meant": {"correct": "product"},
    "corrects every step as if it were the first": {"correct": "first"},
    "counts the steps from 0, though the first one it is given is 1": {"correct": "late"},
    "corrects with the step before: β^(step − 1)": {"correct": "early"},
    "adds eps before it corrects the bias of v: it belongs to √v̂": {"eps_early": True},
    "leaves out the factors 1 − β: m and v are averages, not sums": {"keep": "sums"},
    "returns the corrected moments: the next step would correct them again": {"keep": "corrected"},
    "swaps the two betas": {"swap": True},
    "adds the step: the weights climb up the gradient": {"sign": 1.0},
    "averages the gradient in v, not its square": {"square": False},
    "divides by v̂ without the square root": {"root": False},
    "puts eps inside the square root: it stands outside, √v̂ + eps": {"eps_inside": True},
    "leaves out eps": {"no_eps": True},
    "leaves out the weight decay": {"decay": "none"},
    "couples the weight decay: added to the gradient, it is Adam with L2, not AdamW": {"decay": "coupled"},
    "does not multiply the weight decay by the learning rate": {"decay": "without lr"},
    "decays in the wrong direction: the weights grow": {"decay": "grows"},
    "decays the weights after the step: they shrink before it": {"decay": "after"},
}


def _adamw_wrong(
    args: tuple[Any, ...], options: dict[str, Any], *, correct: str = "both", keep: str = "raw", swap: bool = False,
    sign: float = -1.0, square: bool = True, root: bool = True, eps_inside: bool = False, no_eps: bool = False,
    eps_early: bool = False, decay: str = "decoupled",
) -> State:  # fmt: skip
    """AdamW with one thing wrong; with all defaults it is right."""
    (w, g, m, v, step), lr, eps = args, options["lr"], options["eps"]
    beta1, beta2 = options["betas"][::-1] if swap else options["betas"]
    if decay == "coupled":
        g = g + options["weight_decay"] * w
    factor = {"decoupled": -lr, "without lr": -1.0, "grows": lr}.get(decay, 0.0)
    share1, share2 = (1.0, 1.0) if keep == "sums" else (1 - beta1, 1 - beta2)
    m, v = beta1 * m + share1 * g, beta2 * v + share2 * (g**2 if square else g)
    step = {"first": 1, "late": step + 1, "early": step - 1}.get(correct, step)
    c1, c2 = (1 - beta1 * step, 1 - beta2 * step) if correct == "product" else (1 - beta1**step, 1 - beta2**step)
    m_hat, v_hat = m if correct == "none" else m / c1, v if correct in ("none", "m") else v / c2
    eps = 0.0 if no_eps else eps
    below = (v_hat + eps).sqrt() if eps_inside else (v_hat.sqrt() if root else v_hat) + (eps / c2**0.5 if eps_early else eps)
    new = w + factor * options["weight_decay"] * w + sign * lr * m_hat / below
    if decay == "after":
        new = (1 - lr * options["weight_decay"]) * new
    return (new, m_hat, v_hat) if keep == "corrected" else (new, m, v)


register(
    "optimizers.adamw_step",
    adamw_step,
    check_adamw_step,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "Two running averages (of the gradient and of its square), both started at 0: what is m after the first step, and by "
        "what must it be divided to give the gradient itself?",
        "m̂ = m / (1 − β₁^step), v̂ = v / (1 − β₂^step); the update is lr · m̂ / (√v̂ + eps). Return m and v uncorrected.",
        "Decoupled decay acts on the weights alone: w = w − lr · weight_decay · w, then w = w − lr · m̂ / (√v̂ + eps).",
    ),
)
