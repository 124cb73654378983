"""Batches as background work: finds batches that no process runs, and runs slices of them.

A slice first takes the lease of its batch. So two slices of one batch are harmless: one runs, the
other ends. A slice ends after `BATCH_SLICE_S` and gives the lease back, and the next one
begins at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from arq.worker import Function, func

from jobs.batch.batch_run import BatchRun
from jobs.batch.done_lines import DoneLines
from jobs.batch.finish import finish
from jobs.batch.hold import HeldBatches, needs_no_slice
from jobs.batch.line import line_generation_id
from jobs.batch.parts import BatchParts
from jobs.batch.validation import GONE, validate
from jobs.owners import Owners
from jobs.source import Job
from shared.batches.lease import BatchLease, Commit, log_store
from shared.batches.record import Batch, Batches
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import LeaseLost, NotFound, Unavailable
from shared.files.store import FileStore
from shared.log.records import ENDED, Top
from shared.log.store import Store
from shared.queue.accept import Acceptor
from shared.queue.endings import cancel_many
from shared.redis.client import Client
from shared.redis.jobs_wake import wake_jobs

log = logging.getLogger(__name__)

BATCH_SLICE_S = 45.0
STEP_TIMEOUT_S = 300.0  # of a step that hangs: its slice ends, and another one begins
# Of a step that reads a whole input or writes a whole output: 50,000 parts of a bucket take two
# minutes. If such a step is broken off, the next slice begins it anew. A lost lease ends it sooner.
FILE_STEP_TIMEOUT_S = 1_500.0
# Of a whole slice: more than all its steps. After `jobs.arq_worker.IN_PROGRESS_S` another process
# may take the job, too: arq drops it because of `max_tries`, and a second slice would end at once,
# because the first one holds the lease.
ARQ_TIMEOUT_S = 3_600.0
ACTIVE_MAX = 1_000  # batches in one poll, the oldest first
RUNNING_MAX = 32  # slices at once in one process
CREATE_S = 10.0  # an index entry is dropped if its batch is not created within this time
JOB_ID_S = 1  # a new job id after this, in case a job was lost with its process


class BatchSource:
    """The `Source` of batches (jobs/source.py)."""

    def __init__(self, parts: BatchParts) -> None:
        self.parts = parts
        self.functions: Sequence[Function] = [
            func(self.run, name="batch", timeout=ARQ_TIMEOUT_S, keep_result=0, max_tries=1)
        ]
        self._running = 0
        self._held = HeldBatches()

    async def due(self) -> list[Job]:
        """Return the batches that no process runs, in random order, so that none waits forever."""
        with suppress(Unavailable):  # the next look repeats this
            await self.parts.done_lines.let_expire()
        # Held batches do not count towards the limit.
        active = await self.parts.batches.active(ACTIVE_MAX + len(self._held))
        active = await self._without_held(active)
        if not active:
            return []
        tops = await self.parts.log_store.tops([batch_id for batch_id, _ in active])
        jobs, ended = [], []
        for (batch_id, since_ms), top in zip(active, tops, strict=True):
            if is_over(top, since_ms):
                ended.append(batch_id)
            elif top.status is not None and top.lease_ms <= top.now_ms:
                tick = top.now_ms // 1000 // JOB_ID_S
                jobs.append(Job("batch", (batch_id,), f"batch:{batch_id}:{tick}"))
        if ended:
            await self.parts.batches.retire(ended)
        random.shuffle(jobs)
        return jobs[: max(0, RUNNING_MAX - self._running)]

    async def _without_held(self, active: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        held = self._held.of([batch_id for batch_id, _ in active], time.monotonic())
        standings = await self.parts.batches.progress_of(held)
        now_ms = await self.parts.store.now_ms() if held else 0
        idle = {
            batch_id
            for batch_id, standing in zip(held, standings, strict=True)
            if needs_no_slice(standing, now_ms)
        }
        return [entry for entry in active if entry[0] not in idle]

    async def run(self, ctx: dict[Any, Any], batch_id: str) -> None:
        """Run one slice of a batch, unless another process holds its lease."""
        try:
            lease = await BatchLease.begin(self.parts.log_store, batch_id, self.parts.name)
        except Unavailable:
            return  # `due` returns it again
        if lease is None:
            return
        self._running += 1
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S) as limit, asyncio.TaskGroup() as tasks:
                renewing = tasks.create_task(_renew(lease, self.parts.settings.lease_s / 3))
                await Slice(self.parts, lease, ctx["stopping"], self._held, limit=limit).run()
                renewing.cancel()
        except* (LeaseLost, Unavailable, TimeoutError) as group:
            # Nothing is lost: the next holder continues after the last commit.
            reasons = "; ".join(str(exc) or type(exc).__name__ for exc in group.exceptions)
            log.warning("batch left", extra={"batch_id": batch_id, "reason": reasons})
        finally:
            self._running -= 1


class Slice:
    """One slice of one batch.

    Args:
        limit: cancels the slice. Each step sets it anew.
    """

    def __init__(
        self,
        parts: BatchParts,
        lease: BatchLease,
        stopping: asyncio.Event,
        held: HeldBatches,
        *,
        limit: asyncio.Timeout,
    ) -> None:
        self.parts = parts
        self.lease = lease
        self.stopping = stopping
        self.held = held
        self.limit = limit
        self._until_s = time.monotonic() + BATCH_SLICE_S
        self._course: BatchRun | None = None

    async def run(self) -> None:
        """Run the batch until the slice is over, and give the lease back.

        Raises:
            LeaseLost, Unavailable: the next slice continues.
        """
        try:
            while not self.stopping.is_set():
                batch = await self.lease.load()
                if batch.is_final:
                    return  # its log has ended, so there is no lease to give back
                if not await self._step(batch):
                    break
        finally:
            if self._course is not None:
                await self._course.close()
        await self.lease.release()
        await wake_jobs(self.parts.redis)

    async def _step(self, batch: Batch) -> bool:
        """Do the work of the present status; False: the slice is over."""
        self._limit_step(STEP_TIMEOUT_S)
        if batch.status == "validating":
            self._limit_step(FILE_STEP_TIMEOUT_S)
            await validate(self.parts, self.lease, batch)
            return True
        if batch.status == "finalizing":
            await self._finish(batch, "completed")
            return True
        try:
            course = self._course or await self._open(batch)
            if batch.status == "in_progress":
                return await self._progress(course)
            await course.call_off(is_expired=False)
        except NotFound:
            await self._without_input(batch)
            return True
        await self._finish(batch, "cancelled")
        return True

    def _limit_step(self, timeout_s: float) -> None:
        self.limit.reschedule(asyncio.get_running_loop().time() + timeout_s)

    async def _finish(self, batch: Batch, after: str, *, errors: str = "") -> None:
        """End the batch. The limit of a file lets a large output, or one of many parts, end."""
        self._limit_step(FILE_STEP_TIMEOUT_S)
        await finish(self.parts, self.lease, batch, after, errors=errors)

    async def _open(self, batch: Batch) -> BatchRun:
        """Open the input. Raises NotFound if the file is absent."""
        record = await self.parts.files.get(batch.input_file_id, batch.owner)
        if record is None:
            raise NotFound("file")
        owners = self.parts.owners
        may_ask = await owners.is_known(batch.owner) and await owners.has_tokens_left(batch.owner)
        self._course = BatchRun(self.parts, self.lease, batch, record, is_held=not may_ask)
        await self._course.resume()
        return self._course

    async def _progress(self, course: BatchRun) -> bool:
        is_ready = await course.run(self._until_s, self.stopping)
        if course.is_idle and not is_ready:
            self.held.add(course.batch.id, time.monotonic())
            self.parts.owners.log_batch_held(course.batch.owner, course.batch.id)
        if not is_ready or course.batch.status != "in_progress":
            return is_ready
        if course.is_done:
            await self.lease.move("in_progress", "finalizing")
            return True
        await course.call_off(is_expired=True)
        await course.expire_rest()
        await self._finish(await self.lease.load(), "expired")
        return True

    async def _without_input(self, batch: Batch) -> None:
        """End a batch without its input: keep committed results, and drop lines in flight."""
        flying = await self.lease.flight()
        ids = [line_generation_id(batch.id, line.line, line.tries) for line in flying]
        await cancel_many(self.parts.store, ids)
        if flying:
            lines = [str(line.line) for line in flying]
            await self.lease.commit(Commit(name=f"{self.lease.token}-gone", done=lines))
        if batch.status == "cancelling":
            await self._finish(batch, "cancelled")
            return
        errors = msgspec.json.encode([GONE]).decode()
        await self._finish(batch, "failed", errors=errors)


async def _renew(lease: BatchLease, every_s: float) -> None:
    """Extend the lease repeatedly, also while a file is written."""
    while True:
        await asyncio.sleep(every_s)
        try:
            if not await lease.renew():
                return  # this slice has just ended the batch
        except Unavailable:
            continue  # the slice meets the same error, and decides


def build_batches(
    redis: Client, store: Store, settings: Settings, owners: Owners, *, models: Mapping[str, Model]
) -> BatchSource:
    """Build the source of batches for this process.

    Raises:
        ConfigurationError: TAILRACE_FILES_URL cannot be used.
    """
    return BatchSource(
        BatchParts(
            name=f"jobs-{os.getpid()}",
            settings=settings,
            redis=redis,
            store=store,
            log_store=log_store(redis, settings),
            acceptor=Acceptor(redis, store, settings),
            batches=Batches(redis, settings),
            files=FileStore(redis, settings),
            models=models,
            owners=owners,
            done_lines=DoneLines(store, settings),
        )
    )


def is_over(top: Top, since_ms: int) -> bool:
    """Whether a batch has ended, is sealed, or was never created."""
    if top.status is None:
        return top.now_ms - since_ms > CREATE_S * 1000
    return top.status in ENDED or top.status == "sealed"
