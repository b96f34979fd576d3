"""Right answers in other styles than the reference's: loops, einsum, NumPy, torch's own functions. Each must be judged right."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import nn

from dlcourse.exercises import examine
from dlcourse.exercises.registry import all_exercises

right_answers = []


def answers(exercise):
    def add(answer):
        right_answers.append((exercise, answer))
        return answer

    return add


# ---------------------------------------------------------------- start


@answers("start.double")
def double_by_a_loop(x):
    out = torch.empty_like(x)
    for i, row in enumerate(x):
        out[i] = row + row
    return out


@answers("start.double")
def double_through_numpy(x):
    return torch.from_numpy(x.numpy() * 2)


@answers("start.double")
def double_in_place_on_a_copy(x):
    x = x.clone()
    x *= 2
    return x


@answers("start.double")
def double_by_stacking(x):
    return torch.stack((x, x)).sum(0)


@answers("start.largest_batch")
def batch_by_counting(memory, fixed, per_image):
    images = 0
    while fixed + (images + 1) * per_image <= memory:
        images += 1
    return images


@answers("start.largest_batch")
def batch_by_floor(memory, fixed, per_image):
    return 0 if memory < fixed else math.floor((memory - fixed) / per_image)


@answers("start.largest_batch")
def batch_by_numpy(memory, fixed, per_image):
    return np.maximum((memory - fixed) // np.int64(per_image), 0)


@answers("start.largest_batch")
def batch_by_conversion(memory, fixed, per_image):
    return max(int((memory - fixed) / per_image), 0)


# ---------------------------------------------------------------- tensors


@answers("tensors.standardize")
def standardize_by_batch_norm(images):
    return F.batch_norm(images, None, None, training=True, eps=1e-12)


@answers("tensors.standardize")
def standardize_by_rows(images):
    rows = images.transpose(0, 1).flatten(1)  # (N, C, H, W) -> (C, N·H·W)
    mean, variance = rows.mean(1), rows.var(1, unbiased=False)
    return (images - mean[:, None, None]) * variance.rsqrt()[:, None, None]


@answers("tensors.standardize")
def standardize_channel_by_channel(images):
    channels = [(c - c.mean()) / c.std(correction=0) for c in images.unbind(1)]
    return torch.stack(channels, dim=1)


@answers("tensors.chw_from_hwc")
def chw_by_einsum(photos):
    return torch.einsum("nhwc->nchw", photos.float()).div(255)


@answers("tensors.chw_from_hwc")
def chw_through_numpy(photos):
    return torch.from_numpy(photos.numpy().transpose(0, 3, 1, 2).astype(np.float32) / 255)


@answers("tensors.chw_from_hwc")
def chw_by_moving_the_axis(photos):
    return (torch.movedim(photos, -1, 1).double() / 255.0).float().contiguous()


@answers("tensors.pairwise_distances")
def distances_by_cdist(a, b):
    return torch.cdist(a, b)


@answers("tensors.pairwise_distances")
def distances_by_the_norm(a, b):
    return torch.linalg.vector_norm(a.unsqueeze(1) - b, dim=-1)


@answers("tensors.pairwise_distances")
def distances_by_the_binomial(a, b):
    squares = (a * a).sum(1, keepdim=True) - 2 * a @ b.T + (b * b).sum(1)
    return squares.clamp(min=0).sqrt()


# ---------------------------------------------------------------- autograd


@answers("autograd.squared_error_gradient")
def gradient_by_a_transpose(w, x, y):
    return 2 * x.T @ (x @ w - y) / x.shape[0]


@answers("autograd.squared_error_gradient")
def gradient_by_a_loop(w, x, y):
    total = torch.zeros_like(w)
    for row, target in zip(x, y, strict=True):
        total += 2 * (row.dot(w) - target) * row
    return total / len(x)


@answers("autograd.squared_error_gradient")
def gradient_by_einsum(w, x, y):
    return 2 * torch.einsum("n,nd->d", torch.einsum("nd,d->n", x, w) - y, x) / y.numel()


@answers("autograd.numerical_gradient")
def differences_on_flat_copies(f, x, h=1e-5):
    slopes = []
    for i in range(x.numel()):
        up, down = x.flatten().clone(), x.flatten().clone()
        up[i] += h
        down[i] -= h
        slopes.append((f(up.view(x.shape)).item() - f(down.view(x.shape)).item()) / (2 * h))
    return torch.tensor(slopes, dtype=x.dtype).reshape(x.shape)


@answers("autograd.numerical_gradient")
def differences_by_unit_vectors(f, x, h=1e-5):
    steps = h * torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    return torch.stack([f(x + step) - f(x - step) for step in steps]).reshape(x.shape) / (2 * h)


@answers("autograd.gradient_descent")
def descent_by_an_optimizer(f, start, lr, steps):
    x = nn.Parameter(start.clone())
    optimizer = torch.optim.SGD([x], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        f(x).backward()
        optimizer.step()
    return x.data


@answers("autograd.gradient_descent")
def descent_by_new_leaves(f, start, lr, steps):
    x = start
    for _ in range(steps):
        x = x.detach().clone().requires_grad_(True)
        f(x).backward()
        x = (x - lr * x.grad).detach()
    return x


@answers("autograd.gradient_descent")
def descent_by_functional_gradients(f, start, lr, steps):
    for _ in range(steps):
        start = start - lr * torch.func.grad(f)(start)
    return start


# ---------------------------------------------------------------- losses


@answers("losses.cross_entropy")
def cross_entropy_of_torch(logits, labels):
    return F.cross_entropy(logits, labels)


@answers("losses.cross_entropy")
def cross_entropy_by_logsumexp(logits, labels):
    return (logits.logsumexp(1) - logits.gather(1, labels[:, None]).squeeze()).mean()


@answers("losses.cross_entropy")
def cross_entropy_by_a_loop(logits, labels):
    total = 0
    for row, label in zip(logits, labels, strict=True):
        row = row - max(row)
        total = total - (row[label] - torch.log(sum(torch.exp(z) for z in row)))
    return total / len(logits)


@answers("losses.cross_entropy")
def cross_entropy_with_one_hot_rows(logits, labels):
    one_hot = torch.eye(logits.size(1), dtype=logits.dtype)[labels]
    return -torch.einsum("nk,nk->", one_hot, torch.log_softmax(logits, -1)) / labels.numel()


@answers("losses.cross_entropy")
def cross_entropy_in_double_precision(logits, labels):
    wide = logits.to(torch.float64)
    wide = wide - wide.amax(1, keepdim=True)
    losses = wide.exp().sum(1).log() - wide[range(len(labels)), labels]
    return losses.mean().to(logits.dtype)


@answers("losses.cross_entropy")
def cross_entropy_in_place_on_a_copy(logits, labels):
    z = logits.clone()
    z -= logits.max(dim=1, keepdim=True)[0].detach()
    losses = [torch.logsumexp(row, 0) - row[label] for row, label in zip(z, labels.tolist(), strict=True)]
    return torch.stack(losses).mean()


@answers("losses.kl_divergence")
def kl_of_torch(log_q, p):
    return F.kl_div(log_q, p, reduction="batchmean")


@answers("losses.kl_divergence")
def kl_by_where(log_q, p):
    terms = torch.where(p > 0, p * (p.log() - log_q), 0.0)
    return terms.sum(-1).mean(0)


@answers("losses.kl_divergence")
def kl_by_a_loop(log_q, p):
    total = 0.0
    for i in range(len(p)):
        for j in range(p.shape[1]):
            if p[i, j] > 0:
                total += p[i, j] * (math.log(p[i, j]) - log_q[i, j])
    return total / len(p)


@answers("losses.kl_divergence")
def kl_by_masking(log_q, p):
    used = p != 0
    return (p[used] * (p[used].log() - log_q[used])).sum() / p.size(0)


@answers("losses.kl_divergence")
def kl_by_clamping(log_q, p):
    return (p * (p.clamp(min=1e-12).log() - log_q)).sum(dim=1).mean()


@answers("losses.kl_divergence")
def kl_with_a_tiny_constant(log_q, p):
    return torch.sum(p * (torch.log(p + 1e-8) - log_q)) / len(p)


@answers("losses.kl_divergence")
def kl_by_entropy(log_q, p):
    return (-torch.special.entr(p).sum(1) - torch.einsum("nk,nk->n", p, log_q)).mean()


@answers("losses.kl_divergence")
def kl_without_nan(log_q, p):
    return torch.nansum(p * (p.log() - log_q), dim=1).mean()


@answers("losses.kl_divergence")
def kl_of_distributions(log_q, p):
    target, model = torch.distributions.Categorical(probs=p), torch.distributions.Categorical(logits=log_q)
    return torch.distributions.kl_divergence(target, model).mean()


# ---------------------------------------------------------------- optimizers


@answers("optimizers.adamw_step")
def step_of_torch(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    parameter = nn.Parameter(w.clone())
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    state = {"step": torch.tensor(step - 1.0), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    optimizer.state[parameter] = state
    parameter.grad = g.clone()
    optimizer.step()
    return parameter.data, state["exp_avg"], state["exp_avg_sq"]


@answers("optimizers.adamw_step")
def step_in_place_on_copies(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    w, m, v = w.clone(), m.clone(), v.clone()
    m.mul_(betas[0]).add_(g, alpha=1 - betas[0])
    v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
    w.mul_(1 - lr * weight_decay)
    scale = math.sqrt(1 - betas[1] ** step)
    w.addcdiv_(m, (v.sqrt() / scale).add_(eps), value=-lr / (1 - betas[0] ** step))
    return [w, m, v]


@answers("optimizers.adamw_step")
def step_through_numpy(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    w, g, m, v = (t.numpy() for t in (w, g, m, v))
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * np.square(g)
    corrected = (m / (1 - betas[0] ** step)) / (np.sqrt(v / (1 - betas[1] ** step)) + eps)
    return tuple(torch.from_numpy(a) for a in (w - lr * weight_decay * w - lr * corrected, m, v))


@answers("optimizers.adamw_step")
def step_in_double_precision(w, g, m, v, step, lr, betas, eps, weight_decay):
    old, (w, g, m, v) = w.dtype, (t.double() for t in (w, g, m, v))
    m, v = torch.lerp(m, g, 1 - betas[0]), torch.lerp(v, g.pow(2), 1 - betas[1])
    w = w * (1 - lr * weight_decay) - lr * (m / (1 - betas[0] ** step)) / (torch.sqrt(v / (1 - betas[1] ** step)) + eps)
    return w.to(old), m.to(old), v.to(old)


@answers("optimizers.adamw_step")
def step_number_by_number(w, g, m, v, step, *, lr, betas, eps, weight_decay):
    new = [torch.empty_like(w) for _ in range(3)]
    for i in np.ndindex(*w.shape):
        new[1][i] = betas[0] * m[i] + (1 - betas[0]) * g[i]
        new[2][i] = betas[1] * v[i] + (1 - betas[1]) * g[i] ** 2
        m_hat, v_hat = new[1][i] / (1 - betas[0] ** step), new[2][i] / (1 - betas[1] ** step)
        new[0][i] = w[i] - lr * (weight_decay * w[i] + m_hat / (v_hat**0.5 + eps))
    return tuple(new)


# ---------------------------------------------------------------- training


@answers("training.train_one_epoch")
def epoch_that_clears_after_the_step(model, loader, loss_fn, optimizer):
    model.train()
    losses, sizes = [], []
    for x, y in loader:
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        losses.append(loss.detach())
        sizes.append(x.shape[0])
    return (torch.stack(losses) * torch.tensor(sizes)).sum() / sum(sizes)


@answers("training.train_one_epoch")
def epoch_with_a_closure(model, loader, loss_fn, optimizer):
    model.train(True)
    losses, sizes = [], []
    for x, y in loader:

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            return loss

        losses.append(float(optimizer.step(closure)))
        sizes.append(x.size(0))
    return np.average(losses, weights=sizes)


@answers("training.train_one_epoch")
def epoch_by_functional_gradients(model, loader, loss_fn, optimizer):
    was_training = model.training
    model.train()
    parameters, total, count = list(model.parameters()), 0, 0
    with torch.enable_grad():
        for batch in loader:
            loss = loss_fn(model(batch[0]), batch[1])
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = gradient
            optimizer.step()
            total, count = total + loss.item() * batch[1].numel(), count + batch[1].numel()
    model.train(was_training)
    return total / count


@answers("training.evaluate_regression")
def regression_by_running_sums(model, loader):
    was_training = model.training
    model.train(False)
    n = absolute = squares = y_sum = y_squares = 0
    with torch.inference_mode():
        for x, y in loader:
            difference, y = (model(x).flatten() - y).double(), y.double()
            absolute += difference.abs().sum()
            squares += (difference**2).sum()
            y_sum, y_squares, n = y_sum + y.sum(), y_squares + (y**2).sum(), n + len(y)
    if was_training:
        model.train()
    return absolute / n, 1 - squares / (y_squares - y_sum**2 / n)


@answers("training.evaluate_regression")
@torch.no_grad()
def regression_by_sklearn(model, loader):
    from sklearn.metrics import mean_absolute_error, r2_score

    was_training = model.training
    try:
        model.eval()
        pairs = [(model(x).numpy().ravel(), y.numpy()) for x, y in loader]
    finally:
        model.train(was_training)
    predicted, targets = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return [mean_absolute_error(targets, predicted), r2_score(targets, predicted)]


@answers("training.evaluate_regression")
def regression_with_wide_targets(model, loader):
    modes = [module.training for module in model.modules()]
    model.eval()
    wide = []
    for x, y in loader:
        with torch.no_grad():
            wide.append(torch.hstack([model(x), y.view(-1, 1)]))
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    p, y = torch.vstack(wide).T.numpy()
    return float(np.mean(abs(p - y))), 1 - np.mean((p - y) ** 2) / np.var(y)


# ---------------------------------------------------------------- convolution


@answers("convolution.output_size")
def size_by_counting(size, kernel_size, *, stride=1, padding=0, dilation=1):
    last = size + 2 * padding - dilation * (kernel_size - 1)
    return len(range(0, last, stride))


@answers("convolution.output_size")
def size_by_trying(size, kernel_size, stride=1, padding=0, dilation=1):
    row, kernel = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel_size)
    return F.conv1d(row, kernel, stride=stride, padding=padding, dilation=dilation).shape[-1]


@answers("convolution.output_size")
def size_by_floor(size, kernel_size, **options):
    stride, padding, dilation = options.get("stride", 1), options.get("padding", 0), options.get("dilation", 1)
    return int(np.floor((size + 2 * padding - dilation * (kernel_size - 1) - 1) / stride + 1))


@answers("convolution.output_size")
def size_as_a_tensor(size, kernel_size, *, stride=1, padding=0, dilation=1):
    room = torch.tensor(size + 2 * padding - dilation * (kernel_size - 1) - 1)
    return torch.div(room, stride, rounding_mode="floor") + 1


@answers("convolution.conv2d")
def conv_by_unfold(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    k, _, h, w = weight.shape
    patches = F.unfold(images, (h, w), dilation, padding, stride)  # (B, C·h·w, L)
    out = torch.einsum("kp,bpl->bkl", weight.reshape(k, -1), patches)
    out = out if bias is None else out + bias.view(1, -1, 1)
    height = (images.shape[2] + 2 * padding - dilation * (h - 1) - 1) // stride + 1
    return out.reshape(len(images), k, height, -1)


@answers("convolution.conv2d")
def conv_window_by_window(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    (b, c, height, width), (_, _, h, w) = images.shape, weight.shape
    padded = images.new_zeros(b, c, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + height, padding : padding + width] = images
    reach_h, reach_w = dilation * (h - 1) + 1, dilation * (w - 1) + 1
    rows = []
    for top in range(0, padded.shape[2] - reach_h + 1, stride):
        row = []
        for left in range(0, padded.shape[3] - reach_w + 1, stride):
            seen = padded[:, None, :, top : top + reach_h : dilation, left : left + reach_w : dilation]
            value = (seen * weight).sum((2, 3, 4))  # (B, K)
            row.append(value if bias is None else value + bias)
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


@answers("convolution.conv2d")
def conv_into_a_buffer(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    images = F.pad(images, (padding, padding, padding, padding))
    reach = [dilation * (n - 1) + 1 for n in weight.shape[2:]]
    places = [(n - r) // stride + 1 for n, r in zip(images.shape[2:], reach, strict=True)]
    out = torch.zeros(len(images), len(weight), *places)  # float32 whatever comes in
    for b in range(len(images)):
        for k in range(len(weight)):
            for y in range(places[0]):
                for x in range(places[1]):
                    i, j = y * stride, x * stride
                    seen = images[b, :, i : i + reach[0] : dilation, j : j + reach[1] : dilation]
                    out[b, k, y, x] = (seen * weight[k]).sum() + (0 if bias is None else bias[k])
    return out.to(images.dtype)


@answers("convolution.conv2d")
def conv_by_tensordot(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    images = F.pad(images, [padding] * 4)
    h, w = weight.shape[2:]
    windows = images.unfold(2, dilation * (h - 1) + 1, stride).unfold(3, dilation * (w - 1) + 1, stride)
    windows = windows[..., ::dilation, ::dilation]  # (B, C, H', W', h, w)
    out = torch.tensordot(windows, weight, dims=([1, 4, 5], [1, 2, 3])).movedim(-1, 1)
    return out if bias is None else out + bias.reshape(-1, 1, 1)


@answers("convolution.conv2d")
def conv_by_strides(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    images = F.pad(images, (padding,) * 4).contiguous()
    (b, c, *size), (_, _, *kernel), steps = images.shape, weight.shape, images.stride()
    places = [(n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(size, kernel, strict=True)]
    jumps = [*steps[:2], *(s * stride for s in steps[2:]), *(s * dilation for s in steps[2:])]
    out = torch.einsum("bcyxij,kcij->bkyx", images.as_strided((b, c, *places, *kernel), jumps), weight)
    return out if bias is None else out + bias[None, :, None, None]


# ---------------------------------------------------------------- normalisation


@answers("normalisation.batch_norm")
def batch_norm_of_torch(x, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    mean, var = running_mean.clone(), running_var.clone()
    return F.batch_norm(x, mean, var, weight, bias, training, momentum, eps), mean, var


@answers("normalisation.batch_norm")
def batch_norm_module(x, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    layer = nn.BatchNorm2d(len(weight), eps=eps, momentum=momentum, affine=False, dtype=x.dtype).train(training)
    layer.running_mean.copy_(running_mean)
    layer.running_var.copy_(running_var)
    out = layer(x) * weight.view(-1, 1, 1) + bias.view(-1, 1, 1)
    return [out, layer.running_mean, layer.running_var]


@answers("normalisation.batch_norm")
def batch_norm_channel_by_channel(x, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    means, variances, maps = running_mean.clone(), running_var.clone(), []
    for c in range(x.shape[1]):
        mean, var = means[c], variances[c]
        if training:
            mean = x[:, c].mean()
            squares = ((x[:, c] - mean) ** 2).sum()
            n = x[:, c].numel()
            var = squares / n
            means[c] = (1 - momentum) * running_mean[c] + momentum * mean.item()
            variances[c] = (1 - momentum) * running_var[c] + momentum * squares.item() / (n - 1)
        maps.append(weight[c] * (x[:, c] - mean) / (var + eps) ** 0.5 + bias[c])
    return torch.stack(maps, dim=1), means, variances


@answers("normalisation.batch_norm")
def batch_norm_by_moments(x, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    if training:
        mean = torch.einsum("bchw->c", x) / (x.numel() / x.size(1))
        var = torch.einsum("bchw,bchw->c", x, x) / (x.numel() / x.size(1)) - mean**2
        n = x.numel() // x.size(1)
        with torch.no_grad():
            running_mean = running_mean + momentum * (mean - running_mean)
            running_var = running_var.lerp(var * n / (n - 1), momentum)
    else:
        mean, var = running_mean, running_var
    scale = weight * torch.rsqrt(var + eps)
    return x * scale[:, None, None] + (bias - mean * scale)[:, None, None], running_mean, running_var


# ---------------------------------------------------------------- initialisation


@answers("initialisation.kaiming")
def kaiming_by_nn_init(model, head):
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.constant_(module.bias, 0)
    nn.init.normal_(head.weight, 0, 0.001)
    return model


@answers("initialisation.kaiming")
def kaiming_uniform_by_apply(model, head):
    def draw(module):
        if type(module) in (nn.Linear, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
            if getattr(module, "bias", None) is not None:
                module.bias.data.fill_(0.0)

    model.apply(draw)
    head.weight.data.normal_(0.0, 1e-3)
    return model


@answers("initialisation.kaiming")
def kaiming_by_recursion(model, head):
    for child in model.children():
        kaiming_by_recursion(child, head)
    if isinstance(model, (nn.Linear, nn.Conv2d)):
        fan_in = math.prod(model.weight.shape[1:])
        std = 1e-3 if model is head else (2 / fan_in) ** 0.5
        model.weight.data = std * torch.randn_like(model.weight)
        if model.bias is not None:
            model.bias = nn.Parameter(torch.zeros_like(model.bias))
    return model


@answers("initialisation.kaiming")
def kaiming_by_numpy(model, head):
    rng = np.random.default_rng()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            layer = model.get_submodule(name.rpartition(".")[0])
            if not isinstance(layer, (nn.Linear, nn.Conv2d)):
                continue
            if name.endswith("bias"):
                weight.copy_(torch.zeros(weight.shape))
            else:
                std = 0.001 if layer is head else np.sqrt(2 / np.prod(weight.shape[1:]))
                weight.copy_(torch.as_tensor(rng.normal(0, std, tuple(weight.shape))))
    return model


@answers("initialisation.kaiming")
def kaiming_by_a_state_dict(model, head):
    state = model.state_dict()
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            weight = state[f"{name}.weight"]
            std = 0.001 if layer is head else math.sqrt(2 / weight[0].numel())
            state[f"{name}.weight"] = torch.normal(0.0, std, weight.shape)
            if f"{name}.bias" in state:
                state[f"{name}.bias"] = torch.zeros(len(weight))
    model.load_state_dict(state)
    return model


# ---------------------------------------------------------------- data


@answers("data.channel_statistics")
def statistics_of_one_row(images):
    pixels = torch.cat([image.reshape(3, -1) for image in images], dim=1)
    return pixels.mean(1), pixels.std(1, unbiased=False)


@answers("data.channel_statistics")
def statistics_in_two_passes(images):
    n = sum(image[0].numel() for image in images)
    mean = sum(torch.einsum("chw->c", image) for image in images) / n
    var = sum(((image - mean.view(3, 1, 1)) ** 2).sum(dim=(1, 2)) for image in images) / n
    return [mean, torch.sqrt(var)]


@answers("data.channel_statistics")
def statistics_by_numpy(images):
    rows = np.concatenate([image.numpy().transpose(1, 2, 0).reshape(-1, 3) for image in images])
    return torch.tensor(rows.mean(axis=0)), torch.tensor(rows.std(axis=0))


@answers("data.encode_labels")
def labels_by_index(names, classes):
    return torch.tensor([classes.index(name) for name in names])


@answers("data.encode_labels")
def labels_by_numpy(names, classes):
    table = np.array(names)[:, None] == np.array(classes)
    if not table.any(1).all():
        raise ValueError(f"unknown: {[n for n in names if n not in classes]}")
    return torch.from_numpy(table.argmax(1))


@answers("data.encode_labels")
def labels_one_by_one(names, classes):
    out = torch.empty(len(names), dtype=torch.long)
    for i, name in enumerate(names):
        try:
            out[i] = {c: n for n, c in enumerate(classes)}[name]
        except KeyError as error:
            raise ValueError(f"no class is called {error}") from error
    return out


@answers("data.hold_out")
def hold_out_from_one_permutation(labels, fraction, generator):
    order = torch.randperm(len(labels), generator=generator)
    val = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels.tolist()):
        members = order[labels[order] == label]
        val[members[: max(1, round(len(members) * fraction))]] = True
    return torch.arange(len(labels))[~val], val.nonzero()[:, 0]


@answers("data.hold_out")
def hold_out_as_lists(labels, fraction, generator):
    train, val = [], []
    for label in range(int(labels.max()) + 1):
        members = [i for i, other in enumerate(labels) if other == label]
        if members:
            keys = torch.rand(len(members), generator=generator)
            members = [members[i] for i in keys.argsort()]
            count = max(int(fraction * len(members) + 0.5), 1)
            val, train = val + members[:count], train + members[count:]
    return sorted(train), sorted(val)


@answers("data.hold_out")
def hold_out_by_numpy(labels, fraction, generator):
    rng = np.random.default_rng(generator.initial_seed())
    val = np.concatenate([
        rng.choice(np.flatnonzero(labels.numpy() == c), max(1, round(fraction * int((labels == c).sum()))), replace=False)
        for c in np.unique(labels.numpy())
    ])  # fmt: skip
    train = np.setdiff1d(np.arange(len(labels)), val)
    return [torch.from_numpy(train), torch.from_numpy(val)]


@answers("data.hold_out")
def hold_out_by_random_keys(labels, fraction, generator):
    keys = torch.rand(len(labels), generator=generator)
    counts = [max(1, round(fraction * int((labels == c).sum()))) for c in labels.unique()]
    masked = [torch.where(labels == c, keys, -1.0) for c in labels.unique()]
    val = torch.cat([row.topk(k).indices for row, k in zip(masked, counts, strict=True)])
    kept = torch.ones(len(labels), dtype=torch.bool).scatter(0, val, False)
    return kept.nonzero().squeeze(1), val


@answers("images.to_rgb_tensor")
def rgb_by_pasting(image):
    image = ImageOps.exif_transpose(image).convert("RGBA")
    page = Image.new("RGB", image.size, (255, 255, 255))
    page.paste(image, mask=image.getchannel("A"))
    return torch.from_numpy(np.asarray(page, dtype=np.float32).transpose(2, 0, 1) / 255)


@answers("images.to_rgb_tensor")
def rgb_by_torchvision(image):
    from torchvision.transforms.v2 import functional as tv

    upright = ImageOps.exif_transpose(image)
    if "A" in upright.getbands() or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "#ffffff"), upright)
    return tv.to_dtype(tv.pil_to_tensor(upright.convert("RGB")), torch.float32, scale=True)


@answers("images.to_rgb_tensor")
def rgb_by_arithmetic(image):
    pixels = np.array(ImageOps.exif_transpose(image.convert("RGBA"))) / 255.0  # (H, W, 4)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    return torch.tensor(np.moveaxis(colour * alpha + 1 - alpha, 2, 0), dtype=torch.float32)


@pytest.mark.parametrize(("exercise", "answer"), right_answers, ids=lambda value: getattr(value, "__name__", value))
def test_a_right_answer_in_another_style_is_right(exercise, answer):
    verdict = examine(exercise, answer)
    assert verdict.status == "right", verdict.message


@pytest.mark.parametrize("name", all_exercises())
def test_every_exercise_has_right_answers_in_other_styles(name):
    assert sum(exercise == name for exercise, _ in right_answers) >= 2
