"""What the doctor says: findings, worst first, as text, as HTML and as JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

CODES: Mapping[str, str] = {
    # the data
    "nonfinite-input": "an image holds NaN or infinity",
    "nonfinite-target": "a target holds NaN or infinity",
    "channel-order": "the channels are not where the model expects them",
    "constant-input": "images without content",
    "input-scale": "numbers too large or too small where the first weights meet them",
    "duplicate-or-leaking-data": "the same image twice, in both splits, or with its label written into it",
    # the labels
    "label-range": "a label outside the model's classes",
    "label-shift": "labels off by one: counted from 1, or each image with its neighbour's label",
    "label-noise": "labels that have nothing to do with the images",
    "target-scale": "numbers to predict far from what a new network answers",
    # the model and the loss
    "model-error": "the model raises an error",
    "batchnorm-batch-of-one": "batch norm has a single sample to normalise over",
    "in-place-input": "the model changes its input",
    "eval-mode-in-training": "dropout and batch norm are switched to evaluation",
    "nondeterministic-forward": "the same image gets another answer in evaluation",
    "loss-not-scalar": "the loss is a vector",
    "loss-target-mismatch": "shapes, types or meanings of outputs and targets do not match",
    "softmax-before-loss": "a softmax (sigmoid) in front of a loss that has its own",
    "output-range": "the last operation keeps the outputs from where the loss wants them",
    "loss-scale": "a loss that is summed, divided twice, or scaled",
    # the weights and what flows through them
    "nonfinite-parameter": "a weight is NaN or infinite",
    "zero-or-constant-init": "weights that start all equal, and stay so",
    "exploding-activations": "activations that grow from layer to layer",
    "exploding-gradient": "a gradient far larger than the loss calls for",
    "dead-units": "units that are 0 for every image",
    "saturated-activations": "sigmoid or tanh at their flat ends",
    "initial-loss": "a first loss far above that of knowing nothing",
    "frozen-parameters": "parameters that need no gradient",
    "detached-graph": "no gradient reaches a part that the outputs depend on",
    "wrong-direction": "the steps go uphill, at any rate",
    "unused-parameters": "parameters that the outputs do not depend on",
    "vanishing-gradient": "a gradient that fades on its way back",
    # the optimizer and the training
    "optimizer-of-another-model": "the optimizer holds none of the model's parameters",
    "parameter-not-in-optimizer": "parameters that no step will change",
    "stale-gradients": "gradients of earlier batches are still there",
    "weight-decay-too-strong": "the decay pulls harder than the gradient",
    "learning-rate-too-high": "the loss rises, and falls at a smaller rate",
    "learning-rate-too-low": "the loss stands still, and falls at a larger rate",
    "constant-output": "the same answer for every image, even after training",
    "capacity-too-small": "the model cannot even learn one batch by heart",
    # what the loader does
    "unshuffled": "the data come in order",
    "class-missing": "a class without samples",
    "class-imbalance": "classes of very different sizes",
}
"""Every code and what it means, in the order of cause and effect: what stands further up can be the cause of the rest."""

CONSEQUENCES: Mapping[str, frozenset[str]] = {
    "zero-or-constant-init": frozenset(
        {"dead-units", "vanishing-gradient", "constant-output", "capacity-too-small", "learning-rate-too-low"}
    ),
    "dead-units": frozenset(
        {"vanishing-gradient", "constant-output", "capacity-too-small", "learning-rate-too-low", "detached-graph"}
    ),
    "saturated-activations": frozenset(
        {"vanishing-gradient", "constant-output", "capacity-too-small", "learning-rate-too-low"}
    ),
    "vanishing-gradient": frozenset({"constant-output", "capacity-too-small", "learning-rate-too-low"}),
}
"""What a fault brings about by itself, so that it need not be treated on its own."""

SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be."""

    code: str
    """A key of `CODES`."""
    severity: str
    """"error": it will not learn, or learns the wrong thing. "warning": suspicious, may be meant. "info": good to know."""
    where: str
    """The layer, batch, class or parameter group."""
    evidence: str
    """What was seen, in numbers."""
    remedy: str

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"code={self.code!r} is not one of {', '.join(CODES)}")
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity={self.severity!r} is not one of {', '.join(SEVERITIES)}")

    @property
    def rank(self) -> tuple[int, int]:
        """Its place in a report: by severity, then by cause before effect."""
        return SEVERITIES.index(self.severity), list(CODES).index(self.code)


@dataclass(frozen=True)
class Report:
    """The findings of a diagnosis, worst first; among equals the cause before its effects."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    """What could not be examined, and why."""
    seconds: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        causes = {finding.code for finding in self.findings if finding.severity == "error"}
        followed = [
            (finding, next((c for c in causes if finding.code in CONSEQUENCES.get(c, ())), None))
            for finding in self.findings
        ]
        findings = [
            finding
            if cause is None
            else replace(finding, severity="info", remedy=f"follows from {cause}; treat that first")
            for finding, cause in followed
        ]
        object.__setattr__(self, "findings", tuple(sorted(findings, key=lambda finding: finding.rank)))

    @property
    def healthy(self) -> bool:
        """No finding of severity "error"."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def codes(self) -> list[str]:
        """The codes in the order of the findings."""
        return [finding.code for finding in self.findings]

    @property
    def verdict(self) -> str:
        counts = {s: sum(finding.severity == s for finding in self.findings) for s in SEVERITIES}
        found = ", ".join(f"{count} {severity}{'s' * (count > 1)}" for severity, count in counts.items() if count)
        return ("healthy" if self.healthy else "sick") + (f": {found}" if found else ": nothing found")

    def to_json(self, indent: int | None = 2) -> str:
        """The report as a JSON document: healthy, findings, notes, seconds."""
        return json.dumps({"healthy": self.healthy, **asdict(self)}, indent=indent)

    def __str__(self) -> str:
        lines = [self.verdict]
        if self.findings:
            lines += ["", f"{'severity':<9} {'code':<27} where"]
        for finding in self.findings:
            lines += [
                f"{finding.severity:<9} {finding.code:<27} {finding.where}",
                f"          seen:   {finding.evidence}",
                f"          remedy: {finding.remedy}",
            ]
        return "\n".join([*lines, *(f"not examined: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th style='text-align:left'>{name}</th>" for name in ("severity", "code", "where", "seen", "remedy")
        )
        rows = "".join(
            "<tr>" + "".join(
                f"<td style='text-align:left; vertical-align:top'>{html.escape(text)}</td>"
                for text in (f.severity, f.code, f.where, f.evidence, f.remedy)
            ) + "</tr>"
            for f in self.findings
        )  # fmt: skip
        notes = "".join(f"<p>not examined: {html.escape(note)}</p>" for note in self.notes)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
        return f"<p><b>{html.escape(self.verdict)}</b></p>{table}{notes}"
