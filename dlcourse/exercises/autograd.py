"""Exercises on derivatives (chapter 01): by hand, by finite differences, and gradient descent on autograd's gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Function = Callable[[Tensor], Tensor]
Mistakes = dict[str, Callable[[], Tensor]]


def squared_error_gradient(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of mean((x @ w − y)²) for w (D,), by hand; x (N, D), y (N,) -> (D,)."""
    error = x @ w - y  # (N, D) @ (D,) -> (N,)
    return 2 / len(y) * (error @ x)  # (N,) @ (N, D) -> (D,)


def check_squared_error_gradient(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    features = torch.tensor([[1.0, 0.0, 2.0], [3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    cases = [(torch.tensor([1.0, 2.0, -1.0]), features, torch.tensor([0.0, 2.0, 1.0, 0.0]))]  # N = 4, D = 3
    for n, d in ((3, 3), (7, 2), (1, 4), (5, 1)):
        cases.append(tuple(torch.randn(*size, generator=generator) for size in ((d,), (n, d), (n,))))  # type: ignore[arg-type]
    cases.append(tuple(value.double() for value in cases[2]))  # type: ignore[arg-type]
    for w, x, y in cases:
        leaf = w.clone().requires_grad_()
        (want,) = torch.autograd.grad((x @ leaf - y).square().mean(), leaf)
        with torch.no_grad():  # by hand: an answer that calls backward finds no graph here
            try:
                got = answer(w, x, y)
            except Mistake as mistake:
                if "does not require grad" in str(mistake):
                    raise Mistake("It calls backward or autograd: here the formula of the gradient is asked for.") from None
                raise
        if isinstance(got, Tensor) and got.requires_grad:
            raise Mistake("It returns a tensor that requires grad: here the formula of the gradient is asked for.")
        compare(got, want, given=f"w, x, y = {describe(w, x, y)}", mistakes=_squared_error_mistakes(w, x, y))
    return "equal to autograd's on six inputs, N ≠ D, one sample, one feature, float64"


def _squared_error_mistakes(w: Tensor, x: Tensor, y: Tensor) -> Mistakes:
    right, error, n, d = squared_error_gradient(w, x, y), x @ w - y, len(y), len(w)
    return {
        "forgets the 2 of the derivative of a square": lambda: right / 2,
        "has the sign wrong: the error is x @ w − y, and its derivative for w is +x": lambda: -right,
        "forgets the sign of the target: the error is x @ w − y": lambda: 2 / n * ((x @ w + y) @ x),
        "sums over the samples where the loss takes the mean": lambda: right * n,
        "forgets the 2 and the 1/N": lambda: right * n / 2,
        "divides by D, the number of weights, instead of N, the number of samples": lambda: right * n / d,
        "divides by N twice": lambda: right / n,
        "forgets the inner derivative, the factor x of the chain rule": lambda: 2 * error.mean(),
        "leaves out the sum over the samples: one row a sample is left": lambda: 2 / n * error[:, None] * x,
        "averages the error and the inputs apart: the mean of a product is not the product of means": lambda: (
            2 * error.mean() * x.mean(0)
        ),
        "leaves the target out of the error": lambda: 2 / n * ((x @ w) @ x),
        "squares the error in the gradient too": lambda: 2 / n * (error.square() @ x),
        "returns the loss, not its gradient": lambda: error.square().mean(),
    }


register(
    "autograd.squared_error_gradient",
    squared_error_gradient,
    check_squared_error_gradient,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "Start with one sample and one weight: the derivative of (x·w − y)² for w, by the chain rule.",
        "It is 2·(x·w − y)·x. With many samples take the mean of that over the samples; with many weights each weight "
        "meets its own column of x.",
        "error = x @ w - y has shape (N,). The sum over the samples of error times the columns of x is error @ x; "
        "multiply by 2 / N.",
    ),
)


def numerical_gradient(f: Function, x: Tensor, h: float = 1e-5) -> Tensor:
    """The gradient of f at x by central differences, (f(x + h) − f(x − h)) / 2h for one element of x at a time.

    f takes a tensor of the shape of x and returns one number as a tensor. The result has the shape and dtype of x.
    """
    gradient = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        step = torch.zeros_like(x)
        step[index] = h
        gradient[index] = (f(x + step) - f(x - step)) / (2 * h)
    return gradient


def check_numerical_gradient(answer: Answer) -> str:
    def cube(x: Tensor) -> Tensor:  # at 2 with h = 3: (5³ − (−1)³) / 6 = 21; the derivative itself is 12
        return (x**3).sum()

    weights = torch.arange(1.0, 25.0, dtype=torch.float64)

    def mixed(x: Tensor) -> Tensor:  # every element has another slope
        flat = x.reshape(-1)
        return (weights[: len(flat)] * flat.sin()).sum() + flat.prod()

    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(2, 3, dtype=torch.float64, generator=generator)
    cases: list[tuple[Function, Tensor, float]] = [(cube, torch.tensor([2.0], dtype=torch.float64), 3.0)]
    cases.append((cube, torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64), 0.5))
    cases += [(mixed, x, 1e-3) for x in (matrix, matrix.t(), torch.rand(2, 3, 4, dtype=torch.float64, generator=generator))]
    cases += [(mixed, matrix, 1e-6), (cube, torch.tensor([1.5, 0.5]), 0.25), (cube, torch.tensor(2.0, dtype=torch.float64), 0.5)]
    for f, x, h in cases:
        given = f"a function, x = {describe(x)}, h={h:g}"
        asked: list[Tensor] = []

        def recording(z: Tensor, f: Function = f, asked: list[Tensor] = asked) -> Tensor:
            asked.append(z)
            return f(z)

        got = answer(recording, x, h)
        if any(z.dtype != x.dtype for z in asked):
            raise Mistake(f"It calls f with {asked[-1].dtype} where x is {x.dtype}. In float32 a small h leaves few digits.")
        if any(z.shape != x.shape for z in asked):
            raise Mistake(f"It calls f with shape {tuple(asked[-1].shape)} where x has {tuple(x.shape)}: one element of x moves.")
        if isinstance(got, Tensor) and got.requires_grad:
            raise Mistake(f"It returns a tensor that requires grad. Given {given}, f is only to be called, not differentiated.")
        compare(got, numerical_gradient(f, x, h), given=given, mistakes=_difference_mistakes(f, x, h), rtol=1e-6, atol=1e-6)
    return "central differences with large and small steps; x with 0 to 3 axes, one of them transposed; x left as it was"


def _difference_mistakes(f: Function, x: Tensor, h: float) -> Mistakes:
    right = numerical_gradient(f, x, h)

    def exact() -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(f(leaf), leaf)[0]

    def one_sided(sign: int) -> Tensor:
        return 2 * numerical_gradient(lambda z: f(z) if bool((sign * (z - x) >= 0).all()) else f(x), x, h)

    return {
        "does not divide by 2: f(x + h) and f(x − h) are 2h apart": lambda: 2 * right,
        "is the forward difference (f(x + h) − f(x)) / h, whose error is larger": lambda: one_sided(1),
        "is the backward difference (f(x) − f(x − h)) / h, whose error is larger": lambda: one_sided(-1),
        "does not divide by h": lambda: right * h,
        "does not divide at all: f(x + h) − f(x − h) is a difference, not a slope": lambda: right * 2 * h,
        "multiplies by h: write brackets around 2 * h": lambda: right * h * h,
        "has the sign wrong: f(x + h) comes first": lambda: -right,
        "moves all elements at once: that is one slope along the diagonal, not a gradient": lambda: torch.full_like(
            right, float(f(x + h) - f(x - h)) / (2 * h)
        ),
        "moves all elements at once, and gives one number": lambda: (f(x + h) - f(x - h)) / (2 * h),
        "flattens the gradient: it must have the shape of x": lambda: right.reshape(-1),
        "gives zero everywhere: its steps go into a copy of x, as .flatten() and .reshape() make one": lambda: torch.zeros_like(x),
        "ignores h and takes a small step of its own, or takes the derivative from autograd": exact,
    }


register(
    "autograd.numerical_gradient",
    numerical_gradient,
    check_numerical_gradient,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "For one number: (f(x + h) − f(x − h)) / (2h). For a tensor, one element moves at a time, the others stay.",
        "Make a tensor of zeros like x, put h at one place, and add it to x and subtract it from x: x itself never changes.",
        "for index in np.ndindex(*x.shape): step = torch.zeros_like(x); step[index] = h; "
        "gradient[index] = (f(x + step) - f(x - step)) / (2 * h).",
    ),
)


def gradient_descent(f: Function, start: Tensor, lr: float, steps: int) -> Tensor:
    """The point that `steps` steps of gradient descent on f reach from `start`: x ← x − lr · gradient each time.

    `start` stays as it is, and the result requires no gradient.
    """
    x = start.detach().clone().requires_grad_()
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(f(x), x)  # returned, not added to x.grad: nothing to set back to zero
        with torch.no_grad():
            x -= lr * gradient
    return x.detach()


def check_gradient_descent(answer: Answer) -> str:
    def bowl(x: Tensor) -> Tensor:
        return (torch.arange(1.0, 1 + len(x), dtype=x.dtype) * x**2).sum()

    def wavy(x: Tensor) -> Tensor:
        return (x**4 / 4 + x.sin()).sum()

    two, three = torch.tensor([2.0, 1.0]), torch.tensor([2.0, -1.0, 0.5])
    cases: list[tuple[Function, Tensor, float, int]] = [
        (bowl, two, 0.1, 2), (bowl, two, 0.1, 1), (bowl, three, 0.1, 3), (wavy, three, 0.05, 5), (wavy, three, 0.05, 0),
        (bowl, three.double(), 0.1, 40), (wavy, torch.linspace(-1, 1, 6).reshape(2, 3), 0.05, 7),
    ]  # fmt: skip
    for f, start, lr, steps in cases:
        given = f"{'Σ i·xᵢ²' if f is bowl else 'Σ x⁴/4 + sin x'}, start = {describe(start)}, lr={lr:g}, steps={steps}"
        start = start.clone()
        try:
            got = answer(f, start, lr, steps)
        except Mistake as mistake:
            raise Mistake(_about_leaves(str(mistake))) from None
        if start.requires_grad or start.grad is not None:
            raise Mistake("It turns the caller's `start` into a tensor that requires grad: clone it first.")
        want = gradient_descent(f, start, lr, steps)
        compare(got, want, given=given, mistakes=_descent_mistakes(f, start, lr, steps))
        if got.requires_grad:
            raise Mistake(f"It returns the right point, but one that still requires grad. Given {given}: detach the result.")
    return "one step, several, none; two functions, several shapes, float64; `start` left as it was"


def _about_leaves(message: str) -> str:
    if "NoneType" in message:
        return (
            "Its x is no leaf after the first step: `x = x - lr * x.grad` makes a new tensor with a history, whose .grad "
            f"stays None. Change x in place under torch.no_grad(). ({message})"
        )
    if "leaf" in message and "in-place" in message:
        return f"It changes a leaf while autograd records: put the update under torch.no_grad(). ({message})"
    return message


def _descent_mistakes(f: Function, start: Tensor, lr: float, steps: int) -> Mistakes:
    def gradient(x: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(f(leaf), leaf)[0]

    def run(n: int, *, lr: float = lr, accumulate: bool = False, change: Function = lambda g: g, frozen: bool = False) -> Tensor:
        x, total, first = start.clone(), torch.zeros_like(start), gradient(start)
        for _ in range(n):
            total = (first if frozen else gradient(x)) + total * accumulate
            x = x - lr * change(total)
        return x

    return {
        "climbs: the gradient points uphill, so it is subtracted": lambda: run(steps, lr=-lr),
        "returns the start": lambda: start,
        "never sets the gradients back to zero: each backward adds to the last": lambda: run(steps, accumulate=True),
        "returns the last point but one": lambda: run(steps - 1),
        "takes one step too many": lambda: run(steps + 1),
        "takes every step with the gradient at the start: compute it anew at each point": lambda: run(steps, frozen=True),
        "ignores lr": lambda: run(steps, lr=1.0),
        "uses only the sign of the gradient": lambda: run(steps, change=torch.sign),
        "divides the gradient by its length": lambda: run(steps, change=lambda g: g / g.norm()),
        "returns the gradient, not the point": lambda: gradient(run(steps - 1)),
        "returns the value of f, not the point": lambda: f(run(steps)),
    }


register(
    "autograd.gradient_descent",
    gradient_descent,
    check_gradient_descent,
    difficulty=3,
    importance=5,
    minutes=15,
    hints=(
        "A step has four parts: clear the old gradient, compute f(x), call backward, move x against the gradient.",
        "x must be a leaf of its own: start.clone().requires_grad_(). Move it in place under torch.no_grad(), "
        "or autograd records the step.",
        "In the loop: x.grad = None; f(x).backward(); with torch.no_grad(): x -= lr * x.grad. After it: return x.detach().",
    ),
)
