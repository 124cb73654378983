"""arq's worker with another main loop, which survives a lost connection and starts jobs at once.

arq is right for schedules and for small jobs that may run twice. Its own loop ends with the
connection, polls every half second and reads pickles. This loop reconnects, can be woken, and its
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
from redis.exceptions import RedisError

from jobs.source import Job
from shared.config.redis_url import RedisUrl
from shared.redis.client import open_pool

log = logging.getLogger(__name__)

QUEUE = "tr:jobs"
POLL_S = 1.0  # between two polls, unless woken
AWAY_PAUSE_S = 0.5  # the shortest pause while Redis is away
PLANNED_AHEAD_S = 5.0  # arq plans two polls ahead; a later plan means that the clock was set back
JOBS_MAX = 96  # in one process: 48 webhooks, 32 batches, and others; most of them only wait
READ_MAX = 2_000  # jobs in one poll, running ones included; arq never reads further
# How long arq's mark of a running job stays. arq would take the longest limit of all functions,
# which is an hour because of the batches. A job of a process that crashed stays at the head of the
# queue for this time, and with `READ_MAX` of them no process reads further. A longer job may be
# started again elsewhere: its source makes this harmless, as by the lease of a batch.
IN_PROGRESS_S = 310.0
JOB_KEPT_MS = 8 * 86_400_000  # until a job expires; arq's default is one day


async def pause(event: asyncio.Event, pause_s: float) -> None:
    """Return when `event` is set, or after `pause_s`."""
    try:
        async with asyncio.timeout(pause_s):
            await event.wait()
    except TimeoutError:
        pass


class JobsWorker(Worker):
    """arq's worker with a loop of our own.

    It uses two private names of arq, `_pool` and `_poll_iteration`. arq is frozen and pinned, and
    tests/integration/test_jobs.py fails if they change.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.in_progress_timeout_s = IN_PROGRESS_S
        self.woken = asyncio.Event()

    async def main(self) -> None:
        """Poll the queue until `retire`; survive a lost connection."""
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

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Start jobs that no process runs; arq calls this.

        A job that has run here for `IN_PROGRESS_S` looks free. To start it again would replace its
        task, and a drain would not wait for it.
        """
        running = {job_id.encode() for job_id, task in self.tasks.items() if not task.done()}
        await super().start_jobs([each for each in job_ids if each not in running])

    def retire(self) -> None:
        """Take no more jobs. `main` returns after its present poll, which is not interrupted."""
        self.allow_pick_jobs = False
        self.woken.set()

    async def _drop_unreadable(self) -> int:
        """Remove names from the queue that are not UTF-8: arq would fail at each poll."""
        try:
            names: list[bytes] = await self.pool.zrange(QUEUE, 0, READ_MAX)
            bad = [name for name in names if not _is_text(name)]
            dropped = int(await self.pool.zrem(QUEUE, *bad)) if bad else 0
        except (RedisError, OSError):
            return 0
        log.warning("job unreadable", extra={"dropped": dropped})
        return dropped

    async def enqueue(self, job: Job) -> None:
        """Queue a job and wake the loop, unless a job with the same id waits or runs.

        Raises:
            RedisError, OSError: arq's Redis did not answer.
        """
        await self.pool.enqueue_job(job.function, *job.args, _job_id=job.id)
        self.woken.set()

    def _follow_clock(self) -> None:
        """Make arq plan its cron jobs again if the wall clock was set back."""
        latest = datetime.now(UTC) + timedelta(seconds=PLANNED_AHEAD_S)
        for job in self.cron_jobs:
            if job.next_run is not None and job.next_run > latest:
                job.next_run = None

    async def close(self) -> None:
        """Close the connections, without the deprecated call in arq's version."""
        await self.pool.delete(self.health_check_key)
        await self.pool.aclose(close_connection_pool=True)


def encode(value: Any) -> bytes:
    """Encode a job or its result as JSON; an exception becomes its text."""
    return msgspec.json.encode(value, enc_hook=repr)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def build_worker(
    url: RedisUrl, functions: Sequence[Function], crons: Sequence[CronJob]
) -> JobsWorker:
    """Return an arq worker for the functions and cron jobs.

    Args:
        url: where arq keeps its queue. Its keys begin with `arq:`, and the queue is `QUEUE`, so the
            database may also hold other data.
    """
    redis = ArqRedis(
        open_pool(url), job_serializer=encode, job_deserializer=msgspec.json.decode,
        default_queue_name=QUEUE, expires_extra_ms=JOB_KEPT_MS,
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
        expires_extra_ms=JOB_KEPT_MS,
        health_check_interval=15,
        job_serializer=encode,
        job_deserializer=msgspec.json.decode,
        timezone=UTC,
        log_results=False,
    )
