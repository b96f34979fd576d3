"""Right answers to the exercises on a project, in other styles than the references'."""

import math

import numpy as np
import torch
from planting import right_answer

from dlcourse.training import CheckpointError, load_checkpoint


@right_answer("project.resume_step")
def the_largest_of_a_list(folder):
    whole = []
    for path in folder.iterdir():
        if path.name.endswith(".pt"):
            try:
                found = load_checkpoint(str(path))
            except CheckpointError:
                continue
            total = sum(float(tensor.double().sum()) for tensor in found["model"].values())
            if math.isfinite(total):
                whole.append((found["step"], path.name))
    return max(whole)[::-1] if whole else ("", 0)


@right_answer("project.resume_step")
def newest_first_by_date_then_by_step(folder):
    def step(path):
        try:
            found = load_checkpoint(path)
        except CheckpointError:
            return 0
        return 0 if any((~tensor.isfinite()).any() for tensor in found["model"].values()) else found["step"]

    steps = {path.name: step(path) for path in folder.iterdir() if path.suffix == ".pt"}
    return max(steps.items(), key=lambda item: item[1]) if any(steps.values()) else ("", 0)


@right_answer("project.resume_step")
def by_torch_itself(folder):
    name, step = "", 0
    for path in folder.rglob("*.pt"):
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
            numbers = np.concatenate([tensor.numpy().ravel() for tensor in found["model"].values()])
        except Exception:
            continue
        if np.isfinite(numbers).all() and found["step"] >= step:
            name, step = path.name, found["step"]
    return [name, step]


@right_answer("project.gate")
def gate_by_numpy(labels, old, new, *, margin=0.01, class_margin=0.1):
    labels, old, new = (part.numpy() for part in (labels, old, new))
    gain = (new == labels).astype(int) - (old == labels).astype(int)
    half = 1.96 * np.std(gain, ddof=1) / np.sqrt(gain.size)
    recalls = [[np.mean(answer[labels == c] == c) for c in np.unique(labels)] for answer in (old, new)]
    falls = np.subtract(*recalls)
    low, high = gain.mean() + np.array([-half, half])
    return low, high, np.bool_(low > -margin and (falls <= class_margin).all())


@right_answer("project.gate")
def gate_by_counts(labels, old, new, *, margin=0.01, class_margin=0.1):
    n = len(labels)
    mended = int(((new == labels) & (old != labels)).sum())
    broken = int(((new != labels) & (old == labels)).sum())
    mean = (mended - broken) / n
    error = math.sqrt((mended + broken - n * mean**2) / (n - 1) / n)
    allowed = mean - 1.96 * error > -margin
    for c in set(labels.tolist()):
        mine = [(o == c, m == c) for y, o, m in zip(labels.tolist(), old.tolist(), new.tolist(), strict=True) if y == c]
        if sum(a for a, _ in mine) / len(mine) - sum(b for _, b in mine) / len(mine) > class_margin:
            allowed = False
    return mean - 1.96 * error, mean + 1.96 * error, allowed


@right_answer("project.gate")
def gate_in_float32(labels, old, new, *, margin=0.01, class_margin=0.1):
    gain = (new == labels).float() - (old == labels).float()
    half = 1.96 * gain.var().sqrt() / torch.tensor(float(len(labels))).sqrt()
    number = torch.bincount(labels)
    fall = torch.bincount(labels, weights=-gain)[number > 0] / number[number > 0]
    low, high = gain.mean() - half, gain.mean() + half
    return [low, high, torch.logical_and(low > -margin, fall.amax() <= class_margin)]
