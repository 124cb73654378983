"""The rounds of the jobs role: delete and mend what a crash or a loss has left behind.

A round covers files and their records, parts of absent batches, consumers of absent workers, index
entries of absent generations, streams whose time is over, and schedules and webhooks that no index
names. Rounds are minutes apart, and arq runs them in one process at a time. Each finding is
counted. Every step may be repeated and may race with any other step. Work that must happen within
seconds belongs to shared/queue/janitor.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from arq import cron
from arq.cron import CronJob
from redis.exceptions import ResponseError

from jobs.index_janitor import IndexJanitor
from shared.audit.objects import PREFIX as AUDIT
from shared.audit.objects import sweep as sweep_audit
from shared.batches.record import Batches
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.files.store import PREFIX as FILES
from shared.files.store import FileStore
from shared.files.sweep import ORPHAN_S, sweep_files
from shared.files.walk import Walk
from shared.queue.partitions import partitions_of
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.counts import count
from shared.redis.scripts import Scripts
from shared.streams.store import StreamStore
from shared.streams.sweep import sweep_owners

log = logging.getLogger(__name__)

ROUND_MINUTES = 5  # between two rounds
CHECK_S_MAX = 40.0  # one of six checks; more than `shared.files.walk.PART_S`
ROUND_S_MAX = 250  # one round; less than the time between two
CONSUMER_IDLE_S = 3_600.0  # until an idle consumer without entries is dropped
PARTS = "batches/"
NAME = "tailrace:round"  # arq's key has this name: another application may share the database

Check = Callable[[], Awaitable[Counter[str]]]


class Rounds:
    """Makes rounds. The checks are independent: a failed or slow check stops no other check."""

    def __init__(self, redis: Client, files: FileStore, settings: Settings) -> None:
        self.redis = redis
        self.files = files
        self.batches = Batches(redis, settings)
        self.partitions = partitions_of(settings)
        self.indexes = IndexJanitor(redis)
        self.streams = StreamStore(redis, settings)
        self.scripts = Scripts(redis)
        self._files_walk = Walk(files.objects, FILES)
        self._parts_walk = Walk(files.objects, PARTS)
        self._audit_walk = Walk(files.objects, AUDIT)

    async def make(self) -> Counter[str]:
        """Make one round, and return the number of findings by counter."""
        checks: Mapping[str, Check] = {
            "consumers": self.drop_consumers,
            "indexes": self.indexes.mend,
            "streams": self.drop_streams,
            "files": self.drop_files,
            "parts": self.drop_parts,
            "audit": self.drop_audit,
        }
        found: Counter[str] = Counter()
        for name, check in checks.items():
            try:
                async with asyncio.timeout(CHECK_S_MAX):
                    findings = await check()
                    await count(self.redis, findings)
            except (Unavailable, TimeoutError) as exc:  # the next round does the rest
                reason = str(exc) or f"longer than {CHECK_S_MAX:g} s"
                log.warning("round cut short", extra={"check": name, "reason": reason})
                continue
            found += findings
        if found:
            log.info("round made", extra=dict(found))
        return found

    async def drop_files(self) -> Counter[str]:
        """Delete the remains of files."""
        swept = await sweep_files(self.files, self._files_walk)
        return Counter(
            files_expired=swept.expired,
            files_orphaned=swept.orphans,
            files_missing=swept.missing,
            files_unfinished=swept.remains,
        )

    async def drop_audit(self) -> Counter[str]:
        """Delete audit records whose days are over."""
        today = datetime.now(UTC).date()
        return Counter(audit_expired=await sweep_audit(self.files.objects, self._audit_walk, today))

    async def drop_parts(self) -> Counter[str]:
        """Delete parts of results of ended or absent batches."""
        before_s = time.time() - ORPHAN_S
        dropped, known = 0, dict[str, bool]()
        async for info in self._parts_walk.part():
            batch_id, _, rest = info.name.removeprefix(PARTS).partition("/")
            if not rest or info.modified_s > before_s:
                continue
            if batch_id not in known:
                batch = await self.batches.load(batch_id)
                known[batch_id] = batch is not None and not batch.is_final
            if not known[batch_id]:
                dropped += await self.files.objects.delete(info.name)
        return Counter(batch_parts_orphaned=dropped)

    async def drop_streams(self) -> Counter[str]:
        """Delete people's own streams whose time is over."""
        return Counter(streams_expired=await sweep_owners(self.streams))

    async def drop_consumers(self) -> Counter[str]:
        """Drop the consumers of absent workers, if they hold no entries."""
        dropped, idle_ms = 0, round(CONSUMER_IDLE_S * 1000)
        tags = self.partitions.tags
        for lane in [keys.lane(name, tag) for tag in tags for name in keys.LANES]:
            async for name in self._idle_consumers(lane, idle_ms):
                dropped += int(
                    await self.scripts.run("consumer_drop", [lane], [keys.GROUP, name, idle_ms])
                )
        return Counter(consumers_dropped=dropped)

    async def _idle_consumers(self, lane: str, idle_ms: int) -> AsyncIterator[bytes]:
        with translated():
            try:
                rows: list[Any] = await self.redis.xinfo_consumers(lane, keys.GROUP)
            except ResponseError as exc:
                if not str(exc).startswith(("NOGROUP", "no such key")):
                    raise
                return  # no worker has ever created the group
        for row in rows:
            if row["pending"] == 0 and row["idle"] >= idle_ms:
                yield row["name"]


async def make_round(ctx: dict[Any, Any]) -> int:
    """Make one round; arq calls this."""
    rounds: Rounds = ctx["rounds"]
    async with asyncio.timeout(ROUND_S_MAX):
        return (await rounds.make()).total()


def round_cron() -> CronJob:
    """Return the cron job of the rounds."""
    every = set(range(0, 60, ROUND_MINUTES))
    return cron(
        make_round, name=NAME, minute=every, second=30, timeout=ROUND_S_MAX + 10,
        keep_result=0, max_tries=1,
    )  # fmt: skip
