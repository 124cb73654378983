"""Opens the metrics port of a worker or a jobs role. Loaded only if the settings name a port."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager

from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.metrics.jobs import JobsMetrics
from shared.metrics.port import MetricsPort, new_registry
from shared.metrics.prometheus import WorkerMetrics
from shared.redis.client import Client

REDIS_S = 1.0  # for Redis, in one scrape


def worker_port(settings: Settings) -> tuple[WorkerMetrics, AbstractAsyncContextManager[int]]:
    """Return the metrics of a worker, and the port that shows them within `async with`."""
    registry = new_registry()
    port = MetricsPort(registry).listening(settings.metrics_host, settings.metrics_port)
    return WorkerMetrics(registry), port


def jobs_port(settings: Settings, redis: Client) -> AbstractAsyncContextManager[int]:
    """Return the metrics port of a jobs role, for `async with`."""
    registry = new_registry()
    metrics = JobsMetrics(registry)

    async def refresh() -> None:
        metrics.clear()
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(REDIS_S):
                await metrics.update(redis)

    return MetricsPort(registry, refresh).listening(settings.metrics_host, settings.metrics_port)
