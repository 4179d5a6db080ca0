"""The metrics of a server, in the format of Prometheus. Each server has its own registry."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts requests, batches and waiting questions."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tinyllm_requests", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "tinyllm_request_seconds", "Time from a request to its answer.", ["route"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "tinyllm_batch_questions", "Questions in a batch.", buckets=_SIZES, registry=self._registry
        )
        self._computing = Counter(
            "tinyllm_computing_seconds", "Time in which the student computed.", registry=self._registry
        )
        Gauge("tinyllm_waiting_questions", "Questions that wait.", registry=self._registry).set_function(waiting)

    def batch(self, questions: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.observe(questions)
        self._computing.inc(seconds)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered or refused."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        text: bytes = generate_latest(self._registry)
        return text
