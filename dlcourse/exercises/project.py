"""Exercises on a project (chapter 20): where to resume after a kill, and whether a new model may replace the old one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register
from dlcourse.training import CheckpointError, load_checkpoint, save_checkpoint


def resume_step(folder: Path) -> tuple[str, int]:
    """Name and step of the checkpoint (*.pt) to go on from: the largest step among those whole and finite; ("", 0) without one."""
    best = ("", 0)
    for path in sorted(folder.glob("*.pt")):
        try:
            found = load_checkpoint(path)
        except CheckpointError:
            continue
        if all(torch.isfinite(tensor).all() for tensor in found["model"].values()) and found["step"] > best[1]:
            best = (path.name, found["step"])
    return best


# A folder: name of the file -> (step inside, what is wrong with it). The last file written is the last in the list.
_FOLDERS: list[tuple[str, dict[str, tuple[int, str]]]] = [
    ("one checkpoint", {"last.pt": (7, "")}),
    ("an empty folder", {}),
    ("a.pt, b.pt and c.pt of the steps 10, 20 and 30", {"a.pt": (10, ""), "b.pt": (20, ""), "c.pt": (30, "")}),
    ("step_9.pt and step_10.pt", {"step_9.pt": (9, ""), "step_10.pt": (10, "")}),
    ("b.pt of step 20 and a.pt of step 50", {"b.pt": (20, ""), "a.pt": (50, "")}),
    ("d.pt of step 50 and c.pt of step 20, copied back later", {"d.pt": (50, ""), "c.pt": (20, "")}),
    ("a newest file cut in half", {"a.pt": (10, ""), "b.pt": (20, ""), "c.pt": (30, "cut")}),
    ("a newest file of no bytes", {"a.pt": (10, ""), "b.pt": (20, "empty")}),
    ("a newer file whose writing was not finished, last.pt.tmp", {"last.pt": (10, ""), "last.pt.tmp": (20, "")}),
    ("a newest file whose weights are NaN", {"a.pt": (10, ""), "b.pt": (20, "nan")}),
    ("a newest file with an infinite weight in its last tensor", {"a.pt": (10, ""), "b.pt": (20, "inf")}),
    ("a file that is no checkpoint beside a whole one", {"a.pt": (10, ""), "vocabulary.pt": (0, "foreign")}),
    ("nothing but a file cut in half", {"a.pt": (10, "cut")}),
]


def _write(folder: Path, files: dict[str, tuple[int, str]]) -> None:
    for age, (name, (step, fault)) in enumerate(files.items()):
        path, model = folder / name, nn.Linear(2, 2)
        with torch.no_grad():
            if fault in ("nan", "inf"):
                model.bias[1] = float(fault)
            if fault == "nan":
                model.weight.fill_(float("nan"))
        if fault == "foreign":
            torch.save({"step": 99, "words": ["shoe", "bag"]}, path)
        else:
            save_checkpoint(path, model, step=step)
        if fault in ("cut", "empty"):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if fault == "cut" else 0])
        os.utime(path, (1_700_000_000 + 60 * age,) * 2)


def check_resume_step(answer: Answer) -> str:
    for text, files in _FOLDERS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _write(folder, files)
            try:
                got, want = answer(folder), resume_step(folder)
            except Mistake as mistake:
                raise Mistake(str(mistake).replace(describe(folder), text).replace(name, "the folder")) from None
            if {path.name for path in folder.iterdir()} != set(files):
                raise Mistake(f"It changes the folder, given {text}: a damaged file is evidence, leave it where it is.")
            if not isinstance(got, (tuple, list)) or len(got) != 2:
                raise Mistake(f"It returns {describe(got)}; two things are asked for: the file's name and its step.")
            if isinstance(got[0], os.PathLike) or (isinstance(got[0], str) and name in got[0]):
                raise Mistake("It returns the whole path: the file's name alone, path.name, stays right when the folder is moved.")
            compare(got, want, given=text, mistakes=_resume_mistakes(files, want))
    return "one checkpoint, none, names and dates that mislead, torn, empty, unfinished and foreign files, weights that are not finite"


def _resume_mistakes(files: dict[str, tuple[int, str]], want: tuple[str, int]) -> dict[str, Any]:
    sound = [(name, step) for name, (step, fault) in files.items() if not fault and name.endswith(".pt")]
    unfinished = [(name, step) for name, (step, _) in files.items() if name.endswith(".tmp")]
    diverged = [(name, step) for name, (step, fault) in files.items() if fault in ("nan", "inf")]
    alphabetical = sorted(sound)
    mistakes: dict[str, Any] = {
        "takes an unfinished file: what ends in .tmp was being written when the run was killed": lambda: max(unfinished),
        "resumes from weights that are NaN or infinite: every later step would be, too": lambda: max(diverged),
        "goes by the names, as text: 'step_10' comes before 'step_9'; the step stands inside the file": lambda: alphabetical[-1],
        "goes by the dates of the files: a copy gets a new one; the step stands inside the file": lambda: sound[-1],
        "takes the oldest of them": lambda: min(sound, key=lambda pair: pair[1]),
        "gives up where a file is damaged: an older one is whole": ("", 0) if want[1] else ("-", -1),
    }
    return mistakes


register(
    "project.resume_step",
    resume_step,
    check_resume_step,
    difficulty=2,
    importance=4,
    minutes=15,
    hints=(
        "Names and dates can mislead. What says for certain how far a run was?",
        "load_checkpoint(path) raises CheckpointError for a torn or foreign file: catch that and go on with the next one.",
        "for path in folder.glob('*.pt'): load, skip when a tensor of found['model'] is not finite, keep the largest "
        "found['step']; start from ('', 0).",
    ),
)


def gate(labels: Tensor, old: Tensor, new: Tensor, *, margin: float = 0.01, class_margin: float = 0.1) -> tuple[float, float, bool]:
    """The 95 % interval of new − old accuracy, from pairs, and whether the new model may replace the old."""
    was, now = (old == labels).double(), (new == labels).double()
    gain = now - was  # (N,): 1 mended, −1 broken, 0 the same
    half = 1.96 * gain.std() / len(gain) ** 0.5
    low, high = float(gain.mean() - half), float(gain.mean() + half)
    falls = [float(-gain[labels == label].mean()) for label in labels.unique()]
    return low, high, low > -margin and max(falls) <= class_margin


def _answers(*classes: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Labels and two models' answers; for each class: both right, only the old, only the new, neither. In a mixed order."""
    labels = torch.cat([torch.full((sum(counts),), index) for index, counts in enumerate(classes)])
    old, new = ((labels + shift) % len(classes) for shift in (1, 2))
    start = 0
    for both, only_old, only_new, neither in classes:
        old[start : start + both + only_old] = labels[start]
        new[start : start + both] = labels[start]
        new[start + both + only_old : start + both + only_old + only_new] = labels[start]
        start += both + only_old + only_new + neither
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return labels[order], old[order], new[order]


# What each case tells apart, the classes, and options.
_GATES: list[tuple[str, list[tuple[int, int, int, int]], dict[str, float]]] = [
    ("seven images, two mended, one broken", [(2, 0, 1, 0), (1, 1, 1, 0), (1, 0, 0, 0)], {}),
    ("a clear gain", [(150, 5, 40, 5), (160, 5, 30, 5), (170, 5, 20, 5)], {}),
    ("a clear gain in which one class falls by 2 points", [(150, 5, 40, 5), (160, 5, 30, 5), (188, 6, 2, 4)], {}),
    ("a clear loss", [(150, 25, 5, 20), (160, 25, 5, 10), (170, 25, 2, 3)], {}),
    ("hardly any disagreement", [(196, 0, 1, 3), (198, 1, 0, 1), (199, 0, 0, 1)], {}),
    ("a gain of two points that is not certain", [(75, 10, 12, 3), (75, 10, 12, 3), (75, 10, 12, 3)], {}),
    ("the same with a wide margin", [(75, 10, 12, 3), (75, 10, 12, 3), (75, 10, 12, 3)], {"margin": 0.05}),
    ("a gain over all that loses half of a small class", [(300, 5, 60, 35), (330, 5, 40, 25), (8, 10, 0, 2)], {}),
    ("the same with the class's loss allowed", [(300, 5, 60, 35), (330, 5, 40, 25), (8, 10, 0, 2)], {"class_margin": 0.6}),
    ("a class that falls by 5 points, within the class margin", [(300, 0, 60, 40), (330, 0, 40, 30), (70, 9, 4, 17)], {}),
    ("a class without a single image", [(180, 2, 16, 2), (170, 2, 20, 8), (0, 0, 0, 0), (90, 2, 6, 2)], {}),
]


def check_gate(answer: Answer) -> str:
    for text, classes, options in _GATES:
        labels, old, new = _answers(*classes)
        given = f"{text} ({describe(**options)})" if options else text
        if len(labels) <= 12:
            given += f" ({describe(labels, old, new)})"
        got, want = answer(labels, old, new, **options), gate(labels, old, new, **options)
        if not isinstance(got, (tuple, list)) or len(got) != 3:
            raise Mistake(f"It returns {describe(got)}; three things are asked for: low, high, and whether the new may replace the old.")
        compare(list(got[:2]), list(want[:2]), given=given, what="(low, high)", mistakes=_interval_mistakes(labels, old, new))
        verdict = got[2].item() if isinstance(got[2], Tensor) and got[2].numel() == 1 else got[2]
        compare(verdict, want[2], given=given, what="the verdict", mistakes=_verdict_mistakes(labels, old, new, want, **options))
    return "intervals of seven images and of hundreds, gains and losses, both margins, a small class that is lost, one without images"


def _interval_mistakes(labels: Tensor, old: Tensor, new: Tensor) -> dict[str, Callable[[], list[float]]]:
    was, now = (old == labels).double(), (new == labels).double()
    gain, n = now - was, len(labels)

    def around(half: Tensor | float, middle: Tensor | None = None) -> list[float]:
        middle = gain.mean() if middle is None else middle
        return [float(middle - half), float(middle + half)]

    error = gain.std() / n**0.5
    unpaired = ((was.mean() * (1 - was.mean()) + now.mean() * (1 - now.mean())) / n) ** 0.5
    return {
        "subtracts the wrong way round: the gain is new − old": lambda: around(1.96 * error, -gain.mean()),
        "adds the two models' own errors as if they had seen different images: take the deviation of the pairs": lambda: around(1.96 * unpaired),
        "adds the two models' own errors as if they had seen different images (with n − 1): take the deviation of the pairs":
            lambda: around(1.96 * ((was.var() + now.var()) / n) ** 0.5),
        "takes the deviation of one image's gain: that of the mean is smaller by √N": lambda: around(1.96 * gain.std()),
        "divides by N where √N is meant": lambda: around(1.96 * gain.std() / n),
        "gives one standard error each way: 95 % are 1.96 of them": lambda: around(error),
        "gives the 99 % interval: 95 % are 1.96 standard errors": lambda: around(2.576 * error),
        "gives the interval of one side, 1.645: 95 % on both sides are 1.96 standard errors": lambda: around(1.645 * error),
        "divides by N in the deviation: a sample's has N − 1, torch's default": lambda: around(1.96 * gain.std(correction=0) / n**0.5),
        "gives high before low": lambda: around(1.96 * error)[::-1],
        "counts in percentage points: fractions are asked for": lambda: [100 * bound for bound in around(1.96 * error)],
        "gives the interval of the new model's accuracy: the question is the difference": lambda: around(1.96 * now.std() / n**0.5, now.mean()),
    }  # fmt: skip


def _verdict_mistakes(
    labels: Tensor, old: Tensor, new: Tensor, want: tuple[float, float, bool], margin: float = 0.01, class_margin: float = 0.1
) -> dict[str, bool]:
    """Only one verdict is wrong, so the first mistake that would lead to it in this case is named."""
    low, high, allowed = want
    gain = (new == labels).double() - (old == labels).double()
    falls = [float(-gain[labels == label].mean()) for label in labels.unique()]
    classes_hold, none = max(falls) <= class_margin, not allowed
    named: list[tuple[str, bool]] = [
        ("stops at a class without images, or lets its nan decide: leave it out", none if len(falls) <= int(labels.max()) else allowed),
        ("looks at the accuracy over all images alone: a small class can be lost in it", low > -margin),
        ("does not use the margin it is given", low > -0.01 and classes_hold),
        ("lets only a proven gain through: a model that is not worse by more than the margin may replace the old",
         low > 0 and classes_hold),
        ("goes by the mean gain and not by the lower end of the interval", float(gain.mean()) > -margin and classes_hold),
        ("goes by the upper end of the interval: that is the best that may be hoped for", high > -margin and classes_hold),
        ("does not use the class margin it is given", low > -margin and max(falls) <= 0.1),
        ("refuses a class that falls at all: class_margin is what it may fall", low > -margin and max(falls) <= 0),
    ]
    return {text: verdict for text, verdict in named if verdict != allowed}


register(
    "project.gate",
    gate,
    check_gate,
    difficulty=3,
    importance=5,
    minutes=20,
    hints=(
        "Both models saw the same images, so each image has its own difference: mended (1), broken (−1) or the same (0).",
        "The mean of these N numbers is the gain; 1.96 times their standard deviation / √N is half of the interval.",
        "The fall of a class is −gain[labels == c].mean(), over the classes in labels.unique(). Allowed: low > −margin, and no "
        "fall above class_margin.",
    ),
)
