"""Measure what each trick of the fast recipe buys: alone, added to an ordinary training, and left out of the whole.

    python tests/recipes/waterfall.py --cifar FOLDER --images 10000 --epochs 4 --seeds 5

FOLDER holds cifar-10-batches-py. The images are some of the training set's, and 2,000 others of it are evaluated: the test
set decides nothing. A trick's effect is the median over the seeds of the paired differences; the whole range stands beside it.
Finished trainings are kept in --results and not repeated. For the tricks that save seconds (bf16, channels last), the seconds
of a training count; they are worth something only when nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from cifar import held_out, open_cifar

from dlcourse.recipes import TRICKS, FastRecipe, train_fast

SPEED = ("bf16", "channels last", "small start")


def variants() -> dict[str, tuple[str, ...]]:
    """What is left out in each of the trainings."""
    accurate = [trick for trick in TRICKS if trick not in SPEED]
    return {
        "whole": (),
        "ordinary": tuple(accurate),
        **{f"only {trick}": tuple(other for other in accurate if other != trick) for trick in accurate},
        **{f"without {trick}": (trick,) for trick in TRICKS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", required=True, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--widths", type=int, nargs=3, default=FastRecipe.widths)
    parser.add_argument("--batch", type=int, default=FastRecipe.batch_size)
    parser.add_argument("--results", type=Path, help="a JSON file of finished trainings")
    given = parser.parse_args()
    whole = FastRecipe(given.epochs, widths=tuple(given.widths), batch_size=given.batch)
    train, val = held_out(open_cifar(given.cifar, train=True), 2000, given.images)
    done = json.loads(given.results.read_text()) if given.results and given.results.exists() else {}
    for seed in range(given.seeds):  # all variants before the next seed: a slow moment meets all
        for name, left_out in variants().items():
            if (key := f"{name}, seed {seed}") in done:
                continue
            last = train_fast(whole.without(*left_out), train, val, seed=seed)[1][-1]
            done[key] = [100 * last.accuracy, last.seconds]
            print(f"{key}: {done[key][0]:.2f} % in {done[key][1]:.1f} s", flush=True)
            if given.results:
                given.results.write_text(json.dumps(done))

    def over_seeds(name: str, which: int = 0) -> list[float]:
        return [done[f"{name}, seed {seed}"][which] for seed in range(given.seeds)]

    def effect(name: str, other: str) -> str:
        gains = [a - b for a, b in zip(over_seeds(name), over_seeds(other), strict=True)]
        return f"{statistics.median(gains):+6.2f} ({min(gains):+.2f} to {max(gains):+.2f})"

    for name in ("ordinary", "whole"):
        print(f"{name}: {statistics.median(over_seeds(name)):.2f} % in {statistics.median(over_seeds(name, 1)):.1f} s")
    print(f"{'trick':18} {'alone, points':26} {'left out of the whole, points':30} seconds without / with")
    for trick in TRICKS:
        alone = effect(f"only {trick}", "ordinary") if trick not in SPEED else ""
        pairs = zip(over_seeds(f"without {trick}", 1), over_seeds("whole", 1), strict=True)
        print(
            f"{trick:18} {alone:26} {effect(f'without {trick}', 'whole'):30} {statistics.median(a / b for a, b in pairs):.2f}"
        )


if __name__ == "__main__":
    main()
