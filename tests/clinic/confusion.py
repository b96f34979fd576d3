"""How well the doctor does: every planted fault and every healthy training diagnosed, and what was found instead.

    python tests/clinic/confusion.py [pattern] [--seed 0] [--all]

`pattern` chooses trainings by a part of their name or of a planted code; --all lists every training with its findings.
The exit status is 1 when fewer than 95 % of the faults are among the first findings (two for one fault, three for two),
or when a healthy training gets a finding of severity "error".
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass

from faults import FAULTS
from healthy import HEALTHY
from patients import Case
from traces import changes, snapshot

from dlcourse.runtime import progress

LEAST_SHARE = 0.95
PLACES = ("first", "second", "later", "missed")


@dataclass
class Outcome:
    case: Case
    found: list[str]
    severities: list[str]
    seconds: float
    trace: list[str]
    failure: str = ""

    def place(self, code: str) -> str:
        """Where `code` stands among the findings; the other fault of a pair takes no place from it."""
        others = [found for found in self.found if found == code or found not in self.case.codes]
        return PLACES[min(others.index(code), 2)] if code in others else "missed"

    @property
    def right(self) -> bool:
        return set(self.case.codes) <= set(self.found[: 1 + len(self.case.codes)])

    @property
    def errors(self) -> list[str]:
        return [code for code, severity in zip(self.found, self.severities, strict=True) if severity == "error"]


def examine(case: Case, seed: int) -> Outcome:
    from dlcourse.diagnostics import diagnose

    training = case.build(seed)
    before = snapshot(training)
    findings, failure = (), ""
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            findings = diagnose(
                training.model, training.loader, training.loss_fn, training.optimizer, val_loader=training.val_loader
            ).findings
    except Exception as error:
        failure = f"diagnose raised {type(error).__name__}: {error}"
    seconds = time.perf_counter() - started
    codes, severities = [finding.code for finding in findings], [finding.severity for finding in findings]
    return Outcome(case, codes, severities, seconds, changes(before, snapshot(training)), failure)


def chosen(cases: list[Case], pattern: str) -> list[Case]:
    return [case for case in cases if pattern in case.name or any(pattern in code for code in case.codes)]


def table_of_faults(outcomes: list[Outcome]) -> None:
    places: dict[str, Counter[str]] = defaultdict(Counter)
    instead: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        for code in outcome.case.codes:
            place = outcome.place(code)
            places[code][place] += 1
            if place in ("later", "missed"):
                others = [found for found in outcome.found if found not in outcome.case.codes]
                instead[code].update(others[:2] or ["nothing"])
    print(f"{'planted':28s}" + "".join(f"{place:>8s}" for place in PLACES) + "  found instead")
    for code, row in places.items():
        others = ", ".join(f"{name} {count}" for name, count in instead[code].most_common(4))
        print(f"{code:28s}" + "".join(f"{row[place] or '·':>8}" for place in PLACES) + f"  {others}".rstrip())
    total = Counter(place for row in places.values() for place in row.elements())
    print(f"{'all':28s}" + "".join(f"{total[place]:8d}" for place in PLACES))


def share_of_faults(outcomes: list[Outcome]) -> float:
    single = [outcome for outcome in outcomes if len(outcome.case.codes) == 1]
    pairs = [outcome for outcome in outcomes if len(outcome.case.codes) > 1]
    if single:
        first = sum(outcome.found[:1] == list(outcome.case.codes) for outcome in single)
        within = sum(outcome.right for outcome in single)
        print(f"one fault:  first finding {first}/{len(single)} = {first / len(single):.1%}, "
              f"first two {within}/{len(single)} = {within / len(single):.1%}")  # fmt: skip
    if pairs:
        print(f"two faults: both among the first three {sum(outcome.right for outcome in pairs)}/{len(pairs)}")
    return sum(outcome.right for outcome in outcomes) / len(outcomes)


def false_alarms(outcomes: list[Outcome]) -> None:
    alarms = Counter(
        (severity, code)
        for outcome in outcomes
        for severity, code in set(zip(outcome.severities, outcome.found, strict=True))
    )
    clean = sum(not outcome.found for outcome in outcomes)
    alarmed = [outcome for outcome in outcomes if outcome.errors]
    print(f"\nhealthy: {len(outcomes)}, with an error {len(alarmed)}, without any finding {clean}")
    for severity in ("error", "warning", "info"):
        codes = Counter({code: count for (kind, code), count in alarms.items() if kind == severity})
        print(f"  {severity:8s} " + (", ".join(f"{code} {count}" for code, count in codes.most_common()) or "none"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="list every training with its findings")
    options = parser.parse_args()
    cases = chosen([*FAULTS, *HEALTHY], options.pattern)
    if not cases:
        print(f"no training's name or code holds {options.pattern!r}")
        return 1
    outcomes = [examine(case, options.seed) for case in progress(cases, "clinic")]
    ill = [outcome for outcome in outcomes if outcome.case.codes]
    well = [outcome for outcome in outcomes if not outcome.case.codes]
    share = 1.0
    if ill:
        table_of_faults(ill)
        share = share_of_faults(ill)
    if well:
        false_alarms(well)
    seconds = [outcome.seconds for outcome in outcomes]
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    print(f"\na diagnosis: median {statistics.median(seconds):.2f} s, longest {slowest.seconds:.2f} s "
          f"({slowest.case}), together {sum(seconds):.0f} s")  # fmt: skip
    traced = [outcome for outcome in outcomes if outcome.trace]
    print(f"left a trace: {len(traced)}")
    for outcome in traced:
        print(f"  {outcome.case}: {', '.join(outcome.trace[:4])}")
    for outcome in outcomes:
        bad = outcome.failure or (not outcome.right if outcome.case.codes else outcome.errors)
        if bad or options.all:
            planted = " + ".join(outcome.case.codes) or "healthy"
            found = ", ".join(f"{code} ({kind})" for code, kind in zip(outcome.found, outcome.severities, strict=True))
            print(
                f"{'✗' if bad else '✓'} {outcome.case}: planted {planted}; found {outcome.failure or found or 'nothing'}"
            )
    failed = [outcome for outcome in well if outcome.errors or outcome.failure]
    return int(share < LEAST_SHARE or bool(failed))


if __name__ == "__main__":
    sys.exit(main())
