"""Splitting labelled samples into train, validation and test, class by class, and keeping the split in a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PARTS = ("train", "val", "test")


class Split(NamedTuple):
    """Indices (int64 arrays, ascending, no index in two parts) of the three parts of a data set."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def stratified_split(labels: Sequence[Any] | np.ndarray, val: float = 0.1, test: float = 0.2, seed: int = 0) -> Split:
    """Split the indices of `labels` (N,) so that every class keeps its share in each part.

    `val` and `test` are fractions of the whole, 0 for a part that is not wanted; the rest is `train`. Each count is
    within one sample of the exact share, and every class gets at least one sample in each part that is wanted. The
    same labels and seed give the same split on every machine.

    Raises ValueError for fractions that are negative or leave no training data, for labels that are empty or not
    one-dimensional, and for a class with fewer samples than there are parts (it names the class and its count).
    """
    names = np.asarray(labels)
    if names.ndim != 1 or len(names) == 0:
        raise ValueError(f"labels has shape {names.shape}; needs a non-empty (N,)")
    for argument, fraction in (("val", val), ("test", test)):
        if not 0 <= fraction < 1:
            raise ValueError(f"{argument}={fraction} is not a fraction in [0, 1)")
    if val + test >= 1:
        raise ValueError(f"val={val} and test={test} leave nothing to train on; their sum must be below 1")
    fractions = np.array([1 - val - test, val, test])
    random = np.random.RandomState(seed)  # its stream is frozen for good, a Generator's is not (NEP 19)
    parts: list[list[np.ndarray]] = [[], [], []]
    for name in np.unique(names):
        members = random.permutation(np.flatnonzero(names == name))
        if len(members) < np.count_nonzero(fractions):
            wanted = " and ".join(part for part, fraction in zip(PARTS, fractions, strict=True) if fraction)
            raise ValueError(
                f"class {name.item()!r} has {len(members)} sample(s), too few to have one in each of {wanted}: "
                "add samples, drop the class, or ask for fewer parts"
            )
        for part, chosen in zip(
            parts, np.split(members, np.cumsum(_counts(len(members), fractions))[:-1]), strict=True
        ):
            part.append(chosen)
    return Split(*(np.sort(np.concatenate(part)).astype(np.int64) for part in parts))


def _counts(n: int, fractions: np.ndarray) -> np.ndarray:
    """n samples shared out by the largest remainders, with at least one for every fraction above 0."""
    exact = n * fractions
    counts = np.floor(exact).astype(int)
    for part in np.argsort(counts - exact, kind="stable")[: n - counts.sum()]:
        counts[part] += 1
    for part in np.flatnonzero((counts == 0) & (fractions > 0)):
        counts[part] += 1
        counts[np.argmax(counts)] -= 1
    return counts


def save_split(path: str | os.PathLike[str], split: Split) -> None:
    """Write a split as CSV: a header `index,part`, then one line a sample, ascending by index."""
    rows = sorted((int(index), part) for part, indices in zip(PARTS, split, strict=True) for index in indices)
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("index", "part"), *rows])


def load_split(path: str | os.PathLike[str]) -> Split:
    """Read a split that `save_split` wrote.

    Raises ValueError, with the line, for a missing column, a part other than train, val and test, an index that is not
    a whole number from 0 up, and an index that stands in the file twice (in two parts it would be leakage).
    """
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    seen: dict[int, str] = {}
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"index", "part"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path} has the columns {list(rows.fieldnames or ())}; needs index and part")
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            part, text = row["part"], row["index"]
            if part not in parts:
                raise ValueError(f"{where}: part={part!r} is not one of {', '.join(PARTS)}")
            if not (text.isascii() and text.isdigit()):
                raise ValueError(f"{where}: index={text!r} is not a whole number from 0 up")
            index = int(text)
            if index in seen:
                raise ValueError(f"{where}: index {index} stands twice, in {seen[index]} and in {part}")
            seen[index] = part
            parts[part].append(index)
    return Split(*(np.array(sorted(indices), dtype=np.int64) for indices in parts.values()))
