"""Wrong answers to the exercises on derivatives."""

import numpy as np
import torch
from planting import mistake


@mistake("autograd.squared_error_gradient", says="forgets the 2 of")
def no_two(w, x, y):
    return (x @ w - y) @ x / len(y)


@mistake("autograd.squared_error_gradient", says=r"sign wrong: the error is x @ w − y, and")
def minus(w, x, y):
    return -2 * ((x @ w - y) @ x) / len(y)


@mistake("autograd.squared_error_gradient", says="sign of the target")
def plus_target(w, x, y):
    return 2 * ((x @ w + y) @ x) / len(y)


@mistake("autograd.squared_error_gradient", says="sums over the samples where the loss takes the mean")
def summed(w, x, y):
    return 2 * (x @ w - y) @ x


@mistake("autograd.squared_error_gradient", says="forgets the 2 and the 1/N")
def bare(w, x, y):
    return x.T @ (x @ w - y)


@mistake("autograd.squared_error_gradient", says="divides by D")
def by_weights(w, x, y):
    return 2 * (x @ w - y) @ x / len(w)


@mistake("autograd.squared_error_gradient", says="inner derivative")
def no_chain_rule(w, x, y):
    return 2 * (x @ w - y).mean()


@mistake("autograd.squared_error_gradient", says="one row a sample")
def row_a_sample(w, x, y):
    return 2 * (x @ w - y)[:, None] * x / len(y)


@mistake("autograd.squared_error_gradient", says="product of means")
def product_of_means(w, x, y):
    return 2 * (x @ w - y).mean() * x.mean(0)


@mistake("autograd.squared_error_gradient", says="leaves the target out")
def no_target(w, x, y):
    return 2 * (x @ w) @ x / len(y)


@mistake("autograd.squared_error_gradient", says="the loss, not its gradient")
def the_loss(w, x, y):
    return (x @ w - y).square().mean()


@mistake("autograd.squared_error_gradient", says="calls backward or autograd")
def by_autograd(w, x, y):
    w = w.clone().requires_grad_()
    (x @ w - y).square().mean().backward()
    return w.grad


@mistake("autograd.squared_error_gradient", says=r"RuntimeError .*size mismatch|RuntimeError .*shapes")
def transposed(w, x, y):
    return 2 / len(y) * (x @ (x @ w - y))


def each_element(x):
    for index in np.ndindex(*x.shape):
        step = torch.zeros_like(x)
        step[index] = 1
        yield index, step


@mistake("autograd.numerical_gradient", says="does not divide by 2")
def not_halved(f, x, h=1e-5):
    gradient = torch.zeros_like(x)
    for index, step in each_element(x):
        gradient[index] = (f(x + h * step) - f(x - h * step)) / h
    return gradient


@mistake("autograd.numerical_gradient", says="forward difference")
def forward_difference(f, x, h=1e-5):
    gradient = torch.zeros_like(x)
    for index, step in each_element(x):
        gradient[index] = (f(x + h * step) - f(x)) / h
    return gradient


@mistake("autograd.numerical_gradient", says="backward difference")
def backward_difference(f, x, h=1e-5):
    gradient = torch.zeros_like(x)
    for index, step in each_element(x):
        gradient[index] = (f(x) - f(x - h * step)) / h
    return gradient


@mistake("autograd.numerical_gradient", says="does not divide at all")
def a_difference(f, x, h=1e-5):
    gradient = torch.zeros_like(x)
    for index, step in each_element(x):
        gradient[index] = f(x + h * step) - f(x - h * step)
    return gradient


@mistake("autograd.numerical_gradient", says=r"write brackets around 2 \* h")
def missing_brackets(f, x, h=1e-5):
    gradient = torch.zeros_like(x)
    for index, step in each_element(x):
        gradient[index] = (f(x + h * step) - f(x - h * step)) / 2 * h
    return gradient


@mistake("autograd.numerical_gradient", says="has the sign wrong")
def reversed_difference(f, x, h=1e-5):
    gradient = torch.zeros_like(x)
    for index, step in each_element(x):
        gradient[index] = (f(x - h * step) - f(x + h * step)) / (2 * h)
    return gradient


@mistake("autograd.numerical_gradient", says="all elements at once: ")
def diagonal(f, x, h=1e-5):
    return torch.ones_like(x) * (f(x + h) - f(x - h)) / (2 * h)


@mistake("autograd.numerical_gradient", says="gives one number")
def one_number(f, x, h=1e-5):
    return ((f(x + h) - f(x - h)) / (2 * h)).reshape(x.shape if x.numel() == 1 else ())


@mistake("autograd.numerical_gradient", says="flattens the gradient")
def flattened(f, x, h=1e-5):
    slopes = [(f(x + h * step) - f(x - h * step)) / (2 * h) for _, step in each_element(x)]
    return torch.stack(slopes)


@mistake("autograd.numerical_gradient", says="ignores h")
def step_of_its_own(f, x, h=1e-5):
    h, gradient = 1e-4, torch.zeros_like(x)
    for index, step in each_element(x):
        gradient[index] = (f(x + h * step) - f(x - h * step)) / (2 * h)
    return gradient


@mistake("autograd.numerical_gradient", says="calls f with torch.float32")
def in_float32(f, x, h=1e-5):
    gradient, x = torch.zeros_like(x), x.float()
    for index, step in each_element(x):
        gradient[index] = (f(x + h * step) - f(x - h * step)) / (2 * h)
    return gradient


@mistake("autograd.numerical_gradient", says="It changes its input .*not in place")
def moves_x_itself(f, x, h=1e-5):
    gradient = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        x[index] += h
        above = f(x)
        x[index] -= 2 * h
        gradient[index] = (above - f(x)) / (2 * h)
    return gradient


@mistake("autograd.numerical_gradient", says="steps go into a copy of x")
def steps_in_a_copy(f, x, h=1e-5):
    x, gradient = x.clone(memory_format=torch.preserve_format), torch.zeros(x.numel(), dtype=x.dtype)
    flat = x.reshape(-1)  # a view of x, or a copy where x is transposed
    for index in range(x.numel()):
        kept = flat[index].item()
        flat[index] = kept + h
        above = f(x)
        flat[index] = kept - h
        gradient[index] = (above - f(x)) / (2 * h)
        flat[index] = kept
    return gradient.reshape(x.shape)


@mistake("autograd.numerical_gradient", says="calls f with shape")
def one_element_alone(f, x, h=1e-5):
    slopes = [(f(v + h) - f(v - h)) / (2 * h) for v in x.reshape(-1, 1)]
    return torch.stack(slopes).reshape(x.shape)


@mistake("autograd.gradient_descent", says="never sets the gradients back to zero")
def accumulates(f, start, lr, steps):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        f(x).backward()
        with torch.no_grad():
            x -= lr * x.grad
    return x.detach()


@mistake("autograd.gradient_descent", says="climbs")
def climbs(f, start, lr, steps):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        x.grad = None
        f(x).backward()
        with torch.no_grad():
            x += lr * x.grad
    return x.detach()


@mistake("autograd.gradient_descent", says="last point but one")
def last_but_one(f, start, lr, steps):
    x = last = start.clone()
    for _ in range(steps):
        last = x.detach()
        leaf = last.clone().requires_grad_()
        x = last - lr * torch.autograd.grad(f(leaf), leaf)[0]
    return last


@mistake("autograd.gradient_descent", says="one step too many")
def one_too_many(f, start, lr, steps):
    x = start.clone().requires_grad_()
    for _ in range(steps + 1):
        gradient = torch.autograd.grad(f(x), x)[0]
        x = (x - lr * gradient).detach().requires_grad_()
    return x.detach()


@mistake("autograd.gradient_descent", says="with the gradient at the start")
def gradient_of_the_start(f, start, lr, steps):
    x = start.clone().requires_grad_()
    f(x).backward()
    return (x - lr * steps * x.grad).detach()


@mistake("autograd.gradient_descent", says=r"no leaf after the first step.*under torch\.no_grad")
def not_a_leaf(f, start, lr, steps):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        f(x).backward()
        x = x - lr * x.grad
    return x.detach()


@mistake("autograd.gradient_descent", says="changes a leaf while autograd records")
def update_recorded(f, start, lr, steps):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        x.grad = None
        f(x).backward()
        x -= lr * x.grad
    return x.detach()


@mistake("autograd.gradient_descent", says="It changes its input .*not in place")
def moves_the_start(f, start, lr, steps):
    x = start.detach().requires_grad_()
    for _ in range(steps):
        x.grad = None
        f(x).backward()
        x.data -= lr * x.grad
    return x.detach()


@mistake("autograd.gradient_descent", says="caller's `start`")
def start_requires_grad(f, start, lr, steps):
    x = start.requires_grad_()
    for _ in range(steps):
        x = x.detach() - lr * torch.autograd.grad(f(x), x)[0]
        x.requires_grad_()
    return x.detach()


@mistake("autograd.gradient_descent", says="still requires grad")
def still_requires_grad(f, start, lr, steps):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        gradient = torch.autograd.grad(f(x), x)[0]
        with torch.no_grad():
            x -= lr * gradient
    return x


@mistake("autograd.gradient_descent", says="ignores lr")
def no_rate(f, start, lr, steps):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        x = (x - torch.autograd.grad(f(x), x)[0]).detach().requires_grad_()
    return x.detach()


@mistake("autograd.gradient_descent", says="divides the gradient by its length")
def unit_steps(f, start, lr, steps):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        gradient = torch.autograd.grad(f(x), x)[0]
        x = (x - lr * gradient / gradient.norm()).detach().requires_grad_()
    return x.detach()


@mistake("autograd.gradient_descent", says="value of f, not the point")
def returns_the_value(f, start, lr, steps):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        x = (x - lr * torch.autograd.grad(f(x), x)[0]).detach().requires_grad_()
    return f(x).detach()
