"""Right answers to the exercises on mixed precision and memory, in other styles than the references'."""

import math
import struct

import numpy as np
import torch
from planting import right_answer


@right_answer("precision.round_to_bf16")
def by_numpy_and_unsigned_bits(x):
    values = x.numpy().copy()
    bits = values.view(np.uint32).astype(np.uint64) if values.ndim else np.array(values[None].view(np.uint32)[0], dtype=np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    rounded = np.atleast_1d(bits.astype(np.uint32)).view(np.float32).reshape(values.shape)
    return torch.from_numpy(np.asarray(np.where(np.isnan(values), values, rounded)))


@right_answer("precision.round_to_bf16")
def one_number_at_a_time(x):
    out = []
    for value in x.flatten().tolist():
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
        lower, upper = bits & 0xFFFF, bits >> 16
        if lower > 0x8000 or (lower == 0x8000 and upper % 2):
            upper += 1
        out.append(value if math.isnan(value) else struct.unpack("<f", struct.pack("<I", upper << 16))[0])
    return torch.tensor(out, dtype=torch.float32).reshape(x.shape)


@right_answer("precision.round_to_bf16")
def nearer_of_two_neighbours(x):
    bits = x.contiguous().view(torch.int32)
    low_bits = bits & -65536
    low, high = low_bits.view(torch.float32), (low_bits + 65536).view(torch.float32)
    rest = bits & 0xFFFF
    up = (rest > 0x8000) | ((rest == 0x8000) & ((bits >> 16) % 2 == 1))
    return torch.where(x.isnan(), torch.full_like(x, float("nan")), torch.where(up, high, low))


@right_answer("precision.round_to_bf16")
def in_int64(x):
    bits = x.clone().view(torch.int32).long() & 0xFFFFFFFF
    quotient, rest = bits // 65536, bits % 65536
    quotient = quotient + ((rest + quotient % 2) > 32768).long()
    signed = torch.where(quotient >= 32768, quotient - 65536, quotient) * 65536
    return torch.where(x != x, x, signed.to(torch.int32).view(torch.float32))


@right_answer("precision.loss_scaling_step")
def by_autograd_grad(loss, optimizer, scale):
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = torch.autograd.grad(loss * scale, parameters, allow_unused=True)
    gradients = [None if g is None else g / scale for g in gradients]
    if any(g is not None and not torch.isfinite(g).all() for g in gradients):
        return 0.5 * scale
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    for parameter in parameters:
        parameter.grad = None
    return scale


@right_answer("precision.loss_scaling_step")
def by_the_scaler_of_torch(loss, optimizer, scale):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=0.5, growth_interval=10**6)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=False)
    return scaler.get_scale()


@right_answer("precision.loss_scaling_step")
def looks_before_it_divides(loss, optimizer, scale):
    torch.mul(loss, scale).backward()
    bad = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                bad += int((~torch.isfinite(parameter.grad)).sum())
                parameter.grad.mul_(1 / scale)
    if not bad:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return torch.tensor(scale if bad == 0 else scale / 2)


@right_answer("precision.loss_scaling_step")
def by_the_largest_number(loss, optimizer, scale):
    (scale * loss).backward()
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    largest = torch.stack([g.abs().max() for g in gradients]).max()
    torch._foreach_div_(gradients, scale)
    if math.isfinite(largest.item()):
        optimizer.step()
    else:
        scale /= 2
    for gradient in gradients:
        gradient.zero_()
    return float(scale)


@right_answer("precision.accumulate")
def all_batches_in_a_list(model, batches, loss_fn, optimizer, k):
    batches = list(batches)
    groups = [batches[i : i + k] for i in range(0, len(batches), k)]
    for group in groups:
        optimizer.zero_grad()
        total = sum(y.shape[0] for _, y in group)
        for x, y in group:
            loss = loss_fn(model(x), y)
            loss.backward(torch.tensor(y.shape[0] / total))
        optimizer.step()
    optimizer.zero_grad()
    return len(groups)


@right_answer("precision.accumulate")
def sums_first_and_divides_the_gradient(model, batches, loss_fn, optimizer, k):
    optimizer.zero_grad()
    count = samples = updates = 0

    def update():
        for parameter in model.parameters():
            parameter.grad /= samples
        optimizer.step()
        optimizer.zero_grad()

    for x, y in batches:
        (loss_fn(model(x), y) * len(y)).backward()
        count, samples = count + 1, samples + len(y)
        if count == k:
            update()
            count = samples = 0
            updates += 1
    if count:
        update()
        updates += 1
    return updates


@right_answer("precision.accumulate")
def by_autograd_grad_for_each_batch(model, batches, loss_fn, optimizer, k):
    parameters, updates = list(model.parameters()), 0
    window = []

    def flush():
        samples = sum(n for n, _ in window)
        for index, parameter in enumerate(parameters):
            parameter.grad = sum(n * gradients[index] for n, gradients in window) / samples
        optimizer.step()
        for parameter in parameters:
            parameter.grad = None

    optimizer.zero_grad(set_to_none=True)
    for x, y in batches:
        window.append((len(y), torch.autograd.grad(loss_fn(model(x), y), parameters)))
        if len(window) == k:
            flush()
            updates, window = updates + 1, []
    if window:
        flush()
        updates += 1
    return torch.tensor(updates)
