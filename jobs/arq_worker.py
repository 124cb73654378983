"""arq's worker, made to outlive its connection and to start what is due at once.

arq is good at schedules and at small jobs that may run twice. Its own loop dies with the
connection, looks every half second and reads pickles; here the loop comes back, is woken, and
payloads are JSON.
Source: docs/adr/0003-prompts-not-through-arq.md.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from arq.connections import ArqRedis
from arq.cron import CronJob
from arq.worker import Function, Worker
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from jobs.source import Job
from shared.config.settings import Settings
from shared.redis.client import ANSWER_S, REDIS_CONNECT_S, make_cancellable

log = logging.getLogger(__name__)

QUEUE = "tr:jobs"
POLL_S = 1.0
AWAY_PAUSE_S = 0.5
PLANNED_AHEAD_S = 5.0  # arq queues what is due within two polls; what is later can be planned again
JOBS_MAX = 96  # at once in one process: 48 webhooks, 32 batches, the rest; they wait, mostly
READ_MAX = 2_000  # of the queue in one look; arq never looks further, running ones included
KEPT_MS = 8 * 86_400_000  # arq calls a job that is older than a day expired


async def pause(event: asyncio.Event, pause_s: float) -> None:
    """Return when `event` is set, or the time is over."""
    try:
        async with asyncio.timeout(pause_s):
            await event.wait()
    except TimeoutError:
        pass


class JobsWorker(Worker):
    """Uses two of arq's private names, `_pool` and `_poll_iteration`; arq is frozen and pinned,
    and tests/integration/test_jobs.py stands guard.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.woken = asyncio.Event()

    async def main(self) -> None:
        self.ctx["redis"] = self.pool
        while self.allow_pick_jobs:
            self.woken.clear()
            self._follow_clock()
            try:
                await self._poll_iteration()
                pause_s = POLL_S
            except (RedisError, OSError) as exc:
                log.warning("redis away", extra={"reason": str(exc)})
                pause_s = AWAY_PAUSE_S * random.uniform(1, 3)
            except UnicodeDecodeError:
                pause_s = 0 if await self._drop_unreadable() else POLL_S
            await pause(self.woken, pause_s)

    def retire(self) -> None:
        """Take no more jobs; `main` returns after its present look, which is not cut in two."""
        self.allow_pick_jobs = False
        self.woken.set()

    async def _drop_unreadable(self) -> int:
        """Take off the queue what is no id of a job: arq would stumble over it each time."""
        try:
            names: list[bytes] = await self.pool.zrange(QUEUE, 0, READ_MAX)
            bad = [name for name in names if not _is_text(name)]
            dropped = int(await self.pool.zrem(QUEUE, *bad)) if bad else 0
        except (RedisError, OSError):
            return 0
        log.warning("job unreadable", extra={"dropped": dropped})
        return dropped

    async def enqueue(self, job: Job) -> None:
        """Queue a job unless one of its id waits or runs; a free worker starts it at once.

        Raises:
            RedisError, OSError.
        """
        await self.pool.enqueue_job(job.function, *job.args, _job_id=job.id)
        self.woken.set()

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


def encode(value: Any) -> bytes:
    """Encode a job, or how it ended: an error is kept as its text."""
    return msgspec.json.encode(value, enc_hook=repr)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def build_worker(
    settings: Settings, functions: Sequence[Function], crons: Sequence[CronJob]
) -> JobsWorker:
    """Put the functions on arq, in a database of its own: its keys have no prefix.

    That is TAILRACE_JOBS_REDIS_URL; without it, the database after ours.
    """
    pool: ConnectionPool = ConnectionPool.from_url(
        settings.jobs_redis_url or settings.redis_url,
        protocol=2, socket_connect_timeout=REDIS_CONNECT_S, socket_timeout=ANSWER_S,
    )  # fmt: skip
    make_cancellable(pool)
    if not settings.jobs_redis_url:
        pool.connection_kwargs["db"] = int(pool.connection_kwargs.get("db") or 0) + 1
    redis = ArqRedis(
        pool, job_serializer=encode, job_deserializer=msgspec.json.decode,
        default_queue_name=QUEUE, expires_extra_ms=KEPT_MS,
    )  # fmt: skip
    return JobsWorker(
        functions=functions,
        queue_name=QUEUE,
        cron_jobs=crons,
        redis_pool=redis,
        handle_signals=False,
        poll_delay=POLL_S,
        max_jobs=JOBS_MAX,
        queue_read_limit=READ_MAX,
        keep_result=0,
        expires_extra_ms=KEPT_MS,
        health_check_interval=15,
        job_serializer=encode,
        job_deserializer=msgspec.json.decode,
        timezone=UTC,
        log_results=False,
    )
