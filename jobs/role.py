"""The jobs role: asks each source of background work for due jobs, and lets arq run them.

It asks once a second, and also when another process pushes onto a list in Redis. Any number of jobs
processes may run: each asks, and arq runs a job in one of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from arq import cron
from arq.cron import CronJob
from redis.exceptions import RedisError

from jobs.arq_worker import AWAY_PAUSE_S, JobsWorker, build_worker, pause
from jobs.batch.hooks import batch_end, scheduled_batches
from jobs.batch.source import build_batches
from jobs.janitor import Rounds, round_cron
from jobs.owners import Owners
from jobs.schedules import Firings, generations
from jobs.source import Source
from jobs.stream_wakes import StreamWakes
from jobs.webhooks import Webhooks
from shared.batches.record import Batches
from shared.config.logs import configure
from shared.config.models import load_models
from shared.config.redis_url import RedisUrl
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.files.store import FileStore
from shared.later.lag import POLLED, SWEPT, note_beat
from shared.later.schedules import Schedules
from shared.log.store import Store
from shared.queue.accept import Acceptor
from shared.queue.janitor import Janitor
from shared.queue.model_lists import follow_list
from shared.queue.partitions import agree
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.connections import connect
from shared.redis.following import follow_redis
from shared.redis.server_check import check_server, find_jobs_url

log = logging.getLogger(__name__)

SWEEP_NAME = "cron:tailrace:sweep"  # as `jobs.janitor.NAME`
SWEEP_EVERY_S = 2
SWEEP_TIMEOUT_S = 20
DUE_POLL_S = 1  # between two questions to the sources, unless woken
RETIRE_S = 1.0  # for the present poll of the queue to end; Redis may be away


async def sweep(ctx: dict[Any, Any]) -> int:
    """Make one pass of the queue's janitor. If Redis is away, the next pass does the rest."""
    janitor: Janitor = ctx["janitor"]
    try:
        found = await janitor.sweep()
        await note_beat(janitor.redis, SWEPT)
        return found
    except Unavailable:
        return 0


def janitor_cron() -> CronJob:
    """Return the cron job of the queue's janitor."""
    every = set(range(0, 60, SWEEP_EVERY_S))
    return cron(
        sweep, name=SWEEP_NAME, second=every, timeout=SWEEP_TIMEOUT_S, keep_result=0, max_tries=1
    )


def serve(settings: Settings) -> int:
    """Run the jobs role until SIGTERM or SIGINT, and return the exit code.

    Raises:
        ConfigurationError: a setting, the models file or the Redis server cannot be used.
    """
    configure(settings, "jobs")
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    redis = connect(settings)
    store = Store(redis, settings)
    models = load_models(settings.models, settings.models_skip).for_clients()
    batches, files = Batches(redis, settings), FileStore(redis, settings)
    owners = Owners.from_settings(settings, redis)
    kinds = {
        "generation": generations(Acceptor(redis, store, settings), models, settings, owners),
        "batch": scheduled_batches(batches, files, settings),
    }
    sources: list[Source] = [
        Webhooks(redis, settings, {"batch": batch_end(batches)}),
        Firings(store, Schedules(redis, settings.schedules_max), kinds, owners),
        build_batches(redis, store, settings, owners, models=models),
        StreamWakes(redis, settings),
    ]
    functions = [function for source in sources for function in source.functions]
    url = await _reach(store, stopping)
    if url is not None:
        worker = build_worker(url, functions, [janitor_cron(), round_cron()])
        worker.ctx["rounds"] = Rounds(redis, files, settings)
        worker.ctx["janitor"] = Janitor(redis, store, settings)
        worker.ctx["stopping"] = stopping
        sys.stderr.write("tailrace jobs ready\n")
        sys.stderr.flush()
        async with _metrics_port(settings, redis), asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(follow_redis(settings))
            learning = tasks.create_task(follow_list(redis, models))
            await work(worker, redis, sources, stopping, settings.drain_s)
            watching.cancel()
            learning.cancel()
    await redis.aclose()
    return 0


def _metrics_port(settings: Settings, redis: Client) -> AbstractAsyncContextManager[int]:
    if not settings.metrics_port:
        return nullcontext(0)
    from shared.metrics.role_port import jobs_port

    return jobs_port(settings, redis)


async def _reach(store: Store, stopping: asyncio.Event) -> RedisUrl | None:
    """Wait for Redis, because roles may start in any order.

    Returns:
        The place of arq's queue; None: told to stop before Redis answered.
    """
    while not stopping.is_set():
        try:
            await check_server(store.redis)
            await agree(store.redis, store.settings)
            url, is_shared = await find_jobs_url(store.settings)
            if is_shared:
                log.info("jobs share database", extra={"database": url.database})
            return url
        except Unavailable as exc:
            log.warning("redis away", extra={"reason": str(exc)})
            await pause(stopping, AWAY_PAUSE_S * random.uniform(1, 3))
    return None


async def work(
    worker: JobsWorker,
    redis: Client,
    sources: Sequence[Source],
    stopping: asyncio.Event,
    drain_s: float,
) -> None:
    """Run due jobs until `stopping`; then wait up to `drain_s` s for running jobs to end."""
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(worker.main())
        queueing = tasks.create_task(_queue_due(worker, redis, sources))
        await stopping.wait()
        queueing.cancel()
        worker.retire()
        if worker.tasks:
            await asyncio.wait(list(worker.tasks.values()), timeout=drain_s)
        for job in worker.tasks.values():
            job.cancel()
        await asyncio.wait([working], timeout=RETIRE_S)
        working.cancel()
    try:
        await worker.close()
    except (RedisError, OSError):
        pass  # the key of the health check expires by itself


async def _queue_due(worker: JobsWorker, redis: Client, sources: Sequence[Source]) -> None:
    while True:
        try:
            for source in sources:
                for job in await source.due():
                    await worker.enqueue(job)
            await note_beat(redis, POLLED)
            await _wake_up(redis)
        except (Unavailable, RedisError, OSError) as exc:
            log.warning("redis away", extra={"reason": str(exc)})
            await asyncio.sleep(AWAY_PAUSE_S * random.uniform(1, 3))


async def _wake_up(redis: Client) -> None:
    """Return when another process wakes this one, or after `DUE_POLL_S`."""
    with translated():
        await redis.blpop([keys.JOBS_WAKE], timeout=DUE_POLL_S)  # type: ignore[misc]
