"""Right answers to the exercises on optimizers, in other styles than the references'."""

import math

import numpy as np
import torch
from planting import right_answer
from torch import nn


@right_answer("optimizers.adamw_step")
def step_of_torch(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    parameter = nn.Parameter(w.clone())
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    state = {"step": torch.tensor(step - 1.0), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    optimizer.state[parameter] = state
    parameter.grad = g.clone()
    optimizer.step()
    return parameter.data, state["exp_avg"], state["exp_avg_sq"]


@right_answer("optimizers.adamw_step")
def step_in_place_on_copies(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    w, m, v = w.clone(), m.clone(), v.clone()
    m.mul_(betas[0]).add_(g, alpha=1 - betas[0])
    v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
    w.mul_(1 - lr * weight_decay)
    scale = math.sqrt(1 - betas[1] ** step)
    w.addcdiv_(m, (v.sqrt() / scale).add_(eps), value=-lr / (1 - betas[0] ** step))
    return [w, m, v]


@right_answer("optimizers.adamw_step")
def step_through_numpy(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    w, g, m, v = (t.numpy() for t in (w, g, m, v))
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * np.square(g)
    corrected = (m / (1 - betas[0] ** step)) / (np.sqrt(v / (1 - betas[1] ** step)) + eps)
    return tuple(torch.from_numpy(a) for a in (w - lr * weight_decay * w - lr * corrected, m, v))


@right_answer("optimizers.adamw_step")
def step_in_double_precision(w, g, m, v, step, lr, betas, eps, weight_decay):
    old, (w, g, m, v) = w.dtype, (t.double() for t in (w, g, m, v))
    m, v = torch.lerp(m, g, 1 - betas[0]), torch.lerp(v, g.pow(2), 1 - betas[1])
    w = w * (1 - lr * weight_decay) - lr * (m / (1 - betas[0] ** step)) / (torch.sqrt(v / (1 - betas[1] ** step)) + eps)
    return w.to(old), m.to(old), v.to(old)


@right_answer("optimizers.adamw_step")
def step_number_by_number(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    new = [torch.empty_like(w) for _ in range(3)]
    for i in np.ndindex(*w.shape):
        new[1][i] = betas[0] * m[i] + (1 - betas[0]) * g[i]
        new[2][i] = betas[1] * v[i] + (1 - betas[1]) * g[i] ** 2
        m_hat, v_hat = new[1][i] / (1 - betas[0] ** step), new[2][i] / (1 - betas[1] ** step)
        new[0][i] = w[i] - lr * (weight_decay * w[i] + m_hat / (v_hat**0.5 + eps))
    return tuple(new)
