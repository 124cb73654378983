"""The jobs role: what runs on a schedule, on arq. Today that is the janitor's pass.

arq is good at schedules and at small jobs that may run twice. Its own loop dies with the connection
and its payloads are pickles; here the loop comes back, and payloads are JSON.
Source: docs/adr/0003-prompts-not-through-arq.md.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from arq import cron
from arq.connections import ArqRedis
from arq.worker import Worker
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from shared.errors import Unavailable
from shared.janitor import Janitor
from shared.logs import configure
from shared.redis_client import ANSWER_S, CONNECT_S, check_server, connect, make_cancellable
from shared.settings import Settings
from shared.store import Store

log = logging.getLogger(__name__)

QUEUE = "tr:jobs"
SWEEP_EVERY_S = 2
SWEEP_TIMEOUT_S = 20
POLL_S = 1.0
AWAY_PAUSE_S = 0.5
PLANNED_AHEAD_S = 5.0  # arq queues what is due within two polls; what is later can be planned again


class JobsWorker(Worker):
    """arq's worker, which outlives its connection.

    Uses two of its private names, `_pool` and `_poll_iteration`; arq is frozen and pinned, and
    tests/integration/test_jobs.py stands guard.
    """

    async def main(self) -> None:
        self.ctx["redis"] = self.pool
        while True:
            self._follow_clock()
            try:
                await self._poll_iteration()
                pause_s = POLL_S
            except (RedisError, OSError) as exc:
                log.warning("redis away", extra={"reason": str(exc)})
                pause_s = AWAY_PAUSE_S * random.uniform(1, 3)
            await asyncio.sleep(pause_s)

    def _follow_clock(self) -> None:
        """arq plans by the wall clock: where that was set back, the plan is made anew."""
        latest = datetime.now(UTC) + timedelta(seconds=PLANNED_AHEAD_S)
        for job in self.cron_jobs:
            if job.next_run is not None and job.next_run > latest:
                job.next_run = None

    async def close(self) -> None:
        """As arq's, without the deprecated call."""
        await self.pool.delete(self.health_check_key)
        await self.pool.aclose(close_connection_pool=True)


async def sweep(ctx: dict[Any, Any]) -> int:
    """One pass of the janitor; the next one does what this one could not."""
    janitor: Janitor = ctx["janitor"]
    try:
        return await janitor.sweep()
    except Unavailable:
        return 0


def serve(settings: Settings) -> int:
    """Run the schedules until told to stop; returns the exit code."""
    configure(settings, "jobs")
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    redis = connect(settings)
    store = Store(redis, settings)
    worker = build_worker(settings, Janitor(redis, store, settings))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await _reach(store, stopping)
    if not stopping.is_set():
        sys.stderr.write("tailrace jobs ready\n")
        sys.stderr.flush()
        await _work(worker, stopping)
    await redis.aclose()
    return 0


async def _reach(store: Store, stopping: asyncio.Event) -> None:
    """Wait for Redis: roles may be started in any order."""
    while not stopping.is_set():
        try:
            await check_server(store.redis)
            return
        except Unavailable as exc:
            log.warning("redis away", extra={"reason": str(exc)})
            await _pause(stopping, AWAY_PAUSE_S * random.uniform(1, 3))


async def _pause(stopping: asyncio.Event, pause_s: float) -> None:
    try:
        async with asyncio.timeout(pause_s):
            await stopping.wait()
    except TimeoutError:
        pass


async def _work(worker: JobsWorker, stopping: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(worker.main())
        await stopping.wait()
        worker.allow_pick_jobs = False
        for job in list(worker.tasks.values()):
            await asyncio.wait([job], timeout=SWEEP_TIMEOUT_S)
        working.cancel()
    try:
        await worker.close()
    except (RedisError, OSError):
        pass  # it could not say goodbye: its key runs out by itself


def build_worker(settings: Settings, janitor: Janitor) -> JobsWorker:
    """Put the schedules on arq, in the database after ours: its keys have no prefix."""
    pool: ConnectionPool = ConnectionPool.from_url(
        settings.redis_url, protocol=2, socket_connect_timeout=CONNECT_S, socket_timeout=ANSWER_S
    )
    make_cancellable(pool)
    pool.connection_kwargs["db"] = int(pool.connection_kwargs.get("db") or 0) + 1
    redis = ArqRedis(
        pool, job_serializer=msgspec.json.encode, job_deserializer=msgspec.json.decode,
        default_queue_name=QUEUE,
    )  # fmt: skip
    every = set(range(0, 60, SWEEP_EVERY_S))
    return JobsWorker(
        queue_name=QUEUE,
        cron_jobs=[cron(sweep, second=every, timeout=SWEEP_TIMEOUT_S, keep_result=0, max_tries=1)],
        redis_pool=redis,
        handle_signals=False,
        poll_delay=POLL_S,
        health_check_interval=15,
        job_serializer=msgspec.json.encode,
        job_deserializer=msgspec.json.decode,
        timezone=UTC,
        log_results=False,
        ctx={"janitor": janitor},
    )
