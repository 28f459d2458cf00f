"""The server's metrics, in Prometheus' format.

With several processes, ``PROMETHEUS_MULTIPROC_DIR`` names the folder in which they add up; it must
be set before the first import of ``prometheus_client``.
"""

import os
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of a server."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        if MULTIPROCESS not in os.environ:
            ProcessCollector(registry=registry)
        self.requests = Counter(
            "ostinato_requests",
            "Requests by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "ostinato_request_seconds",
            "Time from a request's start to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_items = Histogram(
            "ostinato_batch_items",
            "Inputs in a batch.",
            ["model"],
            buckets=ITEMS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "ostinato_batch_seconds",
            "Time of the model for a batch.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livesum")
        self.queue = gauge(
            "ostinato_queue_items",
            "Inputs that wait for a model.",
            ["model"],
        )
        self.version = gauge(
            "ostinato_model_version",
            "Processes in which a version of a model is in use.",
            ["model", "version"],
        )
        self.failing = gauge(
            "ostinato_model_load_failing",
            "Processes in which the version that should be in use does not load.",
            ["model"],
        )
        self.log_rows = gauge(
            "ostinato_log_rows",
            "Rows of the request log since the start: written, or dropped for want of room.",
            ["table", "outcome"],
        )

    def text(self) -> bytes:
        """All metrics, of all processes."""
        if MULTIPROCESS in os.environ:
            together = CollectorRegistry()
            MultiProcessCollector(together)
            return generate_latest(together)
        return generate_latest(self.registry)

    def close(self) -> None:
        """Remove the gauges of this process from those of all."""
        if MULTIPROCESS in os.environ:
            mark_process_dead(os.getpid())
