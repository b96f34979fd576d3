"""Wrong answers to the exercises on mixed precision and memory."""

from itertools import islice

import torch
import torch.nn.functional as F
from planting import mistake


def plant(exercise, says, name, answer):
    answer.__name__ = name
    mistake(exercise, says=says)(answer)


def round_like(says, name, *, add=lambda bits: 0x7FFF + ((bits >> 16) & 1), drop=16, nan=True, last=lambda y, x: y):
    """Rounding by bits with one part of it replaced."""

    def round_to_bf16(x):
        bits = x.view(torch.int32)
        y = ((bits + add(bits)) & -(1 << drop)).view(torch.float32)
        return last(torch.where(x.isnan(), x, y) if nan else y, x)

    plant("precision.round_to_bf16", says, name, round_to_bf16)


round_like("turns a NaN into something else", "no_care_for_nan", nan=False)
round_like(r"rounds towards zero\. ", "truncates", add=lambda bits: 0)
round_like(r"rounds a tie away from zero", "half_up", add=lambda bits: 0x8000)
round_like("rounds every tie towards zero", "half_down", add=lambda bits: 0x7FFF)
round_like("away from zero whenever a lower bit is set", "ceil", add=lambda bits: 0xFFFF)
round_like("rounds to the odd end", "to_odd", add=lambda bits: 0x8000 - ((bits >> 16) & 1))
round_like("loses the sign\\. ", "absolute", last=lambda y, x: y.abs())
round_like("loses the sign of a zero", "positive_zero", last=lambda y, x: torch.where(y == 0, 0.0, y))
round_like("keeps 10 bits", "ten_bits", add=lambda bits: 0xFFF + ((bits >> 13) & 1), drop=13)
round_like("keeps 8 bits", "eight_bits", add=lambda bits: 0x3FFF + ((bits >> 15) & 1), drop=15)
round_like("keeps 6 bits", "six_bits", add=lambda bits: 0xFFFF + ((bits >> 17) & 1), drop=17)
round_like("clears 8 bits where 16", "clears_a_byte", add=lambda bits: 0x7F + ((bits >> 8) & 1), drop=8)
round_like(
    "stops at the largest finite number", "no_overflow",
    last=lambda y, x: y.clamp(-torch.finfo(torch.bfloat16).max, torch.finfo(torch.bfloat16).max),
)  # fmt: skip
round_like("sets subnormal numbers to zero", "flushes", last=lambda y, x: torch.where(y.abs() < 2.0**-126, 0 * y, y))
round_like("a tensor of type bfloat16: float32 is asked for", "wrong_type", last=lambda y, x: y.bfloat16())
round_like("returns the bits as whole numbers", "bits", last=lambda y, x: y.view(torch.int32))
round_like("keeps the upper half of the bits as a small", "short", last=lambda y, x: x.view(torch.int32) >> 16)
round_like("returns what it was given", "identity", last=lambda y, x: x + 0)
round_like("to fp16, which has other bits", "half_precision", last=lambda y, x: x.half().float())
round_like("steps of 1/128 at every size", "fixed_point", last=lambda y, x: (x * 128).round() / 128)
round_like("makes a tensor of type torch.bfloat16", "torch_does_it", last=lambda y, x: x.to(torch.bfloat16).to(torch.float32))
round_like("changes its input", "in_place", last=lambda y, x: x.copy_(y))
round_like(
    "negative numbers the wrong way", "towards_minus_infinity",
    last=lambda y, x: torch.where(y > x, (x.view(torch.int32) & -65536).view(torch.float32),
                                  ((x.view(torch.int32) + 0xFFFF) & -65536).view(torch.float32)),
)  # fmt: skip


def all_finite(gradients):
    return all(bool(g.isfinite().all()) for g in gradients)


def step_like(
    says, name, *, scaled=True, unscale=lambda grads, scale: [g / scale for g in grads], good=all_finite,
    on_skip=lambda scale: scale / 2, on_step=lambda scale: scale, clear=True, clear_skipped=True, mend=lambda grads: grads,
    look_at_loss=False, with_none=False,
):  # fmt: skip
    """A step with loss scaling, one part of it replaced."""

    def loss_scaling_step(loss, optimizer, scale):
        (loss * scale if scaled else loss).backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"] if with_none or p.grad is not None]
        grads = unscale([p.grad for p in parameters], scale)
        fine = bool(loss.isfinite()) if look_at_loss else good(grads)
        for parameter, gradient in zip(parameters, mend(grads), strict=True):
            parameter.grad = gradient
        if fine:
            optimizer.step()
        if clear if fine else clear_skipped:
            optimizer.zero_grad()
        return on_step(scale) if fine else on_skip(scale)

    plant("precision.loss_scaling_step", says, name, loss_scaling_step)


step_like("scales neither the loss", "plain_step", scaled=False, unscale=lambda grads, scale: grads)
step_like("does not scale the loss before", "loss_unscaled", scaled=False)
step_like("does not divide the gradients by the scale before", "no_unscale", unscale=lambda grads, scale: grads)
step_like("divides only the first parameter's gradient", "one", unscale=lambda grads, scale: [grads[0] / scale, *grads[1:]])
step_like("although a gradient is not finite", "no_guard", good=lambda grads: True)
step_like("looks only at the first parameter's", "first_only", good=lambda grads: all_finite(grads[:1]))
step_like("looks only at the last parameter's", "last_only", good=lambda grads: all_finite(grads[-1:]))
step_like("first number of each", "first_number", good=lambda grads: all(bool(g[0].isfinite()) for g in grads))
step_like("no gradient at all is finite", "any_good", good=lambda grads: any(all_finite([g]) for g in grads))
step_like("looks whether the loss is finite", "checks_the_loss", look_at_loss=True)
step_like("looks for NaN only", "nan_only", good=lambda grads: not any(bool(g.isnan().any()) for g in grads))
step_like("looks for infinite numbers only", "inf_only", good=lambda grads: not any(bool(g.isinf().any()) for g in grads))
step_like(
    "steps the others", "each_for_itself", good=lambda grads: True,
    mend=lambda grads: [g if all_finite([g]) else None for g in grads],
)  # fmt: skip
step_like(
    "sets bad numbers to zero", "mended", good=lambda grads: True,
    mend=lambda grads: [torch.nan_to_num(g, 0.0, 0.0, 0.0) for g in grads],
)  # fmt: skip
step_like("leaves the scale as it is after a skipped", "scale_stays", on_skip=lambda scale: scale)
step_like("doubles the scale after a skipped", "wrong_way", on_skip=lambda scale: 2 * scale)
step_like("quarters the scale", "quarters", on_skip=lambda scale: scale / 4)
step_like("sets the scale to 1", "back_to_one", on_skip=lambda scale: 1.0)
step_like("halves the scale after a good step", "always_halves", on_step=lambda scale: scale / 2)
step_like("doubles the scale after every good", "grows", on_step=lambda scale: 2 * scale)
step_like("leaves gradients behind after a step", "never_clears", clear=False)
step_like("leaves gradients behind after a skipped step", "keeps_the_bad", clear_skipped=False)
step_like("raises TypeError", "trips_over_none", with_none=True)
step_like("never steps", "never", good=lambda grads: False, on_skip=lambda scale: scale)


@mistake("precision.loss_scaling_step", says=r"does not divide the gradients by the scale before the step\.")
def late(loss, optimizer, scale):
    (loss * scale).backward()
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    fine = all_finite(gradients)
    if fine:
        optimizer.step()
    for gradient in gradients:
        gradient /= scale
    optimizer.zero_grad()
    return scale if fine else scale / 2


def epoch_like(
    says, name, *, share=lambda n, samples, part, k: n / samples, take=lambda k, updates: k, first=True, each=False, clear=True,
    result=lambda updates, seen: updates, swap=False, own_loss=False, own_optimizer=False,
):  # fmt: skip
    """Accumulation by windows with one part of it replaced."""

    def accumulate(model, batches, loss_fn, optimizer, k):
        if own_optimizer:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        loss_fn = F.mse_loss if own_loss else loss_fn
        if first:
            optimizer.zero_grad()
        rest, updates, seen = iter(batches), 0, 0
        while part := list(islice(rest, take(k, updates))):
            samples = sum(len(y) for _, y in part)
            for x, y in part:
                if each:
                    optimizer.zero_grad()
                loss = loss_fn(y, model(x)) if swap else loss_fn(model(x), y)
                (loss * share(len(y), samples, part, k)).backward()
                seen += 1
            optimizer.step()
            if clear:
                optimizer.zero_grad()
            updates += 1
        return result(updates, seen)

    plant("precision.accumulate", says, name, accumulate)


epoch_like("adds the gradients up and never divides", "never_divides", share=lambda n, s, part, k: 1)
epoch_like("divides by k in a window that has fewer", "by_k", share=lambda n, s, part, k: 1 / k)
epoch_like("weighs the batches of a window alike", "by_batches", share=lambda n, s, part, k: 1 / len(part))
epoch_like("takes every window for a full one", "full", share=lambda n, s, part, k: n / (k * len(part[0][1])))
epoch_like("without multiplying by the batch's", "only_samples", share=lambda n, s, part, k: 1 / s)
epoch_like("never divides by the window's", "sums", share=lambda n, s, part, k: n)
epoch_like(r"steps after every batch\. ", "no_window", take=lambda k, updates: 1)
epoch_like("with a k-th of its gradient", "no_window_by_k", take=lambda k, updates: 1, share=lambda n, s, part, k: 1 / k)
epoch_like("steps once, after the last batch", "one_step", take=lambda k, updates: 10**6)
epoch_like("shifted by one", "shifted", take=lambda k, updates: k if updates else 1)
epoch_like("left by whoever ran before", "starts_dirty", first=False)
epoch_like("before every batch: only the last batch of a window", "clears_too_often", each=True)
epoch_like("never clears the gradients between two windows", "never_clears_windows", clear=False)
epoch_like("the predictions come first", "swapped", swap=True)
epoch_like("a loss of its own", "own_loss", own_loss=True)
epoch_like("an optimizer of its own", "own_optimizer", own_optimizer=True)
epoch_like("returns the number of batches", "counts_batches", result=lambda updates, seen: seen)
epoch_like("counts one update too few", "counts_from_zero", result=lambda updates, seen: updates - 1)


def by_index(says, name, *, clear_rest=False, collect=False):
    """The loop most tutorials show: divide by k, step after every k-th batch."""

    def accumulate(model, batches, loss_fn, optimizer, k):
        optimizer.zero_grad()
        updates, total = 0, 0
        for i, (x, y) in enumerate(batches):
            loss = loss_fn(model(x), y) / k
            total = total + loss
            if not collect:
                loss.backward()
            if (i + 1) % k == 0:
                if collect:
                    total.backward()
                total = 0
                optimizer.step()
                optimizer.zero_grad()
                updates += 1
        if clear_rest:
            optimizer.zero_grad()
        return updates

    plant("precision.accumulate", says, name, accumulate)


by_index("leaves the last window's gradient without a step", "leaks")
by_index("drops the short window", "drops", clear_rest=True)
by_index("keeps the graphs of 2 batches", "keeps_graphs", collect=True)


@mistake("precision.accumulate", says="puts the batches of a window together")
def concatenates(model, batches, loss_fn, optimizer, k):
    rest, updates = iter(batches), 0
    while part := list(islice(rest, k)):
        x, y = (torch.cat(tensors) for tensors in zip(*part, strict=True))
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
    return updates


@mistake("precision.accumulate", says="raises TypeError.*object of type|raises TypeError.*subscriptable")
def needs_len(model, batches, loss_fn, optimizer, k):
    optimizer.zero_grad()
    for i, (x, y) in enumerate(batches):
        start = i // k * k
        samples = sum(len(t) for _, t in batches[start : start + k])
        (loss_fn(model(x), y) * len(y) / samples).backward()
        if (i + 1) % k == 0 or i + 1 == len(batches):
            optimizer.step()
            optimizer.zero_grad()
    return -(-len(batches) // k)


@mistake("precision.accumulate", says="leaves gradients behind after the last step")
def clears_only_before(model, batches, loss_fn, optimizer, k):
    rest, updates = iter(batches), 0
    while part := list(islice(rest, k)):
        optimizer.zero_grad()
        samples = sum(len(y) for _, y in part)
        for x, y in part:
            (loss_fn(model(x), y) * len(y) / samples).backward()
        optimizer.step()
        updates += 1
    return updates


@mistake("precision.accumulate", says="divides by the samples of the whole epoch")
def by_all_samples(model, batches, loss_fn, optimizer, k):
    batches, updates = list(batches), 0
    optimizer.zero_grad()
    for i, (x, y) in enumerate(batches, start=1):
        (loss_fn(model(x), y) * len(y) / sum(len(t) for _, t in batches)).backward()
        if i % k == 0 or i == len(batches):
            optimizer.step()
            optimizer.zero_grad()
            updates += 1
    return updates
