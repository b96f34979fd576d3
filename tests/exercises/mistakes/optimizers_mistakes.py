"""Wrong answers to the exercise on optimizers."""

from planting import mistake


def adamw(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    """The right step, for the mistakes that wrap it."""
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return w - lr * weight_decay * w - lr * m_hat / (v_hat.sqrt() + eps), m, v


@mistake("optimizers.adamw_step", says="leaves out the bias correction")
def no_bias_correction(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    return (1 - lr * weight_decay) * w - lr * m / (v.sqrt() + eps), m, v


@mistake("optimizers.adamw_step", says="of m but not of v")
def half_corrected(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    return (1 - lr * weight_decay) * w - lr * m / (1 - betas[0] ** step) / (v.sqrt() + eps), m, v


@mistake("optimizers.adamw_step", says="eps inside the square root")
def eps_inside(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return (1 - lr * weight_decay) * w - lr * m_hat / (v_hat + eps).sqrt(), m, v


@mistake("optimizers.adamw_step", says="couples the weight decay")
def coupled_decay(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    return adamw(w, g + weight_decay * w, m, v, step, lr=lr, betas=betas, eps=eps, weight_decay=0.0)


@mistake("optimizers.adamw_step", says="does not multiply the weight decay by the learning rate")
def decay_without_rate(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    new, m, v = adamw(w, g, m, v, step, lr=lr, betas=betas, eps=eps, weight_decay=0.0)
    return new - weight_decay * w, m, v


@mistake("optimizers.adamw_step", says="leaves out the weight decay")
def no_decay(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    return adamw(w, g, m, v, step, lr=lr, betas=betas, eps=eps, weight_decay=0.0)


@mistake("optimizers.adamw_step", says="swaps the two betas")
def swapped_betas(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    return adamw(w, g, m, v, step, lr=lr, betas=betas[::-1], eps=eps, weight_decay=weight_decay)


@mistake("optimizers.adamw_step", says="returns the corrected moments")
def corrected_moments(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    new, m, v = adamw(w, g, m, v, step, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    return new, m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)


@mistake("optimizers.adamw_step", says="without the square root")
def no_root(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    _, m, v = adamw(w, g, m, v, step, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return w - lr * m_hat / (v_hat + eps), m, v


@mistake("optimizers.adamw_step", says="climb up the gradient")
def ascends(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    new, m, v = adamw(w, g, m, v, step, lr=-lr, betas=betas, eps=eps, weight_decay=-weight_decay)
    return new, m, v


@mistake("optimizers.adamw_step", says="not its square")
def unsquared(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return w - lr * weight_decay * w - lr * m_hat / (v_hat.sqrt() + eps), m, v


@mistake("optimizers.adamw_step", says="changes its input")
def in_place(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    new, new_m, new_v = adamw(w, g, m, v, step, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    return w.copy_(new), m.copy_(new_m), v.copy_(new_v)


@mistake("optimizers.adamw_step", says="as if it were the first")
def step_is_ignored(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    return adamw(w, g, m, v, 1, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


@mistake("optimizers.adamw_step", says="averages, not sums")
def sums(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    m, v = betas[0] * m + g, betas[1] * v + g**2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return w - lr * weight_decay * w - lr * m_hat / (v_hat.sqrt() + eps), m, v


@mistake("optimizers.adamw_step", says="decays the weights after the step")
def decays_late(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    new, m, v = adamw(w, g, m, v, step, lr=lr, betas=betas, eps=eps, weight_decay=0.0)
    return new - lr * weight_decay * new, m, v


@mistake("optimizers.adamw_step", says="counts the steps from 0")
def counts_on(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    return adamw(w, g, m, v, step + 1, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


@mistake("optimizers.adamw_step", says="corrects with the step before")
def counts_back(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    return adamw(w, g, m, v, step - 1, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


@mistake("optimizers.adamw_step", says="adds eps before it corrects")
def eps_too_early(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    scale = (1 - betas[1] ** step) ** 0.5
    return adamw(w, g, m, v, step, lr=lr, betas=betas, eps=eps / scale, weight_decay=weight_decay)
