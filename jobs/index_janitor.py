"""Mends indexes: drops entries of absent generations, and adds records that no index names.

It walks the whole key space with SCAN, some steps in each round, and continues where the last round
stopped. An entry is dropped only if two checks, `ABSENT_TWICE_S` apart, find its generation absent:
a living worker restores a generation that Redis has lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from shared.log.records import RESTORE_WITHIN_S
from shared.redis import keys
from shared.redis.client import Client, translated

SCANS_PER_ROUND = 200  # SCAN calls of about `SCAN_COUNT` keys each
SCAN_COUNT = 500
# Of one round, with the work on the keys that were found. Then the second check of the suspects
# ends within `jobs.janitor.CHECK_S_MAX`. A check that is broken off would drop nothing.
SCAN_S = 15.0
PAGE = 1_000  # members of one index in one round trip
SUSPECTS_MAX = 10_000  # possibly absent entries of one round
ABSENT_TWICE_S = RESTORE_WITHIN_S + 2  # between the two checks of an absent generation
GENERATIONS = ("tr:owner:", "tr:session:", "tr:{chat:")
READERS = "}:readers"  # the end of `keys.readers`
READERS_KEPT_MS = 3_600_000  # a generation with a reader sets a new expiry every 3 s
HOOK, SCHEDULE = keys.hook(""), keys.schedule("")
BATCHES = "tr:batches:"
OWNED, UNFINISHED = keys.SCHEDULES + ":", keys.SCHEDULES_UNFINISHED


class IndexJanitor:
    """The rounds of one process through the key space."""

    def __init__(self, redis: Client) -> None:
        self.redis = redis
        self._cursor = 0

    async def mend(self) -> Counter[str]:
        """Mend the next part of the key space, and return the number of findings by counter.

        Raises:
            Unavailable: Redis did not answer in time; the next round continues.
        """
        found: Counter[str] = Counter()
        suspects: list[tuple[str, str]] = []
        until_s = time.monotonic() + SCAN_S
        for _ in range(SCANS_PER_ROUND):
            with translated():
                self._cursor, names = await self.redis.scan(
                    self._cursor, match="tr:*", count=SCAN_COUNT
                )
            await self._let_expire([raw for raw in names if raw.endswith(READERS.encode())])
            for name in [raw.decode() for raw in names]:
                if name.startswith(GENERATIONS) and not name.endswith(":stops"):
                    suspects += await self._absent(name, keys.meta, SUSPECTS_MAX - len(suspects))
                else:
                    found += await self._mend_jobs(name)
            if self._cursor == 0 or time.monotonic() >= until_s:
                break
        found["index_entries_dropped"] += await self._drop_absent(suspects)
        return found

    async def _absent(
        self, index: str, key: Callable[[str], str], limit: int
    ) -> list[tuple[str, str]]:
        """Return up to `limit` entries (index, id), oldest first, whose `key` is absent."""
        absent: list[tuple[str, str]] = []
        start = 0
        while len(absent) < limit:
            with translated():
                members = await self.redis.zrange(index, start, start + PAGE - 1)
            ids = [raw.decode() for raw in members]
            known = await self._exist([key(member) for member in ids])
            absent += [
                (index, member) for member, is_there in zip(ids, known, strict=True) if not is_there
            ]
            start += PAGE
            if len(ids) < PAGE:
                break
        return absent[:limit]

    async def _drop_absent(self, suspects: Sequence[tuple[str, str]]) -> int:
        if not suspects:
            return 0
        await asyncio.sleep(ABSENT_TWICE_S)
        known = await self._exist([keys.meta(member) for _, member in suspects])
        gone = [pair for pair, is_there in zip(suspects, known, strict=True) if not is_there]
        return await self._remove(gone)

    async def _remove(self, entries: Iterable[tuple[str, str]]) -> int:
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for index, member in entries:
                pipeline.zrem(index, member)
            return sum(await pipeline.execute())

    async def _exist(self, names: Sequence[str]) -> list[bool]:
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for name in names:
                pipeline.exists(name)
            return [bool(number) for number in await pipeline.execute()] if names else []

    async def _let_expire(self, names: Sequence[bytes]) -> None:
        """Set an expiry on readers without one: those that a worker of an older version created."""
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for name in names:
                pipeline.pttl(name)
            left_ms = await pipeline.execute() if names else []
            for name, ms in zip(names, left_ms, strict=True):
                if ms == -1:
                    await self.redis.pexpire(name, READERS_KEPT_MS)

    # The indexes of the jobs role

    async def _mend_jobs(self, name: str) -> Counter[str]:
        if name.startswith(SCHEDULE):
            return Counter(schedules_mended=await self._mend_schedule(name.removeprefix(SCHEDULE)))
        if name.startswith(HOOK):
            return Counter(webhooks_mended=await self._mend_hook(name.removeprefix(HOOK)))
        if name.startswith((OWNED, BATCHES)):  # drop entries of expired records
            key = keys.schedule if name.startswith(OWNED) else keys.batch
            await self._remove(await self._absent(name, key, SUSPECTS_MAX))
        elif name.startswith(UNFINISHED):
            return Counter(schedules_mended=await self._mend_unfinished(name))
        return Counter()

    async def _mend_schedule(self, schedule_id: str) -> int:
        """Add an unfinished schedule to all three indexes. Return 1 if one lacked it."""
        with translated():
            fields = await self.redis.hmget(
                keys.schedule(schedule_id), ["owner", "next", "created"]
            )  # type: ignore[misc]
            owner, next_ms, created_ms = fields
            if not owner or not created_ms:
                return 0
            pipeline = self.redis.pipeline()
            pipeline.zadd(keys.schedules_of(owner.decode()), {schedule_id: created_ms}, nx=True)
            if next_ms:
                pipeline.zadd(keys.SCHEDULES, {schedule_id: next_ms}, nx=True)
                pipeline.sadd(keys.schedules_unfinished(owner.decode()), schedule_id)
            return int(any(await pipeline.execute()))

    async def _mend_unfinished(self, name: str) -> int:
        """Remove finished and absent schedules from the set that counts towards the limit."""
        with translated():
            members: set[bytes] = await self.redis.smembers(name)  # type: ignore[misc]
            pipeline = self.redis.pipeline(transaction=False)
            for member in members:
                pipeline.hget(keys.schedule(member.decode()), "next")
            times = await pipeline.execute() if members else []
            over = [member for member, next_ms in zip(members, times, strict=True) if not next_ms]
            return int(await self.redis.srem(name, *over)) if over else 0  # type: ignore[misc]

    async def _mend_hook(self, subject_id: str) -> int:
        """Add a waiting or due webhook to its indexes. Return 1 if the first one lacked it."""
        with translated():
            now = await self.redis.time()
            fields = await self.redis.hmget(keys.hook(subject_id), ["state", "place", "host"])  # type: ignore[misc]
            state, place = fields[0], fields[1] or fields[2]  # an older version has no place
            pipeline = self.redis.pipeline()
            if state == b"waiting":
                pipeline.zadd(keys.HOOKS_WAITING, {subject_id: now[0] * 1000}, nx=True)
            elif state == b"due" and place:
                digest, _ = keys.split_hook_place(place.decode())
                due = keys.hooks_due(place.decode())
                pipeline.zadd(due, {subject_id: now[0] * 1000}, nx=True)
                pipeline.zadd(keys.hooks_hosts(digest), {place: now[0] * 1000}, nx=True)
                pipeline.zadd(keys.HOOKS_OWNERS, {digest: now[0] * 1000}, nx=True)
            else:
                return 0
            return int(bool((await pipeline.execute())[0]))
