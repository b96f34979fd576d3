"""Exercises on exported models (chapter 17): equality over batch sizes, and the mask of a pruned network.

Source of the mask: Han et al. 2015, Learning both weights and connections for efficient neural networks (arXiv:1506.02626).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register


@torch.no_grad()
def largest_difference(
    model: nn.Module, exported: Callable[[Tensor], Tensor], images: Tensor, batch_sizes: Sequence[int]
) -> dict[int, float]:
    """For each batch size the largest |difference| of one logit between the model in eval mode and what was exported."""
    was_training = model.training
    model.eval()
    found = {}
    for size in batch_sizes:
        ours, theirs = model(images[:size]), exported(images[:size])  # (B, K) each
        if ours.shape != theirs.shape:
            raise ValueError(f"batch size {size}: {tuple(theirs.shape)} instead of {tuple(ours.shape)}")
        found[size] = (ours - theirs).abs().max().item()
    model.train(was_training)
    return found


SIZES = (1, 2, 5)


def _network() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Dropout(0.5))


def _plain(model: nn.Sequential) -> Callable[[Tensor], Tensor]:
    """The exported model, equal but for what a case adds: a computation of its own that knows no mode."""
    linear = copy.deepcopy(model[1])
    return lambda images: linear(images.flatten(1)).detach()


def _off_by(size: int, amount: float) -> Callable[[Tensor], Tensor]:
    """What is added to the logits: to one logit of the last image, half of it taken from one of the first; most at `size`."""

    def add(logits: Tensor) -> Tensor:
        logits = logits.clone()
        change = amount if len(logits) == size else amount * len(logits) / 10
        logits[-1, 1] += change
        logits[0, 0] -= change / 2
        return logits

    return add


def check_largest_difference(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 2, 2, generator=generator)
    for size, amount in ((1, 0.5), (5, -2.0), (2, 0.25), (4, 0.0)):
        for training in (False, True):
            _one_comparison(answer, images, _off_by(size, amount), training, f"off by {amount} for batches of {size}, by less for others")
    _refused_or_named(answer, images)
    return "differences of both signs at one batch size only, both modes and the mode restored, nan, a wrong shape"


def _one_comparison(answer: Answer, images: Tensor, change: Callable[[Tensor], Tensor], training: bool, what: str) -> None:
    model = _network().train(training)
    exact = _plain(model)

    def exported(batch: Tensor) -> Tensor:
        return change(exact(batch))

    got = answer(model, exported, images, SIZES)
    given = f"a model in {'training' if training else 'eval'} mode, an export that is {what}, 6 images and the sizes {SIZES}"
    if model.training != training or model[2].training != training:
        raise Mistake(f"Given {given}, the model is left in {'eval' if training else 'training'} mode: put its mode back.")
    want = largest_difference(model, exported, images, SIZES)
    if isinstance(got, dict) and any(isinstance(value, Tensor) and value.requires_grad for value in got.values()):
        raise Mistake("The differences carry a gradient: compute them under torch.no_grad(), and give plain floats.")
    with torch.no_grad():
        mistakes = _difference_mistakes(model, exported, images)
    compare(got, want, given=given, mistakes=mistakes, rtol=1e-3, atol=1e-5)


def _refused_or_named(answer: Answer, images: Tensor) -> None:
    model = _network().eval()
    exact = _plain(model)

    def with_nan(batch: Tensor) -> Tensor:
        logits = exact(batch)
        logits[0, 0] = math.nan
        return logits

    got = answer(model, with_nan, images, (2,))
    if not isinstance(got, dict) or not math.isnan(float(got.get(2, 0.0))):
        raise Mistake(f"An export that gives nan is reported as {describe(got)}: Python's max loses a nan, torch's keeps it.")
    try:
        got = answer(model, lambda batch: exact(batch)[:, :1], images, (2,))
    except Mistake as error:
        if "ValueError" in str(error):
            return
        raise Mistake(f"For an export with logits (2, 1) where the model gives (2, 3), ValueError is asked for. {error}") from None
    raise Mistake(f"An export that gives (2, 1) where the model gives (2, 3) is reported as {describe(got)}: they broadcast. "
                  f"Compare the shapes, and raise ValueError.")  # fmt: skip


def _difference_mistakes(model: nn.Module, exported: Callable[[Tensor], Tensor], images: Tensor) -> dict[str, Callable[[], Any]]:
    def each(number: Callable[[Tensor, Tensor], Any], cut: bool = True) -> Callable[[], Any]:
        def table() -> Any:
            model.eval()
            return {
                size: number(model(images[: size if cut else None]), exported(images[: size if cut else None]))
                for size in SIZES
            }

        return table

    def whole(a: Tensor, b: Tensor) -> float:
        return (a - b).abs().max().item()

    return {
        "forgets the absolute value (model − export)": each(lambda a, b: (a - b).max().item()),
        "forgets the absolute value (export − model)": each(lambda a, b: (b - a).max().item()),
        "takes the mean, in which one wrong logit of many drowns": each(lambda a, b: (a - b).abs().mean().item()),
        "takes the mean of the squares": each(lambda a, b: (a - b).square().mean().item()),
        "takes the sum": each(lambda a, b: (a - b).abs().sum().item()),
        "takes the norm": each(lambda a, b: (a - b).norm().item()),
        "compares the predicted classes: logits are asked for": each(lambda a, b: float((a.argmax(1) != b.argmax(1)).sum())),
        "compares all images each time: take the first `size` of them": each(whole, cut=False),
        "runs all images once and cuts the answers: a batch of `size` is to be run":
            lambda: {size: whole(model(images)[:size], exported(images)[:size]) for size in SIZES},
        "compares the first image only": each(lambda a, b: whole(a[:1], b[:1])),
        "compares probabilities: logits are asked for": each(lambda a, b: whole(a.softmax(1), b.softmax(1))),
        "divides by the logit: the difference itself is asked for": each(lambda a, b: ((a - b) / a).abs().max().item()),
        "gives verdicts: the differences are asked for": each(lambda a, b: bool(torch.allclose(a, b))),
        "gives one number for all sizes: one for each, by its size, is asked for": lambda: max(each(whole)().values()),
        "gives the numbers without the sizes: a dict is asked for": lambda: list(each(whole)().values()),
    }  # fmt: skip


def magnitude_mask(weights: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """True for the weights that stay: of all tensors together, round(sparsity · n) of the least magnitude go."""
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    keep = torch.ones(len(magnitudes), dtype=torch.bool)
    keep[magnitudes.argsort()[: round(sparsity * len(magnitudes))]] = False
    parts = keep.split([weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def check_magnitude_mask(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    small = [torch.tensor([[0.5, -3.0], [1.0, 0.25]]), torch.tensor([-0.125, 2.0, 4.0])]
    large = [scale * torch.randn(*shape, generator=generator) for scale, shape in ((0.1, (4, 3, 3, 3)), (1.0, (7, 11)), (3.0, (5,)))]
    tied = [torch.tensor([1.0, -1.0, 1.0, 1.0]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])]
    for weights, sparsities in ((small, (0.4, 0.7, 0.25)), (large, (0.5, 0.9, 0.333)), (tied, (0.5, 0.3)), (large, (0.0, 1.0))):
        for sparsity in sparsities:
            _one_mask(answer, weights, sparsity)
    layers = [nn.Conv2d(2, 3, 3).weight, nn.Linear(4, 5).weight]
    _one_mask(answer, layers, 0.4)
    return "magnitudes over all tensors together, exact counts, equal magnitudes, sparsity 0 and 1, parameters of layers"


def _one_mask(answer: Answer, weights: list[Tensor], sparsity: float) -> None:
    got, want = answer(weights, sparsity), magnitude_mask(weights, sparsity)
    given = f"{describe(weights)} and sparsity {sparsity}"
    if not isinstance(got, list | tuple) or not all(isinstance(mask, Tensor) for mask in got):
        raise Mistake(f"Given {given}, it returns {describe(got)}; a list of masks is asked for.")
    shapes = [tuple(mask.shape) for mask in got]
    if shapes != [tuple(weight.shape) for weight in weights]:
        raise Mistake(f"Given {given}, the masks have the shapes {shapes}: give each the shape of its weight.")
    if any(mask.dtype != torch.bool for mask in got):
        raise Mistake(f"Given {given}, a mask has dtype {next(m.dtype for m in got if m.dtype != torch.bool)}; torch.bool is asked for.")
    keep, magnitudes = (torch.cat([t.detach().flatten() for t in tensors]) for tensors in (got, [w.abs() for w in weights]))
    gone = int((~keep).sum())
    if gone == round(sparsity * len(keep)) and not (gone and keep.any() and magnitudes[~keep].max() > magnitudes[keep].min()):
        return
    named = _name_of_mask(list(got), weights, sparsity)
    raise Mistake(
        f"{named}Given {given}, {gone} of {len(keep)} weights go, of magnitudes up to "
        f"{magnitudes[~keep].max().item() if gone else 0:.4g}; "
        f"{round(sparsity * len(keep))} should, and none larger than one that stays. "
        f"Expected for example {describe(*want)}."
    )


def _name_of_mask(got: list[Tensor], weights: list[Tensor], sparsity: float) -> str:
    total = sum(weight.numel() for weight in weights)
    flat = torch.cat([weight.detach().flatten() for weight in weights])

    def by(values: Tensor, count: int) -> list[Tensor]:
        keep = torch.ones(total, dtype=torch.bool)
        keep[values.argsort()[:count]] = False
        return [part.view(w.shape) for part, w in zip(keep.split([w.numel() for w in weights]), weights, strict=True)]

    def each_layer() -> list[Tensor]:
        return [magnitude_mask([weight], sparsity)[0] for weight in weights]

    count = round(sparsity * total)
    cut = flat.abs().sort().values[max(count - 1, 0)]
    named = {
        "prunes each tensor by itself: the least of all together are to go": each_layer,
        "marks the weights that go: True is for those that stay": lambda: [~mask for mask in magnitude_mask(weights, sparsity)],
        "removes the largest": lambda: by(-flat.abs(), count),
        "compares the weights with their sign: a large negative one matters": lambda: by(flat, count),
        "takes sparsity for the share that stays": lambda: by(flat.abs(), total - count),
        "cuts the count's fraction off: round it": lambda: by(flat.abs(), int(sparsity * total)),
        "rounds the count up: round it to the nearest": lambda: by(flat.abs(), math.ceil(sparsity * total)),
        "cuts at a threshold, so that of equal magnitudes all go": lambda: [w.abs() > cut for w in weights],
        "cuts at a threshold, so that of equal magnitudes all stay": lambda: [w.abs() >= cut for w in weights],
    }
    for sentence, wrong in named.items():
        if all(torch.equal(a, b) for a, b in zip(got, wrong(), strict=True)):
            return f"It {sentence}. "
    return ""


register(
    "export.largest_difference",
    largest_difference,
    check_largest_difference,
    difficulty=2,
    importance=5,
    minutes=15,
    hints=(
        "For each size both get images[:size]. The exported one knows no mode; the model has to be in eval mode, and back afterwards.",
        "Check the shapes before you subtract: (2, 1) and (2, 3) broadcast without a word.",
        "(ours - theirs).abs().max().item() under torch.no_grad(), stored under the size.",
    ),
)
register(
    "export.magnitude_mask",
    magnitude_mask,
    check_magnitude_mask,
    difficulty=3,
    importance=4,
    minutes=20,
    hints=(
        "One ranking for all tensors: put all magnitudes into one vector first.",
        "A threshold removes too many or too few where magnitudes are equal; argsort gives the first n exactly.",
        "keep[magnitudes.argsort()[:n]] = False, then keep.split([w.numel() for w in weights]) and view each as its weight.",
    ),
)
