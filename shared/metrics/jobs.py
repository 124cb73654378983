"""The metrics of the jobs role, whose numbers are in Redis: any role can show them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.later.lag import read_lag
from shared.redis.client import Client
from shared.redis.counts import read_counts


class JobsMetrics(Collector):
    """The counters, the sizes and the lag of the jobs role, as they were last read."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._done: dict[str, int] = {}
        self._ahead = Gauge(
            "tailrace_jobs_ahead",
            "Work of the jobs role that is not done: webhooks to deliver, hosts with due webhooks, "
            "schedules, unfinished batches.",
            ["what"],
            registry=registry,
        )
        self._due = Gauge(
            "tailrace_jobs_due_seconds",
            "For how long the oldest thing that the jobs role has to do has been due; 0: none is.",
            ["what"],
            registry=registry,
        )
        self._beats = Gauge(
            "tailrace_jobs_beat_seconds",
            "Seconds since the jobs role last asked for due work, and last swept the queue.",
            ["what"],
            registry=registry,
        )
        registry.register(self)

    def clear(self) -> None:
        """Show nothing: Redis does not answer."""
        self._done = {}
        for gauge in (self._ahead, self._due, self._beats):
            gauge.clear()

    async def update(self, redis: Client) -> None:
        """Read the numbers.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        self._done, ahead = await read_counts(redis)
        for what, number in ahead.items():
            self._ahead.labels(what).set(number)
        lag = await read_lag(redis)
        for what, age_s in lag.due.items():
            self._due.labels(what).set(age_s)
        for what, age_s in lag.beats.items():
            self._beats.labels(what).set(age_s)

    def collect(self) -> Iterator[Metric]:
        """Return the counters."""
        counters = CounterMetricFamily(
            "tailrace_jobs", "Work that the jobs role has done, in total.", labels=["what"]
        )
        for name, number in self._done.items():
            counters.add_metric([name], number)
        yield counters
