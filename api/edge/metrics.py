"""What an API node counts, in Prometheus form.

One registry per process and node: nothing global, so tests and several nodes in one process do not
meet. Counters of requests and prompts are kept here; what the hub counts is read from it when
somebody scrapes, and what only Redis knows (queue, workers) is asked for then, within a bound.
Nothing is counted per event with a lock: the hub keeps plain integers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Message, Scope

from api.hub.statistics import HubStatistics
from shared.errors import FilesUnavailable, Unavailable
from shared.files.objects import ObjectStore
from shared.queue.lanes import Presence, queue_depths, workers_seen
from shared.redis.client import Client
from shared.redis.counts import read_counts

SCRAPE_S = 1.0
LAG_EVERY_S = 0.5
_METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE", "WS")
_SOCKET_STATUS = {"websocket.accept": 101, "websocket.close": 403}
ACCEPT_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# A time of birth beside each counter would double what is scraped; nothing here needs it.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The registry of one node and what is counted outside the hub."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tailrace_http_requests_total",
            "Answers begun, by route and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.accepted = Counter(
            "tailrace_generations_accepted_total",
            "Prompts accepted by this node, repeats left out.",
            ["priority"],
            registry=self.registry,
        )
        self.accept_seconds = Histogram(
            "tailrace_accept_seconds",
            "Time to put a prompt on Redis.",
            buckets=ACCEPT_BUCKETS,
            registry=self.registry,
        )
        self.loop_lag_seconds = Gauge(
            "tailrace_loop_lag_seconds",
            "How late the event loop last ran a timer.",
            registry=self.registry,
        )
        self.redis_up = Gauge(
            "tailrace_redis_up", "Whether Redis answered this scrape.", registry=self.registry
        )
        self.queue_depth = Gauge(
            "tailrace_queue_depth",
            "Generations on the whole system: waiting by priority, running, to be tried later.",
            ["state"],
            registry=self.registry,
        )
        self.jobs_ahead = Gauge(
            "tailrace_jobs_ahead",
            "What the jobs role has before it: what will have to be told to a webhook, hosts of "
            "webhooks that are due, schedules, unfinished batches.",
            ["what"],
            registry=self.registry,
        )
        self.files_free_bytes = Gauge(
            "tailrace_files_free_bytes",
            "Free bytes on the disk of the files; not a number where they lie in a bucket.",
            registry=self.registry,
        )
        self.jobs_done: dict[str, int] = {}
        self.presences: list[Presence] = []
        self.registry.register(JobsCollector(self))
        self.registry.register(WorkerCollector(self))

    def count_answer(self, scope: Scope, message: Message) -> None:
        """Count an answer by its first message, under its route's path.

        Never under the path that was asked for, or the method: labels must be few.
        """
        route = getattr(scope.get("endpoint"), "path", "none")
        method = scope.get("method", "WS")
        status = message.get("status", _SOCKET_STATUS.get(message["type"], 0))
        self.requests.labels(route, method if method in _METHODS else "other", str(status)).inc()

    async def watch_loop(self) -> None:
        """Measure how late the loop is, until cancelled."""
        while True:
            due = time.monotonic() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self.loop_lag_seconds.set(max(0.0, time.monotonic() - due))

    def watch_hub(self, statistics: Callable[[], HubStatistics]) -> None:
        """Show what the hub counts."""
        self.registry.register(HubCollector(statistics))

    async def ask_disk(self, objects: ObjectStore) -> None:
        """Bring up to date what is free for files."""
        free: int | None = None
        with suppress(FilesUnavailable, TimeoutError):
            async with asyncio.timeout(SCRAPE_S):
                free = await objects.free_bytes()
        self.files_free_bytes.set(float("nan") if free is None else free)

    async def ask_redis(self, redis: Client) -> None:
        """Bring up to date what only Redis knows; what it does not answer in time is left out."""
        self.queue_depth.clear()
        self.jobs_ahead.clear()
        self.presences, self.jobs_done = [], {}
        try:
            async with asyncio.timeout(SCRAPE_S):
                depths = await queue_depths(redis)
                self.presences = await workers_seen(redis)
                self.jobs_done, ahead = await read_counts(redis)
        except (Unavailable, TimeoutError):
            self.redis_up.set(0)
            return
        self.redis_up.set(1)
        for state, depth in depths.items():
            self.queue_depth.labels(state).set(depth)
        for what, number in ahead.items():
            self.jobs_ahead.labels(what).set(number)

    def render(self) -> bytes:
        """Return the text format."""
        return generate_latest(self.registry)


# Field of HubStatistics, what it is, and its help; counters start at 0 with the process.
HUB_GAUGES = (
    ("relays", "Logs that this node holds a copy of."),
    ("bytes_kept", "Bytes of those copies."),
    ("is_live", "Whether the live connection is up and hears its own probe."),
)
HUB_COUNTERS = (
    ("events_delivered", "Events written to subscribers."),
    ("bytes_delivered", "Bytes of those events, as framed."),
    ("cuts", "Subscribers cut for reading too slowly."),
    ("rotations", "Subscribers broken off because they had been connected for long enough."),
    ("resets", "Subscribers sent back to the start after a loss."),
    ("repairs", "Times a copy was read again because a live frame did not fit."),
    ("reconnects", "Times the live connection was made anew."),
    ("probes_lost", "Probes that the live connection did not hear in time."),
)


class HubCollector(Collector):
    """What the hub has counted, read when somebody scrapes."""

    def __init__(self, statistics: Callable[[], HubStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        statistics = self._statistics()
        subscribers = GaugeMetricFamily(
            "tailrace_subscribers", "Connected readers.", labels=["transport"]
        )
        for transport, count in statistics.connections.items():
            subscribers.add_metric([transport], count)
        yield subscribers
        for name, text in HUB_GAUGES:
            yield GaugeMetricFamily(f"tailrace_hub_{name}", text, float(getattr(statistics, name)))
        for name, text in HUB_COUNTERS:
            yield CounterMetricFamily(f"tailrace_hub_{name}", text, getattr(statistics, name))


class JobsCollector(Collector):
    """What the jobs role had counted when Redis was asked last."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        counted = CounterMetricFamily(
            "tailrace_jobs", "What the jobs role has done, ever.", labels=["what"]
        )
        for name, number in self._metrics.jobs_done.items():
            counted.add_metric([name], number)
        yield counted


class WorkerCollector(Collector):
    """What the workers said of themselves when Redis was asked last."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        presences = self._metrics.presences
        yield GaugeMetricFamily(
            "tailrace_workers", "Workers that have said that they are there.", len(presences)
        )
        slots = GaugeMetricFamily(
            "tailrace_worker_slots", "Generations that a worker runs at once.", labels=["worker"]
        )
        running = GaugeMetricFamily(
            "tailrace_worker_running", "Generations that a worker runs now.", labels=["worker"]
        )
        counted = CounterMetricFamily(
            "tailrace_worker",
            "What a worker has counted since it started.",
            labels=["worker", "what"],
        )
        for presence in presences:
            slots.add_metric([presence.worker], presence.slots)
            running.add_metric([presence.worker], presence.running)
            for name, value in presence.counters.items():
                counted.add_metric([presence.worker, name], value)
        yield from (slots, running, counted)
