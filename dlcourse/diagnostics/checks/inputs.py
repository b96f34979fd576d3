"""Examinations of what the loader gives, before the model sees it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from dlcourse.diagnostics.case import Case, draw, fingerprints
from dlcourse.diagnostics.layers import entering_first_weights
from dlcourse.diagnostics.report import Finding

CHANNELS = (1, 3, 4)


def finite(case: Case) -> Iterator[Finding]:
    """NaN or infinity among the inputs and the targets. The experiments go on with the samples that are finite."""
    data = case.data
    for code, what, places in (
        ("nonfinite-input", "inputs", data.bad_inputs),
        ("nonfinite-target", "targets", data.bad_targets),
    ):
        if places:
            yield Finding(
                code,
                "error",
                places[0],
                f"{len(places)} of {len(data.stream)} samples have {what} that are NaN or infinite",
                "find where they come from (a division by a std of 0, a broken file) and repair or leave out the samples; "
                "one of them makes every weight NaN",
            )
    good = torch.isfinite(_flat(case.inputs)).all(dim=1) & torch.isfinite(_flat(case.targets)).all(dim=1)
    if good.any():
        case.inputs, case.targets = case.inputs[good], case.targets[good]
    else:
        case.inputs, case.targets = case.inputs.nan_to_num(0, 0, 0), case.targets.nan_to_num(0, 0, 0)


def channel_order(case: Case) -> Iterator[Finding]:
    """Images (B, H, W, C) where PyTorch wants (B, C, H, W), and channels that were mixed up by a reshape."""
    inputs = case.inputs
    if inputs.ndim != 4:
        return
    shape = tuple(inputs.shape[1:])
    met = _first_met(case, inputs)  # what the first weights get: the model may bring the axes into order itself
    as_given = met is None or met.ndim != 4 or met.shape[1:] == shape
    if as_given and (axis := _channel_axis(shape)) is not None:
        yield Finding(
            "channel-order",
            "error" if met is None or met.ndim == 4 else "warning",
            "the shape of a batch",
            f"a batch is (B, {', '.join(map(str, shape))}); the channels seem to be axis {axis}, PyTorch takes them from axis 1",
            "images.permute(0, 3, 1, 2) for (B, H, W, C); never reshape or view, which mix the pixels" if axis == 3
            else "permute the axes to (B, C, H, W), once and in one place",
        )  # fmt: skip
        case.inputs = inputs.movedim(axis, 1).contiguous()
        return
    images = inputs if met is None or met.ndim != 4 else met.cpu()
    if images.shape[1] in (3, 4) and min(images.shape[2:]) >= 8 and (ratio := _roughness(images.float())) > 1.1:
        yield Finding(
            "channel-order",
            "error",
            "the pixels of an image",
            f"read as (H, W, C) from memory the images are much smoother (neighbours differ ≈ {ratio:.1f} times less)",
            "the images were (H, W, C) and were given their shape by reshape or view; use permute(2, 0, 1) instead",
        )


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of a batch that looks like that of the channels, where it is not axis 1; None otherwise."""
    for axis, sizes in ((3, CHANNELS), (2, (3, 4))):  # (B, C, 1, T) is how signals are given to 2-d convolutions
        rest = sorted(size for place, size in enumerate(shape, start=1) if place != axis)
        if shape[axis - 1] in sizes and rest[0] >= 8 and rest[1] <= 4 * rest[0]:
            return axis
    return None


def _roughness(images: Tensor) -> float:
    """How much rougher images (B, C, H, W) are than the same memory read as (B, H, W, C): below 1 for images."""
    b, c, h, w = images.shape
    other = images.contiguous().reshape(b, h, w, c).permute(0, 3, 1, 2)
    return _differences(images) / max(_differences(other), 1e-12)


def _differences(images: Tensor) -> float:
    """The mean difference of neighbours, down and across."""
    down, across = images[:, :, 1:] - images[:, :, :-1], images[..., 1:] - images[..., :-1]
    return float(down.abs().mean() + across.abs().mean())


def _first_met(case: Case, inputs: Tensor) -> Tensor | None:
    """What goes into the first weights; None when the model does not run."""
    model, _ = case.try_out()
    try:
        return entering_first_weights(model, inputs[:64].to(case.device, copy=True))[1]
    except Exception:
        return None


def constant(case: Case) -> Iterator[Finding]:
    """Images without content, and images that are all the same."""
    inputs = _flat(case.inputs.float())
    if not torch.isfinite(inputs).all():
        return
    size = inputs.abs().amax().clamp(min=1e-12)
    spread = inputs.amax(dim=1) - inputs.amin(dim=1)
    empty = int((spread <= 1e-6 * size).sum()) if inputs.shape[1] >= 16 else 0  # a row of a small table may well be
    if len(inputs) > 1 and bool((inputs.std(dim=0) <= 1e-6 * size).all()):
        seen = f"all {len(inputs)} samples looked at are the same"
        yield Finding(
            "constant-input", "error", "all inputs", seen, "look at a batch as pictures; check the reading of the files"
        )
    elif empty > 0.05 * len(inputs):
        yield Finding(
            "constant-input",
            "error" if empty > 0.3 * len(inputs) else "warning",
            "inputs of one value",
            f"{empty} of {len(inputs)} samples hold one single value",
            "look at these samples as pictures: a failed read, a mask of zeros, or a crop beside the object",
        )
    elif case.inputs.ndim == 4:
        channels = case.inputs.float().flatten(2).std(dim=(0, 2))  # over samples and places: (C,)
        dead = (channels <= 1e-6 * size).nonzero().flatten().tolist()
        if dead:
            seen = f"channel {', '.join(map(str, dead))} holds one value in all samples"
            yield Finding(
                "constant-input", "warning", "a channel", seen, "leave the channel out, or find what emptied it"
            )


def duplicates(case: Case) -> Iterator[Finding]:
    """The same image several times, images of the validation set, and labels that can be read off a pixel."""
    prints = _stored(case.loader) if _draws_by_itself(case.loader) else case.data.fingerprints
    if not _few_are_possible(case.inputs):
        copies = len(prints) - len(set(prints))
        if copies > 0.02 * len(prints):
            share = copies / len(prints)
            yield Finding(
                "duplicate-or-leaking-data",
                "error" if share > 0.2 else "warning",
                "within the loader",
                f"{copies} of {len(prints)} samples of one pass are copies of another (mirror images counted)",
                "remove duplicates before the split, or the same image is learned by heart and then tested",
            )
    if case.val_loader is not None:
        validation = draw(case.val_loader, case.seed)
        both = sum(name in set(prints) for name in validation.fingerprints)
        if both:
            yield Finding(
                "duplicate-or-leaking-data",
                "error" if both > 0.01 * len(validation.fingerprints) else "warning",
                "between training and validation",
                f"{both} of {len(validation.fingerprints)} validation samples are training samples too",
                "split first and by groups (object, patient, film), then augment; check that both loaders do not read one folder",
            )
    if (place := _label_in_a_value(case)) is not None:
        yield Finding(
            "duplicate-or-leaking-data",
            "warning",
            f"value {place} of each sample",
            "within a class it is always the same, and it differs between classes: it gives the label away",
            "look for a mark, a border or an id that was written into the images, and remove it",
        )


def _draws_by_itself(loader: Any) -> bool:
    """Whether its sampler may give a sample several times on purpose."""
    if not hasattr(getattr(loader, "dataset", None), "__len__"):
        return False
    sampler = getattr(loader, "sampler", None)
    plain = isinstance(sampler, SequentialSampler) or (isinstance(sampler, RandomSampler) and not sampler.replacement)
    return isinstance(sampler, Sampler) and not plain


def _stored(loader: Any) -> list[bytes]:
    """The fingerprints of the first samples of the data set behind the loader."""
    dataset = loader.dataset
    items = (dataset[i][0] for i in range(min(len(dataset), 1000)))
    return [fingerprints(item[None])[0] for item in items if isinstance(item, Tensor)]


def _few_are_possible(inputs: Tensor) -> bool:
    """Whether there are hardly more different samples than were drawn: a table of few yes/no columns repeats itself."""
    flat = _flat(inputs)[:, :256]
    different = sum(math.log(len(column.unique())) for column in flat.T)
    return different < math.log(10 * len(flat))


def _label_in_a_value(case: Case) -> int | None:
    """A position whose value is constant within each class and differs between classes, if there is one."""
    inputs, targets = _flat(case.inputs.float()), case.targets
    if targets.ndim != 1 or targets.is_floating_point() or len(targets) < 64:
        return None
    classes = [c for c in targets.unique() if (targets == c).sum() >= 8]
    if len(classes) < 2:
        return None
    within = torch.stack([inputs[targets == c].std(dim=0) for c in classes]).amax(dim=0)
    between = torch.stack([inputs[targets == c].mean(dim=0) for c in classes]).std(dim=0)
    telling = ((within <= 1e-6) & (between > 1e-3)).nonzero().flatten()
    whole = within.le(1e-6).all()  # then the samples of a class are all alike, which is another fault
    return int(telling[0]) if len(telling) and not whole else None


def order(case: Case) -> Iterator[Finding]:
    """Data that come sorted, or in the same order in every epoch."""
    stream = case.data.stream.double()
    n = len(stream)
    if n >= 32:
        later, earlier = stream[1:, 0], stream[:-1, 0]
        if _whole_numbers(stream) and stream.shape[1] == 1 and len(stream.unique()) <= n / 4:
            shares = torch.tensor([count / n for count in Counter(stream[:, 0].tolist()).values()])
            expected = float((shares**2).sum())
            alike = float((later == earlier).double().mean())
            sigma = (expected * (1 - expected) / (n - 1)) ** 0.5 + 1e-12
            if alike > expected + 0.2 * (1 - expected) and alike > expected + 5 * sigma:
                yield _sorted(
                    f"{alike:.0%} of neighbours have the same label, where a shuffled order would give {expected:.0%}"
                )
                return
        elif stream.shape[1] == 1 and stream.std() > 0:
            alike = float(torch.corrcoef(torch.stack([earlier, later]))[0, 1])
            if alike > max(0.4, 5 / n**0.5):
                yield _sorted(
                    f"targets of neighbours are correlated (≈ {alike:.2f}), where a shuffled order would give 0"
                )
                return
    sequential = isinstance(case.loader, DataLoader) and isinstance(case.loader.sampler, SequentialSampler)
    if sequential and len(case.data.batch_sizes) > 1:
        yield Finding(
            "unshuffled",
            "warning",
            "the loader",
            "a sequential sampler: every epoch has the same batches in the same order",
            "shuffle=True in the training loader (make_loader(…, train=True))",
        )


def _sorted(seen: str) -> Finding:
    return Finding(
        "unshuffled",
        "error",
        "the order of the loader",
        seen,
        "shuffle=True in the training loader: in a sorted order the model forgets one class while it learns the next",
    )


def _whole_numbers(values: Tensor) -> bool:
    return bool((values == values.round()).all())


def _flat(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1)
