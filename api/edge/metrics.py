"""The metrics of an API node, in Prometheus form.

Each node has its own registry, so that several nodes in one process do not share metrics. The
counters of requests and prompts are here. At each scrape the hub's counters are read from the hub,
and the state of the queue and the workers is read from Redis, within `SCRAPE_S`. The hub counts
events in plain integers, because Prometheus counters take a lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Message, Scope

from api.body_room import BodyRoom
from api.edge.backend_metrics import BackendCollector
from api.hub.statistics import HubStatistics
from shared.backends.overview import BackendView, backend_views
from shared.config.redis_hosts import HostPort
from shared.errors import FilesUnavailable, Unavailable
from shared.files.objects import ObjectStore
from shared.metrics.jobs import JobsMetrics
from shared.metrics.prometheus import FirstTokenHistogram
from shared.queue.overview import depths_of, oldest_waiting_s
from shared.queue.partitions import Partitions
from shared.queue.presence import Presence, workers_seen
from shared.redis.client import Client
from shared.redis.cluster.shard_states import ShardState
from shared.redis.shards import is_partly_away
from shared.text.addresses import format_authority

SCRAPE_S = 1.0  # for one source of a scrape: Redis, or the disk
LAG_INTERVAL_S = 0.5  # between two measurements of the event loop's lag
_METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE", "WS")
_SOCKET_STATUS = {"websocket.accept": 101, "websocket.close": 403}
ACCEPT_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The registry of one node, and the metrics outside the hub."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.limit_refusals = _limit_refusals(self.registry)
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
        self.first_tokens = FirstTokenHistogram(self.registry)
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
            "Generations in the whole system: waiting by priority, running, waiting for a retry.",
            ["state"],
            registry=self.registry,
        )
        self.queue_oldest_seconds = Gauge(
            "tailrace_queue_oldest_seconds",
            "How long the generation that waits longest for a worker has waited.",
            ["priority"],
            registry=self.registry,
        )
        self.jobs = JobsMetrics(self.registry)
        self.files_free_bytes = Gauge(
            "tailrace_files_free_bytes",
            "Free bytes on the disk of the files; NaN where the files are in a bucket.",
            registry=self.registry,
        )
        self.lag_max_s = 0.0
        self.presences: list[Presence] = []
        self.backends: list[BackendView] = []
        self.registry.register(WorkerCollector(self))
        self.registry.register(BackendCollector(lambda: self.backends))

    def count_answer(self, scope: Scope, message: Message) -> None:
        """Count an answer by its first message, with the path of its route as a label.

        The requested path and unknown methods are not labels, because clients could create any
        number of labels.
        """
        route = getattr(scope.get("endpoint"), "path", "none")
        method = scope.get("method", "WS")
        status = message.get("status", _SOCKET_STATUS.get(message["type"], 0))
        self.requests.labels(route, method if method in _METHODS else "other", str(status)).inc()

    async def watch_loop(self) -> None:
        """Measure the lag of the event loop until cancelled."""
        while True:
            due_s = time.monotonic() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            lag_s = max(0.0, time.monotonic() - due_s)
            self.loop_lag_seconds.set(lag_s)
            self.lag_max_s = max(self.lag_max_s, lag_s)

    def take_lag_max(self) -> float:
        """Return the longest lag since the last call, s."""
        lag_s, self.lag_max_s = self.lag_max_s, 0.0
        return lag_s

    def watch_hub(self, statistics: Callable[[], HubStatistics]) -> None:
        """Add the hub's counters to the registry."""
        self.registry.register(HubCollector(statistics))

    def watch_shards(self, states: Callable[[], Mapping[HostPort, ShardState]]) -> None:
        """Add the state of each master of a cluster to the registry."""
        self.registry.register(ShardCollector(states))

    def watch_bodies(self, room: BodyRoom) -> None:
        """Add the memory for bodies to the registry."""
        used = Gauge(
            "tailrace_bodies_bytes",
            "Bytes of large request bodies and messages that are not accepted yet.",
            registry=self.registry,
        )
        used.set_function(lambda: room.used)
        self.registry.register(BodyCollector(room))

    async def update_free_bytes(self, objects: ObjectStore) -> None:
        """Update the free bytes of the file store; NaN: unknown, or no answer in `SCRAPE_S`."""
        free: int | None = None
        with suppress(FilesUnavailable, TimeoutError):
            async with asyncio.timeout(SCRAPE_S):
                free = await objects.free_bytes()
        self.files_free_bytes.set(float("nan") if free is None else free)

    async def update_from_redis(self, redis: Client, partitions: Partitions) -> None:
        """Update the metrics from Redis; without an answer in `SCRAPE_S` they stay empty."""
        self.queue_depth.clear()
        self.queue_oldest_seconds.clear()
        self.jobs.clear()
        self.presences, self.backends = [], []
        self.redis_up.set(0)
        try:
            async with asyncio.timeout(SCRAPE_S):
                await self._update_queue(redis, partitions)
                self.redis_up.set(1)
                self.presences = await workers_seen(redis)
                self.backends = await backend_views(redis)
                await self.jobs.update(redis)
        except (Unavailable, TimeoutError):
            self.redis_up.set(float(is_partly_away(redis)))

    async def _update_queue(self, redis: Client, partitions: Partitions) -> None:
        depths = await depths_of(redis, partitions)
        ages_s = await oldest_waiting_s(redis, partitions)
        for state, depth in depths.items():
            self.queue_depth.labels(state).set(depth)
        for priority, age_s in ages_s.items():
            self.queue_oldest_seconds.labels(priority).set(age_s)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def _limit_refusals(registry: CollectorRegistry) -> Counter:
    return Counter(
        "tailrace_limit_refusals_total",
        "Prompts and readers that this node refused for a limit of their owner.",
        ["code"],
        registry=registry,
    )


# A field of HubStatistics and its help text. Counters start at 0 with the process.
HUB_GAUGES = (
    ("relays", "Logs of which this node has a copy."),
    ("bytes_kept", "Bytes of those copies."),
    ("is_live", "Whether the live connection is up and receives its own probe."),
)
HUB_COUNTERS = (
    ("events_delivered", "Events written to subscribers."),
    ("bytes_delivered", "Bytes of those events, as framed and compressed."),
    ("cuts", "Subscribers cut for reading too slowly."),
    ("rotations", "Subscribers broken off at the maximum age of a connection."),
    ("resumes", "Subscribers that began at a cursor."),
    ("resets", "Subscribers sent back to the start after a loss."),
    (
        "repairs",
        "Times that an up-to-date copy was read again, because entries might have been missing.",
    ),
    ("reconnects", "Times the live connection was opened again."),
    ("probes_lost", "Probes that the live connection did not receive in time."),
)


class HubCollector(Collector):
    """The hub's counters, read at each scrape."""

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
        for name, help_text in HUB_GAUGES:
            yield GaugeMetricFamily(
                f"tailrace_hub_{name}", help_text, float(getattr(statistics, name))
            )
        for name, help_text in HUB_COUNTERS:
            yield CounterMetricFamily(f"tailrace_hub_{name}", help_text, getattr(statistics, name))


class ShardCollector(Collector):
    """The masters of a cluster as this node sees them, read at each scrape; none: no lines."""

    def __init__(self, states: Callable[[], Mapping[HostPort, ShardState]]) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "tailrace_redis_shard_up", "Whether this master answers.", labels=["shard"]
        )
        ping = GaugeMetricFamily(
            "tailrace_redis_shard_ping_seconds",
            "How long this master took to answer the last PING.",
            labels=["shard"],
        )
        errors = CounterMetricFamily(
            "tailrace_redis_shard_errors",
            "Exchanges with this master that got no answer.",
            labels=["shard"],
        )
        states = self._states()
        for address, state in states.items():
            name = format_authority(*address)
            up.add_metric([name], float(not state.is_away))
            ping.add_metric([name], state.ping_s)
            errors.add_metric([name], state.errors)
        if states:
            yield from (up, ping, errors)


class BodyCollector(Collector):
    """The bodies without room, read at each scrape."""

    def __init__(self, room: BodyRoom) -> None:
        self._room = room

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "tailrace_bodies_refused",
            "Bodies and messages that were refused because the node held too many.",
            self._room.refusals,
        )


class WorkerCollector(Collector):
    """The state and the counters of the workers, from the last read of Redis."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        presences = self._metrics.presences
        yield GaugeMetricFamily(
            "tailrace_workers", "Workers with a recent sign of life.", len(presences)
        )
        slots = GaugeMetricFamily(
            "tailrace_worker_slots", "Generations that a worker runs at once.", labels=["worker"]
        )
        running = GaugeMetricFamily(
            "tailrace_worker_running", "Generations that a worker runs now.", labels=["worker"]
        )
        counters = CounterMetricFamily(
            "tailrace_worker",
            "Counters of a worker since it started.",
            labels=["worker", "what"],
        )
        for presence in presences:
            slots.add_metric([presence.worker], presence.slots)
            running.add_metric([presence.worker], presence.running)
            for name, value in presence.counters.items():
                counters.add_metric([presence.worker, name], value)
        yield from (slots, running, counters)
