"""Exercises on data: statistics over pixels, labels as indices, and a stratified hold-out."""

from __future__ import annotations

import contextlib
import io
from math import ceil
from typing import Any

import numpy as np
import torch

from dlcourse.exercises.checking import Answer, Mistake, NotAttempted, compare, describe
from dlcourse.exercises.registry import register


def channel_statistics(images: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    count, total, squares = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for image in images:
        pixels = image.double().flatten(1)  # (3, H, W) -> (3, H*W)
        count += pixels.shape[1]
        total += pixels.sum(1)
        squares += pixels.square().sum(1)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).sqrt().float()


def check_channel_statistics(answer: Answer) -> str:
    rows, column = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5], [0.5], [0.2]])  # heights that are not the shares of pixels
    two = [pixels.expand(3, -1, -1).clone() for pixels in (rows, column)]
    tint = torch.tensor([0.2, 0.5, 0.9])[:, None, None]
    same_size = [(torch.rand(3, 4, 5) * 0.3 + shift) * tint for shift in (0.0, 0.3, 0.6)]
    mixed = [(torch.rand(3, h, w) * 0.2 + shift) * tint for h, w, shift in ((3, 9, 0.0), (6, 2, 0.4), (8, 7, 0.7))]
    for images in (two, same_size, mixed):
        result = answer(images)
        given = "images of the shapes " + ", ".join(str(tuple(image.shape)) for image in images)
        got = [part.float() for part in _two(result, "tensors of shape (3,) are asked for: the means, the deviations")]
        mean, std = channel_statistics(images)
        for name, part in zip(("mean", "std"), got, strict=True):
            if part.shape != (3,):
                raise Mistake(f"It returns a {name} of shape {tuple(part.shape)}, where one number a channel, (3,), is asked for.")
        pixels = torch.cat([image.flatten(1) for image in images], 1)
        means = torch.stack([image.mean((1, 2)) for image in images])
        variances = torch.stack([image.var((1, 2), correction=0) for image in images])
        shares = torch.tensor([image.numel() for image in images]) / sum(image.numel() for image in images)
        compare(got[0], mean, given=given, what="the mean", mistakes={
            "averages the images' means: an image counts by its pixels, and a large one has more": means.mean(0),
            "mixes the channels: take one mean for each": pixels.mean().expand(3),
            "returns the deviation where the mean is asked for: mean first, then std": std,
        })  # fmt: skip
        inside = "averages the images' own deviations: that leaves out how the images differ from one another"
        compare(got[1], std, given=given, what="the standard deviation", mistakes={
            inside: variances.sqrt().mean(0),
            f"{inside}; and divides by n − 1": torch.stack([image.std((1, 2)) for image in images]).mean(0),
            "averages the images' own deviations, each weighted by its pixels: how the images differ is missing": (
                shares @ variances.sqrt()
            ),
            "averages the images' own variances, each weighted by its pixels: how the images differ is missing": (
                (shares @ variances).sqrt()
            ),
            "averages the images' own variances: how the images differ from one another is missing": variances.mean(0).sqrt(),
            "takes the deviation of the images' means: how pixels differ within an image is missing": means.std(0, correction=0),
            "takes the deviation of the images' means, and divides by n − 1": means.std(0),
            "returns the variance: take its square root": std.square(),
            "divides by n − 1: the pixels are all there are, use correction=0": pixels.std(1),
            "takes the root of the mean square: subtract the squared mean first": pixels.square().mean(1).sqrt(),
            "mixes the channels: take one deviation for each": pixels.std(correction=0).expand(3),
        })  # fmt: skip
    return "means and deviations of images of one size and of several"


def _two(result: Any, asked: str) -> list[torch.Tensor]:
    """The two parts of an answer as tensors: lists and arrays of numbers pass."""
    try:
        if isinstance(result, (tuple, list)) and len(result) == 2:
            return [torch.as_tensor(part) for part in result]
    except (TypeError, ValueError, RuntimeError):
        pass
    raise Mistake(f"It returns {describe(result)}; two {asked}.")


def encode_labels(names: list[str], classes: list[str]) -> torch.Tensor:
    index = {name: i for i, name in enumerate(classes)}
    for name in names:
        if name not in index:
            raise ValueError(f"label {name!r} is not among the classes {classes}")
    return torch.tensor([index[name] for name in names], dtype=torch.int64)


def check_encode_labels(answer: Answer) -> str:
    cases = [
        (["dog"], ["ant", "cat", "dog", "newt"]),  # a batch that lacks classes
        (["cat", "dog", "dog"], ["dog", "cat", "ant"]),  # classes in an order of their own
        (["e", "b", "e", "c", "b", "b"], ["c", "a", "e", "d", "b"]),
        (["10", "9", "2"], ["2", "9", "10"]),
    ]
    for names, classes in cases:
        got = answer(names, classes)
        want = encode_labels(names, classes)
        if isinstance(got, (list, tuple, np.ndarray)):
            raise Mistake(f"It returns {describe(got)}: the loss takes a tensor, so wrap it in torch.tensor.")
        if isinstance(got, torch.Tensor) and got.shape == (len(names), len(classes)):
            raise Mistake("It returns one-hot rows: cross-entropy takes one index a sample, of shape (N,).")
        if isinstance(got, torch.Tensor) and got.shape == want.shape and got.dtype != torch.int64:
            raise Mistake(f"It returns {got.dtype}: class indices are torch.int64 for the loss.")
        by_own = {name: i for i, name in enumerate(sorted(set(names)))}
        by_text = {name: i for i, name in enumerate(sorted(classes))}
        compare(got, want, given=describe(names, classes), mistakes={
            "numbers the classes by the labels it was given: a batch or folder that lacks a class then shifts "
            "every index after it. Use the order of `classes`":
                torch.tensor([by_own[name] for name in names]),
            "sorts `classes`: keep the order in which they are given": torch.tensor([by_text[name] for name in names]),
            "counts from 1: the first class has index 0": want + 1,
            "counts the classes from the last one": len(classes) - 1 - want,
            "drops repeated labels: there is one index for each sample": torch.tensor(list(dict.fromkeys(want.tolist()))),
        })  # fmt: skip
    _check_unknown_label(answer)
    return "the order of `classes`, a batch without every class, the dtype, and a label that is unknown"


def _check_unknown_label(answer: Answer) -> None:
    given = "['cat', 'cow'], ['cat', 'dog']"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = answer.value(["cat", "cow"], ["cat", "dog"])
    except NotImplementedError:
        raise NotAttempted from None
    except ValueError as error:
        if "cow" not in str(error):
            raise Mistake(f"It raises a ValueError for {given} that does not name the label 'cow': {error}") from None
    except Exception as error:
        raise Mistake(f"It raises {type(error).__name__} for {given}: raise a ValueError that names the label.") from None
    else:
        raise Mistake(f"It lets an unknown label through: {given} gives {describe(result)}. Raise a ValueError that names it.")


def hold_out(labels: torch.Tensor, fraction: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    train, val = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        count = max(1, round(fraction * len(members)))
        val.append(members[:count])
        train.append(members[count:])
    return torch.cat(train), torch.cat(val)


def check_hold_out(answer: Answer) -> str:
    unbalanced = torch.tensor([0] * 40 + [1] * 20 + [2] * 5)
    shuffled = unbalanced[torch.randperm(65)]
    for labels, fraction in ((torch.tensor([0] * 6 + [1] * 3), 1 / 3), (shuffled, 0.2), (unbalanced + 4, 0.6), (shuffled, 0.07)):
        for seed in (0, 1):
            _check_one_hold_out(labels, fraction, answer(labels, fraction, torch.Generator().manual_seed(seed)))
    _check_draws(answer)
    return "every index once, each class's share in both parts, small classes kept, and the draw follows the generator"


def _check_one_hold_out(labels: torch.Tensor, fraction: float, result: Any) -> None:
    given = f"{describe(labels)} and the fraction {fraction:.3g}"
    train, val = _two(result, "tensors of indices are asked for: train, then val")
    for part in (train, val):
        if part.dtype == torch.bool:
            raise Mistake("It returns masks: give the indices, mask.nonzero().flatten().")
        if part.ndim != 1 or part.dtype.is_floating_point:
            raise Mistake(f"It returns {describe(part)}, where whole indices of shape (n,) are asked for.")
    drawn = torch.cat([train, val])
    if len(drawn) == len(labels) and torch.equal(drawn.sort().values, labels.sort().values):
        raise Mistake("It returns the labels of the samples: give their indices.")
    if any(len(part.unique()) < len(part) for part in (train, val)):
        raise Mistake(f"It draws with replacement: given {given}, an index stands in one part twice.")
    if shared := sorted(set(train.tolist()) & set(val.tolist())):
        raise Mistake(f"It leaks: given {given}, index {shared[0]} is in train and in val.")
    if sorted(drawn.tolist()) != list(range(len(labels))):
        raise Mistake(f"It loses samples: given {given}, {len(drawn)} of the {len(labels)} indices come back.")
    counts = {int(label): (labels == label).sum().item() for label in labels.unique()}
    held = {label: int((labels[val] == label).sum()) for label in counts}
    wanted = {label: max(1, round(fraction * count)) for label, count in counts.items()}
    if held == wanted:
        return
    if all((labels[train] == label).sum().item() == count for label, count in wanted.items()):
        raise Mistake(f"It returns val before train: given {given}, {len(train)} indices come first and {len(val)} second.")
    if len(set(held.values())) == 1 and len(counts) > 1:
        raise Mistake(f"It takes equally many of every class: given {given}, {held}, where each keeps its share, {wanted}.")
    empty = [label for label in counts if held[label] == 0]
    if empty and all(held[label] == wanted[label] for label in counts if label not in empty):
        raise Mistake(f"It leaves a small class out of val: given {given}, class {empty[0]} has no sample there; keep at least one.")
    if all(held[label] in (wanted[label], int(fraction * count)) for label, count in counts.items()):
        raise Mistake(f"It rounds down: given {given}, val holds {held} of the classes, where round() gives {wanted}.")
    if all(held[label] in (wanted[label], ceil(fraction * count)) for label, count in counts.items()):
        raise Mistake(f"It rounds up: given {given}, val holds {held} of the classes, where round() gives {wanted}.")
    fault = "does not split class by class" if len(val) == round(fraction * len(labels)) else "holds out another number"
    raise Mistake(f"It {fault}: given {given}, val holds {held} of the classes, where {wanted} is their share.")


def _check_draws(answer: Answer) -> None:
    labels = torch.arange(60) % 3
    state = torch.get_rng_state()

    def draw(seed: int) -> set[int]:
        return set(torch.as_tensor(answer(labels, 0.3, torch.Generator().manual_seed(seed))[1]).tolist())

    draws = [draw(seed) for seed in range(4)]
    if draws[0] == set(range(18)):
        raise Mistake("It takes the first samples of every class: files are often sorted, so draw them at random.")
    if draws[0] == set(range(42, 60)):
        raise Mistake("It takes the last samples of every class: files are often sorted, so draw them at random.")
    if all(other == draws[0] for other in draws):
        raise Mistake("It draws the same samples whatever the generator: pass generator=generator to torch.randperm.")
    if draw(0) != draws[0] or not torch.equal(torch.get_rng_state(), state):
        raise Mistake("It draws from another generator than the one it is given: the same seed must give the same split.")


register(
    "data.channel_statistics", channel_statistics, check_channel_statistics, difficulty=2, importance=4, minutes=10,
    hints=(
        "The images differ in size: what must an image count by?",
        "Three sums over all pixels are enough: how many there are, their values and their squares, a channel each.",
        "mean = total / count and std = sqrt(squares / count − mean²); image.flatten(1) is (3, H·W). Sum in float64.",
    ),
)  # fmt: skip
register(
    "data.encode_labels", encode_labels, check_encode_labels, difficulty=1, importance=5, minutes=5,
    hints=(
        "Which index a class has must not depend on which labels happen to be in the batch.",
        "Build a dictionary from class to index with enumerate(classes), and look every name up in it.",
        "torch.tensor([index[name] for name in names]); before it, `if name not in index: raise ValueError(...)`.",
    ),
)  # fmt: skip
register(
    "data.hold_out", hold_out, check_hold_out, difficulty=3, importance=4, minutes=15,
    hints=(
        "Split each class on its own, then put the parts together.",
        "(labels == label).nonzero().flatten() are the members of a class; torch.randperm(n, generator=generator) mixes them.",
        "The first max(1, round(fraction * n)) of the mixed members go to val, the rest to train; torch.cat at the end.",
    ),
)  # fmt: skip
