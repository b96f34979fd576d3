"""Right answers to the exercises on autograd, in other styles than the references'."""

import torch
from planting import right_answer
from torch import nn


@right_answer("autograd.squared_error_gradient")
def gradient_by_a_transpose(w, x, y):
    return 2 * x.T @ (x @ w - y) / x.shape[0]


@right_answer("autograd.squared_error_gradient")
def gradient_by_a_loop(w, x, y):
    total = torch.zeros_like(w)
    for row, target in zip(x, y, strict=True):
        total += 2 * (row.dot(w) - target) * row
    return total / len(x)


@right_answer("autograd.squared_error_gradient")
def gradient_by_einsum(w, x, y):
    return 2 * torch.einsum("n,nd->d", torch.einsum("nd,d->n", x, w) - y, x) / y.numel()


@right_answer("autograd.numerical_gradient")
def differences_on_flat_copies(f, x, h=1e-5):
    slopes = []
    for i in range(x.numel()):
        up, down = x.flatten().clone(), x.flatten().clone()
        up[i] += h
        down[i] -= h
        slopes.append((f(up.view(x.shape)).item() - f(down.view(x.shape)).item()) / (2 * h))
    return torch.tensor(slopes, dtype=x.dtype).reshape(x.shape)


@right_answer("autograd.numerical_gradient")
def differences_by_unit_vectors(f, x, h=1e-5):
    steps = h * torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    return torch.stack([f(x + step) - f(x - step) for step in steps]).reshape(x.shape) / (2 * h)


@right_answer("autograd.gradient_descent")
def descent_by_an_optimizer(f, start, lr, steps):
    x = nn.Parameter(start.clone())
    optimizer = torch.optim.SGD([x], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        f(x).backward()
        optimizer.step()
    return x.data


@right_answer("autograd.gradient_descent")
def descent_by_new_leaves(f, start, lr, steps):
    x = start
    for _ in range(steps):
        x = x.detach().clone().requires_grad_(True)
        f(x).backward()
        x = (x - lr * x.grad).detach()
    return x


@right_answer("autograd.gradient_descent")
def descent_by_functional_gradients(f, start, lr, steps):
    for _ in range(steps):
        start = start - lr * torch.func.grad(f)(start)
    return start
