"""Exercises on augmentation: blend a batch, place a box, crop each image for itself, and average over views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from dlcourse.exercises._random_crop import check_random_crop_batch, random_crop_batch
from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

Tensors = tuple[torch.Tensor, torch.Tensor]


def mixup(images: torch.Tensor, labels: torch.Tensor, num_classes: int, share: float) -> Tensors:
    targets = F.one_hot(labels, num_classes).to(images.dtype)  # (B,) -> (B, K)
    mixed = share * images + (1 - share) * images.roll(1, 0)
    return mixed, share * targets + (1 - share) * targets.roll(1, 0)


def check_mixup(answer: Answer) -> str:
    cases: list[tuple[torch.Tensor, torch.Tensor, int, float]] = [
        # Small enough to print, and with two neighbours of one class.
        (torch.tensor([1.0, 2.0, 4.0, 8.0, 0.0, 6.0]).reshape(3, 1, 1, 2), torch.tensor([0, 2, 2]), 3, 0.25),
        (torch.rand(5, 3, 4, 7), torch.tensor([3, 0, 0, 1, 3]), 6, 0.3),
        (torch.rand(4, 4, 4, 4), torch.tensor([0, 1, 2, 3]), 4, 0.9),  # so square that a wrong axis fits
        (torch.rand(1, 2, 3, 3), torch.tensor([1]), 3, 0.6),
        (torch.rand(6, 1, 2, 5, dtype=torch.float64), torch.randint(4, (6,)), 4, 0.5),
    ]
    for images, labels, num_classes, share in cases:
        given = describe(images, labels, num_classes, share)
        result = answer(images, labels, num_classes, share)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Mistake(f"It returns {describe(result)}; two tensors are asked for: the images, then the labels.")
        want = mixup(images, labels, num_classes, share)
        compare(result[0], want[0], given=given, what="the mixed batch", mistakes=_mixup_images(images, share))
        got = result[1]
        if isinstance(got, torch.Tensor) and got.shape == labels.shape:
            raise Mistake(
                f"It returns labels of shape {tuple(got.shape)}: class numbers cannot be mixed, the middle of classes 0 "
                "and 2 is not class 1. Make them one-hot rows (B, K) first."
            )
        if isinstance(got, torch.Tensor) and not got.is_floating_point():
            raise Mistake(f"It returns {got.dtype} labels: shares are fractions, so make the one-hot rows float first.")
        compare(got, want[1], given=given, what="the matrix of soft labels", mistakes=_mixup_labels(labels, num_classes, share, want[1]))
    return "images and soft labels of five batches, neighbours of one class, a batch of one, float64, the inputs left alone"


def _mixup_images(images: torch.Tensor, share: float) -> dict[str, Any]:
    def blend(other: torch.Tensor, share: float = share) -> torch.Tensor:
        return share * images + (1 - share) * other

    return {
        "gives the image 1 − share and its neighbour share: it is the other way round": blend(images.roll(1, 0), 1 - share),
        "mixes each image with the one after it; take the one before": blend(images.roll(-1, 0)),
        "mixes the batch with itself read backwards": blend(images.flip(0)),
        "takes half of each, whatever the share": blend(images.roll(1, 0), 0.5),
        "shifts within the image instead of along the batch: roll(1, 0) moves axis 0": lambda: blend(images.roll(1)),
        "shifts within the image instead of along the batch: axis 0 is the batch": lambda: blend(images.roll(1, -1)),
        "leaves the images as they are": images,
        "adds the neighbour to the whole image: the image itself is to be weighed by share": images + (1 - share) * images.roll(1, 0),
    }


def _mixup_labels(labels: torch.Tensor, num_classes: int, share: float, want: torch.Tensor) -> dict[str, Any]:
    targets = F.one_hot(labels, num_classes).to(want.dtype)

    def overwritten() -> torch.Tensor:
        rows = share * targets
        return rows.scatter(1, labels.roll(1, 0)[:, None], 1 - share)

    def overwritten_by_own() -> torch.Tensor:
        rows = (1 - share) * targets.roll(1, 0)
        return rows.scatter(1, labels[:, None], share)

    overwrites = "overwrites where it has to add: neighbours of one class have the shares of both, together 1"
    return {
        "leaves the labels as they are: they are to be mixed like the images": targets,
        "gives the image's label 1 − share: it is the other way round": (1 - share) * targets + share * targets.roll(1, 0),
        "mixes the labels with those of the next image, the images with the one before":
            share * targets + (1 - share) * targets.roll(-1, 0),
        overwrites: overwritten,
        f"{overwrites} (here the last one written wins)": overwritten_by_own,
        "shifts the classes instead of the samples: roll along axis 0": share * targets + (1 - share) * targets.roll(1, 1),
        "gives both labels the whole: their shares are share and 1 − share": targets + targets.roll(1, 0),
        "marks both labels with 1: their shares are share and 1 − share": (targets + targets.roll(1, 0)).clamp(max=1),
        "keeps only the label with the larger share": F.one_hot(want.argmax(1), num_classes).to(want.dtype),
    }  # fmt: skip


def cutmix_box(
    height: int, width: int, share: float, center_y: int, center_x: int
) -> tuple[int, int, int, int, float]:
    half = 0.5 * (1 - share) ** 0.5
    half_height, half_width = int(half * height), int(half * width)
    top, bottom = max(center_y - half_height, 0), min(center_y + half_height, height)
    left, right = max(center_x - half_width, 0), min(center_x + half_width, width)
    return top, bottom, left, right, 1 - (bottom - top) * (right - left) / (height * width)


def check_cutmix_box(answer: Answer) -> str:
    cases = [
        (8, 8, 0.75, 4, 4),  # inside
        (8, 12, 0.75, 4, 6),
        (20, 30, 0.36, 10, 15),
        (9, 7, 0.5, 4, 3),  # halves that are rounded down
        (8, 8, 0.75, 0, 7),  # cut off at two sides
        (16, 10, 0.2, 12, 2),
        (32, 32, 0.0, 10, 20),
        (32, 24, 1.0, 5, 5),
        (5, 40, 0.3, 1, 6),
    ]
    names = ("top", "bottom", "left", "right", "kept")
    results = [(case, _five(answer(*case), describe(*case))) for case in cases]
    # By chance two formulas agree on a box: a mistake is named only when it explains every answer.
    explains = [
        text for text, wrong in WRONG_BOXES.items()
        if all(all(abs(g - w) < 1e-6 for g, w in zip(got, wrong(*case), strict=True)) for case, got in results)
    ]  # fmt: skip
    for case, got in results:
        for name, part, want in zip(names, got, cutmix_box(*case), strict=True):
            compare(part, want, given=describe(*case), what=f"`{name}`", mistakes=dict.fromkeys(explains[:1], part), atol=1e-9)
            if name != "kept" and isinstance(part, float):
                raise Mistake(f"It returns the float {part} as `{name}`, and an image is cut at whole pixels: use int().")
    return "nine boxes: inside, cut off at the border, oblong images, nothing kept and everything kept"


def _five(result: Any, given: str) -> list[Any]:
    if not isinstance(result, (tuple, list)) or len(result) != 5:
        raise Mistake(f"It returns {describe(result)} for {given}; five numbers are asked for: top, bottom, left, right, kept.")
    for part in result:
        if isinstance(part, torch.Tensor) or not isinstance(part, (int, float)):
            raise Mistake(f"It returns {describe(part)} among the five for {given}, where plain numbers are asked for.")
    return list(result)


def _box(
    height: int, width: int, share: float, y: int, x: int, *,
    half: Callable[[float], float] = lambda share: 0.5 * (1 - share) ** 0.5,
    rounded: Callable[[float], int] = int,
    clip: bool = True,
    swap: bool = False,
    square: bool = False,
    corner: bool = False,
    last: int = 0,
    kept: Callable[[float, float, float], float] = lambda pasted, share, unclipped: 1 - pasted,
) -> tuple[float, ...]:  # fmt: skip
    """The box with one thing changed."""
    half_height, half_width = rounded(half(share) * height), rounded(half(share) * width)
    if square:
        half_height = half_width = min(half_height, half_width)
    if swap:
        y, x = x, y
    box = [y - half_height, y + half_height, x - half_width, x + half_width]
    if corner:
        box = [y, y + 2 * half_height, x, x + 2 * half_width]
    unclipped = (box[1] - box[0]) * (box[3] - box[2]) / (height * width)
    if clip:
        box = [max(box[0], 0), min(box[1], height - last), max(box[2], 0), min(box[3], width - last)]
    pasted = (box[1] - box[0]) * (box[3] - box[2]) / (height * width)
    return (*box, kept(pasted, share, unclipped))


WRONG_BOXES: dict[str, Callable[..., tuple[float, ...]]] = {
    "gives each side 1 − share: area goes with the square of a side, take the root":
        lambda *case: _box(*case, half=lambda share: 0.5 * (1 - share)),
    "takes the root of share: the box is what is NOT kept, 1 − share": lambda *case: _box(*case, half=lambda share: 0.5 * share**0.5),
    "reaches a whole side from the centre: half to each direction": lambda *case: _box(*case, half=lambda share: (1 - share) ** 0.5),
    "lets the box stick out of the image: cut it off at 0 and at the height and width":
        lambda *case: _box(*case, clip=False),
    "returns the share it was given: after cutting off, more of the image is kept":
        lambda *case: _box(*case, kept=lambda pasted, share, unclipped: share),
    "computes `kept` before the box is cut off": lambda *case: _box(*case, kept=lambda pasted, share, unclipped: 1 - unclipped),
    "returns what is pasted: `kept` is the rest of the image": lambda *case: _box(*case, kept=lambda pasted, share, unclipped: pasted),
    "swaps the centre's y and x": lambda *case: _box(*case, swap=True),
    "rounds the half sides to the nearest number: int() rounds down": lambda *case: _box(*case, rounded=round),
    "makes the box a square: it has the image's proportions": lambda *case: _box(*case, square=True),
    "starts the box at the centre: it reaches half a side to each direction": lambda *case: _box(*case, corner=True),
    "cuts off one pixel too early: `bottom` and `right` are the first that are not in the box": lambda *case: _box(*case, last=1),
    "returns left and right first: the order is top, bottom, left, right, kept":
        lambda *case: tuple(cutmix_box(*case)[i] for i in (2, 3, 0, 1, 4)),
    "returns top, left, bottom, right: the order is top, bottom, left, right, kept":
        lambda *case: tuple(cutmix_box(*case)[i] for i in (0, 2, 1, 3, 4)),
}  # fmt: skip


def average_views(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(dim=2).mean(dim=0)  # (views, B, K) -> (B, K)


def check_average_views(answer: Answer) -> str:
    sure = torch.tensor([[[2.0, 0.0]], [[1.0, 0.0]], [[0.0, 8.0]]])  # two views for class 0, the third sure of class 1
    cases = [
        sure, sure[:1], torch.randn(4, 5, 3) * 3, torch.randn(3, 3, 3) * 3, torch.randn(1, 2, 7),
        torch.randn(2, 4, 6, dtype=torch.float64), torch.tensor([[[800.0, 0.0]], [[0.0, 900.0]]]),
    ]  # fmt: skip
    for logits in cases:
        got = answer(logits)
        if isinstance(got, torch.Tensor) and got.shape == logits.shape[1:2]:
            raise Mistake("It returns one class an image: the mean probabilities (B, K) are asked for.")
        if isinstance(got, torch.Tensor) and got.isnan().any():
            raise Mistake(f"It returns NaN for {describe(logits)}: exp() of a large logit overflows, softmax() does not.")
        probabilities, want = logits.softmax(2), average_views(logits)
        votes = F.one_hot(logits.argmax(2), logits.shape[2]).to(logits.dtype).mean(0)
        geometric = logits.log_softmax(2).mean(0).exp()
        compare(got, want, given=describe(logits), mistakes={
            "averages the logits first: a view that is sure of itself then outvotes the others. Softmax, then the mean":
                logits.mean(0).softmax(1),
            "averages the logarithms of the probabilities": geometric,
            "averages the logits and returns no probabilities": logits.mean(0),
            "returns the logarithm of the mean: probabilities are asked for": want.log(),
            "sums over the views: divide by how many there are": probabilities.sum(0),
            "takes the largest probability over the views": probabilities.amax(0),
            "takes the first view only": probabilities[0],
            "takes the last view only": probabilities[-1],
            "lets the views vote for a class: keep their probabilities": votes,
            "takes the softmax over the views: it goes over the classes, dim=2": logits.softmax(0).mean(0),
            "takes the softmax over the images: it goes over the classes, dim=2": logits.softmax(1).mean(0),
            "takes the median over the views": probabilities.median(0).values,
            "takes the softmax of the mean probabilities once more": want.softmax(1),
            "averages over the images instead of the views": probabilities.mean(1),
        })  # fmt: skip
    return "mean probabilities of one to four views, a view that is sure, logits of 900, float64"


register(
    "augmentation.mixup", mixup, check_mixup, difficulty=2, importance=4, minutes=10,
    hints=(
        "Images and labels are mixed by the same rule, once the labels are vectors.",
        "images.roll(1, 0) is the batch with each image replaced by the one before it; F.one_hot gives integer rows (B, K).",
        "share * x + (1 - share) * x.roll(1, 0), for the images and for F.one_hot(labels, num_classes).to(images.dtype).",
    ),
)  # fmt: skip
register(
    "augmentation.cutmix_box", cutmix_box, check_cutmix_box, difficulty=3, importance=3, minutes=15,
    hints=(
        "A box of (1 − share) of the area: by which factor is each of its sides shorter than the image's?",
        "The factor is √(1 − share), and half of a side lies to each direction of the centre. Round the half down.",
        "max(…, 0) and min(…, height) cut the box off; only then count its pixels: kept = 1 − pixels / (height · width).",
    ),
)  # fmt: skip
register(
    "augmentation.average_views", average_views, check_average_views, difficulty=1, importance=4, minutes=5,
    hints=(
        "Which numbers of two views can be compared: logits, or probabilities?",
        "Softmax over the classes, dim=2, before anything is averaged; then the mean over the views, dim=0.",
    ),
)  # fmt: skip
register(
    "augmentation.random_crop_batch", random_crop_batch, check_random_crop_batch, difficulty=4, importance=3, minutes=20,
    hints=(
        "F.pad once for the whole batch, then each image is cut out of its own padded one at its own place.",
        "torch.randint(2 * padding + 1, (2, B), generator=generator) gives all tops and lefts. A loop with torch.stack is "
        "a right answer; indexing needs none.",
        "rows = top[:, None] + arange(H) is (B, H), columns likewise (B, W). padded[arange(B)[:, None, None], :, "
        "rows[:, :, None], columns[:, None, :]] is (B, H, W, C): permute it back.",
    ),
)  # fmt: skip
