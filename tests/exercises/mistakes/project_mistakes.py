"""Wrong answers to the exercises on a project."""

import torch
from planting import mistake

from dlcourse.training import CheckpointError, load_checkpoint

# ---------------------------------------------------------------- resume_step


def finite(found):
    return all(torch.isfinite(tensor).all() for tensor in found["model"].values())


def resume(folder, pattern="*.pt", fits=finite, key=lambda path, found: found["step"], name=lambda path: path.name, choose=max):
    """A right answer with one part replaced."""
    candidates = []
    for path in folder.glob(pattern):
        try:
            found = load_checkpoint(path)
        except CheckpointError:
            continue
        if fits(found):
            candidates.append((key(path, found), name(path), found["step"]))
    return choose(candidates)[1:] if candidates else ("", 0)


@mistake("project.resume_step", says=r"goes by the names, as text.*step_9\.pt")
def by_name(folder):
    return resume(folder, key=lambda path, found: path.name)


@mistake("project.resume_step", says="goes by the dates of the files.*copied back later")
def by_date(folder):
    return resume(folder, key=lambda path, found: path.stat().st_mtime)


@mistake("project.resume_step", says="takes the oldest of them")
def the_oldest(folder):
    return resume(folder, choose=min)


@mistake("project.resume_step", says=r"takes an unfinished file.*last\.pt\.tmp")
def with_unfinished(folder):
    return resume(folder, pattern="*.pt*")


@mistake("project.resume_step", says=r"resumes from weights that are NaN.*a newest file whose weights are NaN")
def without_a_look_at_the_weights(folder):
    return resume(folder, fits=lambda found: True)


@mistake("project.resume_step", says=r"resumes from weights that are NaN.*infinite weight in its last tensor")
def only_the_first_tensor(folder):
    return resume(folder, fits=lambda found: torch.isfinite(next(iter(found["model"].values()))).all())


@mistake("project.resume_step", says=r"resumes from weights that are NaN.*last tensor.*'b\.pt'")
def only_nan(folder):
    return resume(folder, fits=lambda found: not any(tensor.isnan().any() for tensor in found["model"].values()))


@mistake("project.resume_step", says=r"It raises CheckpointError for a newest file cut in half: the folder.c\.pt is damaged")
def stops_at_damage(folder):
    whole = [(load_checkpoint(path)["step"], path.name) for path in folder.glob("*.pt")]
    return max(whole)[::-1] if whole else ("", 0)


@mistake("project.resume_step", says=r"gives up where a file is damaged")
def gives_up(folder):
    try:
        return stops_at_damage(folder)
    except CheckpointError:
        return "", 0


@mistake("project.resume_step", says=r"raises ValueError for an empty folder: max")
def needs_one(folder):
    step, name = max((load_checkpoint(path)["step"], path.name) for path in folder.glob("*.pt"))
    return name, step


@mistake("project.resume_step", says="returns the whole path")
def whole_paths(folder):
    return resume(folder, name=lambda path: path)


@mistake("project.resume_step", says="returns 7; two things are asked for")
def the_step_alone(folder):
    return resume(folder)[1]


@mistake("project.resume_step", says=r"is 7 where 'last\.pt' is expected")
def step_first(folder):
    return resume(folder)[::-1]


@mistake("project.resume_step", says=r"changes the folder, given a newest file cut in half")
def tidies_up(folder):
    found = resume(folder)
    for path in folder.glob("*.pt"):
        try:
            load_checkpoint(path)
        except CheckpointError:
            path.unlink()
    return found


@mistake("project.resume_step", says=r"It returns None for an empty folder")
def nothing_for_nothing(folder):
    found = resume(folder)
    return found if found[0] else None


@mistake("project.resume_step", says=r"It raises KeyError for a file that is no checkpoint beside a whole one")
def by_torch_load(folder):
    best = ("", 0)
    for path in sorted(folder.glob("*.pt")):
        try:
            found = torch.load(path, weights_only=True)
        except (RuntimeError, EOFError):
            continue
        if finite(found) and found["step"] > best[1]:
            best = path.name, found["step"]
    return best


# ---------------------------------------------------------------- gate


def judge(
    labels, old, new, margin, class_margin, error=None, z=1.96, swap=False, overall=None, classes=None, fall=None
):  # fmt: skip
    """A right answer with one part replaced."""
    was, now = (old == labels).double(), (new == labels).double()
    gain = was - now if swap else now - was
    half = z * (gain.std() / len(gain) ** 0.5 if error is None else error(was, now, gain))
    low, high = float(gain.mean() - half), float(gain.mean() + half)
    falls = [float(-gain[labels == c].mean()) for c in labels.unique()] if fall is None else fall(labels, old, new, gain)
    good = low > -margin if overall is None else overall(low, high, float(gain.mean()), margin)
    held = all(f <= class_margin for f in falls) if classes is None else classes(falls, class_margin)
    return low, high, bool(good and held)


def planted_gate(says, **parts):
    def plant(function):
        def answer(labels, old, new, *, margin=0.01, class_margin=0.1):
            return judge(labels, old, new, margin, class_margin, **parts)

        answer.__name__ = function.__name__
        return mistake("project.gate", says=says)(answer)

    return plant


@planted_gate("subtracts the wrong way round", swap=True)
def old_minus_new(): ...


@planted_gate("as if they had seen different images: take", error=lambda a, b, g: ((a.var(correction=0) + b.var(correction=0)) / len(g)) ** 0.5)
def unpaired(): ...


@planted_gate(r"different images \(with n − 1\)", error=lambda a, b, g: ((a.var() + b.var()) / len(g)) ** 0.5)
def unpaired_of_samples(): ...


@planted_gate("smaller by √N", error=lambda a, b, g: g.std())
def of_one_image(): ...


@planted_gate("divides by N where √N", error=lambda a, b, g: g.std() / len(g))
def without_the_root(): ...


@planted_gate("one standard error each way", z=1)
def one_error(): ...


@planted_gate("99 % interval", z=2.576)
def too_sure(): ...


@planted_gate(r"one side, 1\.645", z=1.645)
def one_sided(): ...


@planted_gate("divides by N in the deviation", error=lambda a, b, g: g.std(correction=0) / len(g) ** 0.5)
def of_the_population(): ...


@mistake("project.gate", says="high before low")
def high_first(labels, old, new, *, margin=0.01, class_margin=0.1):
    low, high, verdict = judge(labels, old, new, margin, class_margin)
    return high, low, verdict


@mistake("project.gate", says="percentage points")
def percentages(labels, old, new, *, margin=0.01, class_margin=0.1):
    low, high, verdict = judge(labels, old, new, margin, class_margin)
    return 100 * low, 100 * high, verdict


@mistake("project.gate", says="interval of the new model's accuracy")
def of_the_new_model(labels, old, new, *, margin=0.01, class_margin=0.1):
    right = (new == labels).double()
    half = 1.96 * right.std() / len(right) ** 0.5
    return float(right.mean() - half), float(right.mean() + half), bool(right.mean() > (old == labels).double().mean())


@mistake("project.gate", says="returns True; three things are asked for")
def the_verdict_alone(labels, old, new, *, margin=0.01, class_margin=0.1):
    return True


@planted_gate("looks at the accuracy over all images alone.*loses half of a small class", classes=lambda falls, margin: True)
def without_classes(): ...


@planted_gate(
    "looks at the accuracy over all images alone.*half of a small class, the verdict is True",
    fall=lambda labels, old, new, gain: [float(-gain[labels == c].sum() / len(gain)) for c in labels.unique()],
)
def a_class_over_all_images(): ...


@planted_gate("lets only a proven gain through", overall=lambda low, high, mean, margin: low > 0)
def only_better(): ...


@planted_gate("goes by the mean gain and not by the lower end", overall=lambda low, high, mean, margin: mean > -margin)
def by_the_mean(): ...


@planted_gate("does not use the class margin it is given", classes=lambda falls, margin: max(falls) <= 0.1)
def own_class_margin(): ...


@planted_gate("refuses a class that falls at all", classes=lambda falls, margin: max(falls) <= 0)
def no_fall_at_all(): ...


@planted_gate("does not use the margin it is given", overall=lambda low, high, mean, margin: low > -0.01)
def own_margin(): ...


@planted_gate(
    "class without images, or lets its nan decide",
    fall=lambda labels, old, new, gain: [float(-gain[labels == c].mean()) for c in range(int(labels.max()) + 1)],
)
def nan_of_an_absent_class(): ...
