"""What a service should know of itself: how much, how fast, how sure, and whether the world has changed.

A monitor is told of every answer (`record`), keeps numbers and no pictures, and tests each window of answers against the
reference for drift. The test of a window takes a few milliseconds, in a thread of its own; no answer waits for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np

from dlcourse.deployment.drift import LEAST, DriftReport, Reference, check_rate, detect_drift
from dlcourse.deployment.observing import Observation, observe
from dlcourse.deployment.predictor import Prediction
from dlcourse.deployment.records import RecordLog

RECENT = 1000
"""Latency and the share of unsure answers are those of this many latest answers."""


class PredictionMonitor:
    """Counts, latency, confidence and drift of a model's answers; safe to call from several threads.

        monitor = PredictionMonitor(Reference.from_json(text), log="predictions.jsonl")
        monitor.record(prediction, predictor.prepare(picture), seconds=0.012)
        monitor.summary(), monitor.drift

    reference         what answers looked like in the test; None watches no drift
    window            how many answers are tested together, one window after the other
    false_alarm_rate  the chance of an alarm in a window in which nothing has changed: at most this, for each window
    low_confidence    below this an answer counts as unsure
    log               a file of JSON lines, one an answer, of at most 4 times 10 MB with its older files

    Raises ValueError for values out of range and for a log that cannot be written.
    """

    def __init__(
        self,
        reference: Reference | None = None,
        *,
        window: int = 200,
        false_alarm_rate: float = 0.01,
        low_confidence: float = 0.5,
        log: str | os.PathLike[str] | None = None,
    ) -> None:
        if window < LEAST:
            raise ValueError(f"window={window} must be at least {LEAST} answers")
        check_rate(false_alarm_rate)
        if not 0 <= low_confidence <= 1:
            raise ValueError(f"low_confidence={low_confidence} must lie between 0 and 1")
        self.reference, self.window, self.false_alarm_rate = reference, window, false_alarm_rate
        self.low_confidence = low_confidence
        self._log = None if log is None else RecordLog.at(log)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._recent: deque[tuple[float, float | None]] = deque(maxlen=RECENT)  # confidence, seconds
        self._filling: list[Observation] = []
        self._tester = ThreadPoolExecutor(max_workers=1, thread_name_prefix="drift")
        self._latest: Future[DriftReport | None] | None = None
        self.windows = self.alarms = 0
        self._failed = 0
        self._last_error = ""
        self._started = time.monotonic()

    def record(self, prediction: Prediction, image: np.ndarray | None = None, seconds: float | None = None) -> None:
        """Take note of one answer, of the prepared image (3, S, S) it was given for, and of how long it took.

        Never raises: what cannot be recorded is counted, and the summary says why.
        """
        try:
            if self.reference is not None and prediction.classes != self.reference.classes:
                raise ValueError("the answer has other classes than the reference: it is another model's")
            seen, label = observe(prediction, image), prediction.label
            with self._lock:
                self._counts[label] += 1
                self._recent.append((seen.values["confidence"], seconds))
                if self.reference is not None:
                    self._filling.append(seen)
                    if len(self._filling) == self.window:
                        full, self._filling = self._filling, []
                        self._latest = self._tester.submit(self._test, self.reference, full)
            if self._log is not None:
                self._log.write({"time": _now(), "label": label, "seconds": seconds, **seen.values})
        except Exception as error:  # the answer itself is right, and must reach whoever asked
            self._note(error)

    def _test(self, reference: Reference, observations: list[Observation]) -> DriftReport | None:
        """Runs in the thread of the tests."""
        try:
            live = Reference.from_observations(reference.classes, observations)
            report = detect_drift(reference, live, false_alarm_rate=self.false_alarm_rate)
        except Exception as error:
            self._note(error)
            return None
        with self._lock:
            self.windows += 1
            self.alarms += report.alarm
        if self._log is not None:
            self._log.write({"time": _now(), "drift": report.to_dict()})
        return report

    def _note(self, error: Exception) -> None:
        with self._lock:
            self._failed += 1
            self._last_error = f"{type(error).__name__}: {error}"

    @property
    def drift(self) -> DriftReport | None:
        """The report of the last full window; None before the first."""
        latest = self._latest
        return None if latest is None else latest.result()

    def summary(self) -> dict[str, Any]:
        """Everything counted, as plain values: for a page, for Prometheus, for JSON."""
        drift = self.drift  # waits for a test that is under way, so that its alarm is counted
        with self._lock:
            recent, counts = list(self._recent), dict(self._counts)
            windows, alarms, failed, last_error = self.windows, self.alarms, self._failed, self._last_error
        seconds = [each for _, each in recent if each is not None]
        unsure = sum(confidence < self.low_confidence for confidence, _ in recent)
        return {
            "predictions": sum(counts.values()),
            "classes": dict(sorted(counts.items())),
            "low_confidence": self.low_confidence,
            "low_confidence_share": unsure / len(recent) if recent else None,
            "latency_seconds": percentiles(seconds) if seconds else None,
            "windows": windows,
            "alarms": alarms,
            "drift": None if drift is None else str(drift),
            "uptime_seconds": time.monotonic() - self._started,
            "not_recorded": failed,
            "last_error": last_error,
            "log_lines_lost": 0 if self._log is None else self._log.lost,
        }

    def close(self) -> None:
        """Finish the test that is under way and let go of the log."""
        self._tester.shutdown()
        if self._log is not None:
            self._log.close()


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The median, and what 95 and 99 of 100 stay under."""
    return dict(zip(("p50", "p95", "p99"), np.percentile(seconds, [50, 95, 99]).tolist(), strict=True))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
