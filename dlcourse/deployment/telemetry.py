"""What the service counts, in the form that Prometheus reads, in a registry of its own for each application."""

from __future__ import annotations

import time
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from dlcourse.deployment.limits import App, Message, Receive, Send

if TYPE_CHECKING:
    from dlcourse.deployment.monitoring import PredictionMonitor
    from dlcourse.deployment.predictor import Prediction
    from dlcourse.deployment.service import Service

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROUTES = frozenset({"/", "/predict", "/health", "/ready", "/model", "/metrics", "/monitor", "/samples"})
SIZES = (1, 2, 4, 8, 16, 32)


class Telemetry:
    """Counters, histograms and gauges of one application."""

    def __init__(self, classes: Sequence[str]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        self.requests = Counter("requests", "Requests answered.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "request_seconds",
            "From the headers of a request to the last byte of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch_size = Histogram("batch_size", "Pictures computed together.", buckets=SIZES, registry=self.registry)
        self.predictions = Counter(
            "predictions", "Answers, by the class that they name.", ["label"], registry=self.registry
        )
        self.confidence = Histogram(
            "confidence",
            "Probability of the class that was named.",
            buckets=[n / 10 for n in range(1, 11)],
            registry=self.registry,
        )
        self.queue = Gauge("queue_length", "Pictures that wait for the model.", registry=self.registry)
        self.ready = Gauge("ready", "1 when the model has answered its self-test.", registry=self.registry)
        self.alarms = Gauge("drift_alarms", "Windows in which the monitor found drift.", registry=self.registry)
        self._by_label = {label: self.predictions.labels(label) for label in classes}  # present from the start, at 0

    def predicted(self, prediction: Prediction) -> None:
        """Count one answer."""
        self._by_label[prediction.label].inc()
        self.confidence.observe(prediction.confidence)

    def text(self, service: Service, monitor: PredictionMonitor | None) -> bytes:
        """Everything, as Prometheus reads it."""
        from prometheus_client import generate_latest

        self.queue.set(0 if service.batcher is None else len(service.batcher))
        self.ready.set(service.ready)
        if monitor is not None:
            self.alarms.set(monitor.alarms)
        return generate_latest(self.registry)

    def middleware(self, app: App) -> App:
        """Counts and times each request under its route; paths that callers invent are one, "other"."""

        async def counted(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return await app(scope, receive, send)
            began, status = time.perf_counter(), 500

            async def sending(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
                await send(message)

            try:
                await app(scope, receive, sending)
            finally:
                route = scope["path"] if scope["path"] in ROUTES else "other"
                self.requests.labels(route, status).inc()
                self.seconds.labels(route).observe(time.perf_counter() - began)

        return counted
