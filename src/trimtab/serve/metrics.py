"""What Prometheus may ask of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trimtab.serve.worker import Worker


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self, worker: Worker) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Load(worker))
        own = {"namespace": "trimtab", "registry": self.registry}
        self.requests = Counter("requests", "Requests answered.", ["path", "status"], **own)  # type: ignore[arg-type]
        self.seconds = Histogram("request_seconds", "Time to the end of the answer.", ["path"], **own)  # type: ignore[arg-type]
        self.first = Histogram("first_byte_seconds", "Time to the first byte of the answer.", ["path"], **own)  # type: ignore[arg-type]
        self.tokens = Counter("generated_tokens", "Tokens written.", **own)  # type: ignore[arg-type]

    def token(self) -> None:
        """Count a token that was written."""
        self.tokens.inc()

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


class _Load(Collector):
    """How busy the engine is at the moment of asking."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def collect(self) -> Iterable[GaugeMetricFamily]:
        active, rows = len(self.worker.engine.active), self.worker.rows
        yield GaugeMetricFamily("trimtab_active_texts", "Texts being written.", active)
        yield GaugeMetricFamily("trimtab_waiting_texts", "Texts that wait for a place.", max(0, rows - active))
