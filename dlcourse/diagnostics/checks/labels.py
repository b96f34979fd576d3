"""Examinations of the labels: their range, their balance, and whether they have to do with the images at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dlcourse.diagnostics.case import Case
from dlcourse.diagnostics.report import Finding

ENOUGH = 100
"""Samples below which nothing is said about the relation of labels and images."""


def label_range(case: Case) -> Iterator[Finding]:
    """Labels outside 0 … K−1. The experiments go on without them."""
    if (k := case.classes) is None:
        return
    labels = _labels(case)
    if not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < k:
        return
    outside = int(((labels < 0) | (labels >= k)).sum())
    if low == 1 and high == k:
        yield Finding(
            "label-shift",
            "error",
            "the labels",
            f"labels run from 1 to {k}, the classes of the model from 0 to {k - 1}",
            "count from 0: labels − 1",
        )
        case.targets = case.targets - 1
        return
    yield Finding(
        "label-range",
        "error",
        "the labels",
        f"labels run from {low} to {high}, the classes of the model from 0 to {k - 1}: {outside} of {len(labels)} lie outside",
        f"map the classes to 0 … {k - 1}, or give the model {high + 1} outputs; a label that is to be left out needs the loss's ignore_index",
    )
    inside = ((case.targets >= 0) & (case.targets < k)).reshape(len(case.targets), -1).all(dim=1)
    if inside.any():
        case.inputs, case.targets = case.inputs[inside], case.targets[inside]
    else:
        case.targets = case.targets.clamp(0, k - 1)


def balance(case: Case) -> Iterator[Finding]:
    """Classes that are missing, and classes of very different sizes."""
    stream = case.data.stream
    if case.outputs is not None and case.classes is None and not case.metric and case.targets.is_floating_point():
        few = case.targets.ndim <= 2 and case.targets[0].numel() == stream.shape[1]  # answers, not the pixels of a mask
        if few and case.outputs.shape[1:] == case.targets.shape[1:] and bool(((stream == 0) | (stream == 1)).all()):
            yield from _yes_and_no(case, stream)
        return
    if (k := case.classes) is None or k < 2:
        return
    labels = _labels(case).long()
    labels = labels - 1 if int(labels.min()) == 1 and int(labels.max()) == k else labels
    labels = labels[(labels >= 0) & (labels < k)]
    if len(labels) < 4 * k and len(labels) < 500:
        return
    counts = torch.bincount(labels, minlength=k)
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing and case.data.complete:
        few = len(missing) < 0.5 * k and len(labels) >= 20 * k
        yield _missing(", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else ""), few,
                       f"{len(missing)} of the model's {k} classes have no sample among {len(labels)}")  # fmt: skip
        if missing == [0]:
            yield Finding(
                "label-shift", "warning", "the labels", f"class 0 never occurs, and all of 1 … {k - 1} do: labels seem to count from 1",
                f"labels − 1, and a model of {k - 1} classes",
            )  # fmt: skip
    present = counts[counts > 0]
    if len(present) > 1 and int(present.max()) >= 30 and (ratio := float(present.max() / present.min())) >= 8:
        yield _unbalanced(
            case, f"class {int(counts.argmax())}", ratio,
            f"the largest class has {int(present.max())} samples, the smallest {int(present.min())}; always guessing the largest "
            f"is right in {float(counts.max() / counts.sum()):.0%}",
        )  # fmt: skip


def _yes_and_no(case: Case, stream: Tensor) -> Iterator[Finding]:
    """The same for answers of yes and no, one or several a sample."""
    if len(stream) < 100:
        return
    positive = stream.sum(dim=0)
    lonely = (positive == 0).nonzero().flatten().tolist()
    if lonely and case.data.complete:
        yield _missing(
            ", ".join(map(str, lonely[:5])),
            len(stream) >= 200,
            f"{len(lonely)} of {len(positive)} labels are never 1 in {len(stream)} samples",
        )
    rare = torch.where(positive == 0, torch.inf, torch.minimum(positive, len(stream) - positive).clamp(min=1))
    label = int(rare.argmin())
    if (ratio := float((len(stream) - rare[label]) / rare[label])) >= 15 and int(positive[label]) > 0:
        seen = f"of {len(stream)} samples {int(positive[label])} say yes; always giving the usual answer is right in {ratio / (1 + ratio):.1%}"
        yield _unbalanced(case, f"label {label}", ratio, seen)


def _missing(names: str, sure: bool, seen: str) -> Finding:
    remedy = "check the class mapping and the split, or give the model fewer classes"
    return Finding("class-missing", "error" if sure else "warning", f"class {names}", seen, remedy)


def _unbalanced(case: Case, where: str, ratio: float, seen: str) -> Finding:
    weighted = _has_weights(case.loss_fn)
    return Finding(
        "class-imbalance",
        "info" if weighted else "error" if ratio >= 50 else "warning",
        where,
        seen,
        "the loss is weighted, which is one way; judge by macro averages, not by accuracy" if weighted
        else "class weights in the loss or a balanced sampler (one of the two), and macro averages instead of accuracy",
    )  # fmt: skip


def _has_weights(loss_fn: object) -> bool:
    return any(isinstance(getattr(loss_fn, name, None), Tensor) for name in ("weight", "pos_weight", "alpha"))


def _labels(case: Case) -> Tensor:
    """All class labels that were seen, without those that the loss leaves out: of images in the order of the loader, of
    pixels those of the drawn samples."""
    labels = case.data.stream[:, 0] if case.targets.ndim == 1 else case.data.targets.flatten()
    ignored = getattr(case.loss_fn, "ignore_index", None)
    return labels if ignored is None else labels[labels != ignored]


def target_scale(case: Case) -> Iterator[Finding]:
    """Numbers to predict that lie far from 0 ± 1, where a new network answers."""
    targets = case.targets
    if case.outputs is None or not targets.is_floating_point() or case.outputs.shape[0] == 0:
        return
    if targets.numel() < 8 or not torch.isfinite(targets).all():
        return
    mean, std = float(targets.mean()), float(targets.std())
    if std > 20 or abs(mean) > 20 or (0 < std < 0.01 and abs(mean) < 0.5):
        large = max(std, abs(mean)) > 20
        yield Finding(
            "target-scale",
            "error" if max(std, abs(mean)) > 30 else "warning",
            "the targets",
            f"mean ≈ {mean:.3g}, standard deviation ≈ {std:.3g}",
            f"standardise them by the training set's mean and deviation, and undo it in the prediction: the first steps are "
            f"{'spent on reaching their size' if large else 'far larger than what there is to learn'}",
        )


def relation(case: Case) -> Iterator[Finding]:
    """Whether anything in an image tells its label: ridge regressions, each sample predicted without itself.

    Three views of an image (pixels, likeness of whole images, textures) are held against shuffled targets. When none of
    them beats chance, labels of neighbours are tried.
    """
    inputs, targets = case.inputs, case.targets
    if len(inputs) < ENOUGH or not inputs.is_floating_point() or (inputs == inputs[:1]).all():
        return
    if (found := _relation(inputs, targets)) is None:
        return
    strength, fit = found
    if strength > 3:
        if fit < 0.25:
            yield Finding(
                "label-noise",
                "info",
                "images and labels",
                f"labels are only weakly tied to simple views of the images (correlation ≈ {fit:.2f})",
                "hard images look like this, and so do many wrong labels: look at 50 of them with their labels",
            )
        return
    for who, images, shifted in _paired_one_off(case):
        shift = _relation(images, shifted)
        if shift is not None and shift[0] > 6:
            yield Finding(
                "label-shift",
                "error",
                "images and labels",
                f"an image says nothing about its own label (≈ {strength:.1f} sigma), but much about that of the sample {who} it "
                f"(≈ {shift[0]:.1f} sigma)",
                "images and labels are paired one off: build both lists from the same rows, in one place",
            )
            return
    yield Finding(
        "label-noise",
        "error" if len(inputs) >= 2 * ENOUGH else "warning",
        "images and labels",
        f"no view of the images tells the labels better than shuffled labels would (best of three ≈ {strength:.1f} sigma; "
        f"{len(inputs)} samples)",
        "check the pairing of images and labels: a sort, shuffle or filter that was done to one of the two lists",
    )


def _paired_one_off(case: Case) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Images with the labels of their neighbours: in the data set as it is stored, and inside the batches."""
    dataset: Any = getattr(case.loader, "dataset", None)
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        items = [dataset[i] for i in range(min(len(dataset), 300))]
        if len(items) >= ENOUGH and all(isinstance(item[0], Tensor) and item[0].is_floating_point() for item in items):
            images, labels = (
                torch.stack([item[0] for item in items]),
                torch.stack([torch.as_tensor(item[1]) for item in items]),
            )
            yield "before", images[1:], labels[:-1]
            yield "after", images[:-1], labels[1:]
    yield "before", case.data.inputs, case.data.neighbours[0]
    yield "after", case.data.inputs, case.data.neighbours[1]


def _relation(inputs: Tensor, targets: Tensor) -> tuple[float, float] | None:
    """How well the best of the views predicts the targets: beyond shuffled ones, in standard deviations of these, and
    as a correlation of predicted and true."""
    wanted = _as_numbers(targets)
    if wanted is None:
        return None
    generator = torch.Generator().manual_seed(0)
    shuffled = [wanted[torch.randperm(len(wanted), generator=generator)] for _ in range(40)]
    best, fit = -torch.inf, -1.0
    for kernel in _kernels(inputs.float(), generator):
        scores = _left_out_fits(kernel, [wanted, *shuffled])
        best = max(best, float((scores[0] - scores[1:].mean()) / scores[1:].std().clamp(min=1e-6)))
        fit = max(fit, float(scores[0]))
    return best, fit


def _as_numbers(targets: Tensor) -> Tensor | None:
    """Targets as columns of mean 0, (n, ≤ 64); None when they are all the same."""
    if targets.ndim == 1 and not targets.is_floating_point():
        values, index = targets.unique(return_inverse=True)
        columns = nn.functional.one_hot(index).float() if len(values) <= 256 else index[:, None].float()
    else:
        columns = targets.reshape(len(targets), -1).float()
        columns = columns[:, :: max(1, columns.shape[1] // 64)]
    columns = columns - columns.mean(dim=0)
    varying = columns.std(dim=0) > 1e-8
    return columns[:, varying] if varying.any() else None


def _kernels(inputs: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Likenesses of all pairs of samples (n, n), by pixels, by whole images, and by the textures in them."""
    flat = inputs.flatten(1)
    if inputs.ndim == 4:
        small = nn.functional.adaptive_avg_pool2d(inputs, (min(8, inputs.shape[2]), min(8, inputs.shape[3]))).flatten(1)
        flat = small
    flat = (flat - flat.mean(dim=0)) / (flat.std(dim=0) + 1e-3 * flat.std() + 1e-12)
    linear = flat @ flat.T / flat.shape[1]
    yield linear
    distances = (linear.diagonal()[:, None] + linear.diagonal()[None] - 2 * linear).clamp(min=0)
    yield torch.exp(-distances / distances.median().clamp(min=1e-12))
    if inputs.ndim == 4 and min(inputs.shape[2:]) >= 5:
        filters = torch.randn(48, inputs.shape[1], 5, 5, generator=generator)
        filters = filters - filters.mean(dim=(2, 3), keepdim=True)
        scale = float(inputs.std()) + 1e-12
        answers = nn.functional.conv2d(inputs / scale, filters).relu().flatten(2)
        textures = torch.cat([answers.mean(dim=2), answers.std(dim=2)], dim=1)
        textures = (textures - textures.mean(dim=0)) / (textures.std(dim=0) + 1e-6)
        yield torch.exp(-(torch.cdist(textures, textures) ** 2) / (2 * textures.shape[1]))


def _left_out_fits(kernel: Tensor, several: list[Tensor]) -> Tensor:
    """For each of several targets: how well kernel ridge regression predicts each sample from all the others.

    The correlation of prediction and target over all columns. Leaving one out needs no refit: the residual is
    (K + λI)⁻¹y, divided by the diagonal of the inverse.
    """
    kernel = kernel.double() + 1.0  # with an intercept
    ridge = 0.01 * float(kernel.diagonal().sum())
    inverse = torch.linalg.inv(kernel + ridge * torch.eye(len(kernel), dtype=torch.float64))
    scores = []
    for wanted in several:
        wanted = wanted.double()
        predicted = wanted - inverse @ wanted / inverse.diagonal()[:, None]
        scores.append((predicted * wanted).sum() / (predicted.norm() * wanted.norm()).clamp(min=1e-12))
    return torch.stack(scores)
