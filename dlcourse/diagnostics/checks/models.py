"""Examinations of the model's forward pass: does it run, is it honest about its input and its mode, is it the same twice."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from dlcourse.diagnostics.case import Case
from dlcourse.diagnostics.layers import entering_first_weights, look_at_layers
from dlcourse.diagnostics.report import Finding
from dlcourse.runtime import seed_everything
from dlcourse.training.engine import set_training_mode

LOOK = 64
"""Samples of a look at the forward pass."""


def modes(case: Case) -> Iterator[Finding]:
    """Dropout and batch norm in eval mode. The experiments go on in train mode."""
    changing = [(n, m) for n, m in case.model.named_modules() if _changing(m)]
    asleep = [(n, m) for n, m in changing if not m.training and not _frozen(m) and not _idle(m)]
    if asleep and not case.model.training:
        yield _asleep(
            "the whole model", f"model.training is False, with {len(changing)} layers of dropout or batch norm"
        )
        set_training_mode(case.model)
    elif asleep:
        names = ", ".join(name for name, _ in asleep[:3])
        fresh = any(isinstance(m, _DropoutNd) or _never_ran(m) for _, m in asleep)
        yield _asleep(
            names, f"{len(asleep)} of {len(changing)} such layers are in eval mode in a model in train mode", fresh
        )
        for _, module in asleep:
            module.train()
    elif not case.model.training:
        set_training_mode(case.model)
    else:
        case.model.train()
        stubborn = [(n, m) for n, m in changing if not m.training and not _frozen(m) and not _idle(m)]
        if stubborn:
            yield _asleep(stubborn[0][0], "model.train() leaves it in eval mode: train() is overridden")
        set_training_mode(case.model)


def _asleep(where: str, seen: str, sure: bool = True) -> Finding:
    return Finding(
        "eval-mode-in-training",
        "error" if sure else "warning",
        where,
        seen + ", so that they do not do what training needs of them",
        "call model.train() at the start of every epoch, and model.eval() only around an evaluation",
    )


def _changing(module: nn.Module) -> bool:
    """Whether it does something else in train mode."""
    return isinstance(module, _BatchNorm | _DropoutNd)


def _frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters(recurse=False))
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _idle(module: nn.Module) -> bool:
    return isinstance(module, _DropoutNd) and module.p == 0


def _never_ran(module: nn.Module) -> bool:
    ran = getattr(module, "num_batches_tracked", None)
    return ran is not None and int(ran) == 0


def runs(case: Case) -> Iterator[Finding]:
    """Whether the model takes a batch; what it answers is kept for the other examinations."""
    if any(is_lazy(parameter) for parameter in case.model.parameters()):
        with torch.no_grad():
            case.model(case.batch(LOOK)[0])  # gives the layers their shapes
    model, _ = case.try_out()
    inputs, _ = case.batch(LOOK)
    given, meant = inputs.clone(), [module.training for module in model.modules()]
    single = max(case.data.batch_sizes) == 1
    try:
        seed_everything(case.seed)
        with torch.no_grad():
            outputs = model(inputs)
    except Exception as error:
        yield _explained(case, error)
        return
    if not isinstance(outputs, Tensor):
        yield Finding(
            "model-error", "error", "the outputs", f"the model answers with a {type(outputs).__name__}, not with a tensor",
            "return one tensor (a wrapper module can pick it out of a tuple or a dictionary)",
        )  # fmt: skip
        return
    case.outputs = outputs
    moved = [
        n
        for (n, m), before in zip(model.named_modules(), meant, strict=True)
        if before and not m.training and _changing(m)
    ]
    if moved:
        yield _asleep(moved[0], "forward() itself puts it in eval mode")
    yield from _batches_of_one(case, model, single)
    if inputs.shape != given.shape or not torch.equal(inputs.nan_to_num(), given.nan_to_num()):
        yield Finding(
            "in-place-input",
            "error",
            "the input of forward",
            f"the forward pass wrote into its input (mean change ≈ {float((inputs - given).abs().float().mean()):.3g})",
            "no operation in place on the input (x += …, x.mul_(…), ReLU(inplace=True) as the first layer): x = x * …",
        )


def _explained(case: Case, error: Exception) -> Finding:
    message = re.sub(r"\s+", " ", str(error)).strip()[:300]
    inputs = case.inputs
    shape = f"(B, {', '.join(map(str, inputs.shape[1:]))})"
    seen = f"{type(error).__name__}: {message}"
    if "more than 1 value per channel" in message:
        return Finding(
            "batchnorm-batch-of-one", "error", "a batch norm", seen, "larger batches, drop_last=True, or group norm"
        )
    if not inputs.is_floating_point():
        advice = f"inputs are {inputs.dtype}: convert them to floats in [0, 1] (ToDtype(torch.float32, scale=True))"
    elif "expected input" in message and "channels" in message:
        advice = f"inputs are {shape}: give the first layer as many input channels as the images have"
    elif "mat1 and mat2" in message:
        advice = f"the features that arrive at a linear layer are not as many as it takes (inputs are {shape}); " \
                 "an adaptive pool before flatten(1) makes their number independent of the image size"  # fmt: skip
    elif "dtype" in message or "type" in message:
        advice = f"inputs are {inputs.dtype}; model and inputs must have the same dtype"
    elif "device" in message:
        advice = "model, inputs and buffers must be on one device: register tensors of the model as buffers"
    else:
        advice = f"run model(images) on one batch {shape} and read the traceback from its end"
    return Finding("model-error", "error", "the forward pass", seen, advice)


def _batches_of_one(case: Case, model: nn.Module, single: bool) -> Iterator[Finding]:
    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training]
    ones = case.data.batch_sizes.count(1)
    if not norms or not ones:
        return
    lone, _ = case.batch(1)
    fresh, _ = case.try_out()
    try:
        with torch.no_grad():
            fresh(lone)
        seen, raises = "it normalises over the places of a single image: what all images share is lost", False
    except ValueError as error:
        seen, raises = f"training stops there with: {str(error)[:120]}", True
    yield Finding(
        "batchnorm-batch-of-one",
        "error" if single or raises else "warning",
        norms[0][0],
        f"{ones} of {len(case.data.batch_sizes)} batches hold one sample, and the model has {len(norms)} batch norms; {seen}",
        "larger batches, drop_last=True for a last batch of one, or group norm, which does not look at other samples",
    )


def input_scale(case: Case) -> Iterator[Finding]:
    """The numbers that meet the first weights. The experiments go on with standardised inputs where they are ill."""
    if case.outputs is None or not case.inputs.is_floating_point():
        return
    model, _ = case.try_out()
    module, values = entering_first_weights(model, case.batch(LOOK)[0])
    if not values.is_floating_point() or isinstance(module, nn.Embedding):
        return
    if module is not None and isinstance(module.weight, Tensor) and module.weight.ndim == 1:
        return  # a norm: the scale does not matter
    values = values.float()
    mean, std, size = float(values.mean()), float(values.std()), float(values.square().mean().sqrt())
    small, large = size < 0.03, size > 10
    off = abs(mean) > 6 * std and abs(mean) > 1
    if not (small or large or off) or std < 1e-7 * (abs(mean) + 1e-30):  # constant input is another fault
        return
    yield Finding(
        "input-scale",
        "error",
        "the inputs of the first weights",
        f"mean ≈ {mean:.3g}, standard deviation ≈ {std:.3g}; weights are initialised for inputs around 0 ± 1",
        "scale bytes to [0, 1] once (ToDtype(torch.float32, scale=True)), then Normalize with the training set's mean and std"
        if large or off else "the inputs were divided too often: scale to [0, 1] once, then Normalize",
    )  # fmt: skip
    case.inputs = (case.inputs - case.inputs.mean()) / case.inputs.std().clamp(min=1e-12)


def same_twice(case: Case) -> Iterator[Finding]:
    """The same images twice in eval mode, with other random numbers."""
    if case.outputs is None:
        return
    model, _ = case.try_out()
    model.eval()
    inputs, _ = case.batch(16)
    answers, layers = [], []
    for seed in range(case.seed, case.seed + 4):
        seed_everything(seed)
        records: list[tuple[str, Tensor]] = []
        handles = [
            module.register_forward_hook(
                lambda _, args, output, name=name, records=records: records.append((name, output.detach().clone()))
                if isinstance(output, Tensor) else None
            )
            for name, module in model.named_modules() if name
        ]  # fmt: skip
        with torch.no_grad():
            answers.append(model(inputs.clone()))
        for handle in handles:
            handle.remove()
        layers.append(records)
    other = next((number for number, answer in enumerate(answers) if _differ(answers[0], answer)), None)
    if other is None:
        return
    pairs = zip(layers[0], layers[other], strict=False)
    culprit = next((a[0] for a, b in pairs if _differ(a[1], b[1])), "forward")
    yield Finding(
        "nondeterministic-forward",
        "error",
        culprit,
        f"the same images get answers that differ by ≈ {float((answers[0] - answers[other]).abs().amax()):.3g} in eval mode",
        "random parts must look at self.training: nn.Dropout instead of F.dropout(x), noise only in training",
    )


def _differ(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and not torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True)


def activations(case: Case) -> Iterator[Finding]:
    """What flows through the layers: does it explode, die, or saturate."""
    bad = [name for name, p in case.model.named_parameters() if not torch.isfinite(p).all()]
    if bad:
        seen = f"{len(bad)} parameters hold NaN or infinity, the first is {bad[0]}"
        yield Finding(
            "nonfinite-parameter", "error", bad[0], seen, "go back to a checkpoint from before, or initialise again"
        )
        return
    if case.outputs is None:
        return
    model, _ = case.try_out()
    inputs, _ = case.batch(LOOK)
    seed_everything(case.seed)
    outputs, looks = look_at_layers(model, inputs)
    case.looks = looks
    weighted = [look for look in looks if look.weighted]
    broken = next((look for look in looks if look.rms != look.rms), None)
    if broken is not None or not torch.isfinite(outputs).all():
        yield _exploding(broken.name if broken else "the outputs", "it answers with NaN or infinity")
        return
    hidden = weighted[:-1]
    if hidden:
        start = max(hidden[0].input_rms, 1e-12)
        largest = max(hidden, key=lambda look: look.rms)
        growth, depth = largest.rms / start, hidden.index(largest) + 1
        if growth > 100 or (growth > 30 and growth ** (1 / depth) > 1.8 and depth > 1):
            seen = f"from ≈ {start:.3g} at the input to ≈ {largest.rms:.3g} (root mean square) after {depth} layers with weights"
            yield _exploding(largest.name, seen)
    if (dead := max(looks, key=lambda look: look.dead, default=None)) is not None and dead.dead > 0.5:
        before = looks[max(0, looks.index(dead) - 1)].name
        yield Finding(
            "dead-units",
            "error" if dead.dead >= 0.9 else "warning",
            before,
            f"{dead.dead:.0%} of the units that enter {dead.name} are 0 for all {len(inputs)} samples: no gradient passes them",
            "look at the biases and the scale of the weights before this ReLU, and at the learning rate; Kaiming "
            "initialisation with biases of 0, or LeakyReLU or GELU",
        )
    if (flat := max(looks, key=lambda look: look.saturated, default=None)) is not None and flat.saturated > 0.4:
        yield Finding(
            "saturated-activations",
            "error" if flat.saturated > 0.6 else "warning",
            flat.name,
            f"{flat.saturated:.0%} of its values lie at the flat ends of a sigmoid or tanh, where the slope is almost 0",
            "smaller weights before it (Xavier initialisation), standardised inputs, or ReLU-like activations with batch norm",
        )


def _exploding(where: str, seen: str) -> Finding:
    return Finding(
        "exploding-activations",
        "error",
        where,
        seen,
        "Kaiming initialisation for ReLU layers, batch or layer norm, a smaller scale on residual branches",
    )
