"""The janitor of the queue: it requeues forgotten generations and makes every generation end.

A pass reads the indexes of waiting and running generations. The pass requeues lost generations,
ends generations that have waited too long, and removes ended generations from the indexes. Then it
counts the usage of ended generations (shared/usage/settlement.py). Every step may be repeated and
may race with any other step. All API nodes and jobs processes run the janitor; a short lock in
Redis for each partition lets one process make each pass.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shared.backends.slots import waiting_in_line
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log.ids import EventId
from shared.log.records import RESTORE_WITHIN_S, Top
from shared.log.store import Store
from shared.queue.lanes import NEVER_BEGAN_S
from shared.queue.leaving import forget
from shared.queue.listing import Listing
from shared.queue.partitions import partitions_of, record
from shared.queue.presence import workers_seen
from shared.queue.requeuing import requeue
from shared.queue.time_limits import end_due, end_waiting, timed_out
from shared.queue.turns import Turn, ensure_turns, leave_lines, repair
from shared.redis import keys
from shared.redis.client import Client, Command, translated
from shared.redis.counts import count
from shared.redis.shards import is_partly_away, serves
from shared.usage.settlement import Settlement

log = logging.getLogger(__name__)

PASS_S = 1.0  # between two passes, of all processes together
MEMBERS_PER_PASS = 1_000  # of each index, the oldest first
PAGES_PER_PASS = 10  # of one index, `MEMBERS_PER_PASS` each, while shards of a cluster are away
WORKER_GONE_S = 3_600.0  # the presence of a silent worker is deleted after this


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pass found a generation.

    Attributes:
        since_ms: its score in the index.
        has_entry: its entry waits in the line of its owner or of its backend, so it is not lost.
    """

    index: str
    priority: str
    since_ms: int
    has_entry: bool


class Janitor:
    """The passes that this process makes."""

    def __init__(self, redis: Client, store: Store, settings: Settings) -> None:
        self.redis = redis
        self.store = store
        self.settings = settings
        self.partitions = partitions_of(settings)
        self._stuck: dict[str, set[Turn]] = {tag: set() for tag in self.partitions.tags}
        self.settlement = Settlement(redis, store, settings)
        self._listing = Listing(redis, store, settings)

    async def run(self) -> None:
        """Make passes until cancelled."""
        while True:
            await asyncio.sleep(PASS_S * random.uniform(0.8, 1.2))
            try:
                await self.sweep()
            except Unavailable:
                continue  # a process that reaches Redis makes the next pass

    async def sweep(self) -> int:
        """Make one pass over the partitions that no other process has just passed over.

        Returns:
            the number of index members and workers that the pass changed.

        Raises:
            Unavailable: Redis did not answer in time; the next pass does the rest.
        """
        found: Counter[str] = Counter()
        away: Unavailable | None = None
        for tag in self.partitions.tags:
            try:
                found += await self._sweep_partition(tag)
            except Unavailable as exc:  # of a cluster, one server may be away
                away = exc
        await count(self.redis, found)
        if away is not None:
            raise away
        return found.total()

    async def _sweep_partition(self, tag: str) -> Counter[str]:
        found: Counter[str] = Counter()
        with translated():
            lock_ms = round(PASS_S * 900)
            if not await self.redis.set(keys.janitor(tag), b"1", nx=True, px=lock_ms):
                return found
        now_ms = await self.store.now_ms()
        found += await end_due(self.store, tag, now_ms)
        patience_s = min(self.settings.queue_wait_s, NEVER_BEGAN_S, RESTORE_WITHIN_S)
        for priority in keys.PRIORITIES:
            index = keys.waiting(priority, tag)
            found += await self._sweep_index(index, priority, now_ms, patience_s)
        # A living worker reports its generations every third of a lease: check only the others.
        found += await self._sweep_index(
            keys.running(tag), "interactive", now_ms, 2 * self.settings.lease_s
        )
        found["generations_listed"] += await self._listing.catch_up(tag, now_ms)
        self._stuck[tag] = await repair(self.store, tag, self._stuck[tag])
        if self.settings.usage_days:
            await self.settlement.look(tag)
        if tag == self.partitions.tags[0]:
            found["workers_forgotten"] = await self._drop_gone_workers(now_ms)
            await self._compare_partitions()
        return found

    async def _compare_partitions(self) -> None:
        """Record the number of partitions again, if Redis lost it; log another number.

        A role with another number does not start, but a Redis without data does not know the number
        of the roles that run already.
        """
        own = self.settings.partition_count
        if (recorded := await record(self.redis, own)) != own:
            log.error("queue partitions differ", extra={"own": own, "recorded": recorded})

    async def _sweep_index(
        self, index: str, priority: str, now_ms: int, older_s: float
    ) -> Counter[str]:
        since = await self._members(index, round(now_ms - older_s * 1000))
        ids = list(since)
        found = await end_waiting(self.store, ids)
        tops = await self.store.known_tops(ids) if ids else []
        # A generation whose shard is away has no top here; the next pass finds it.
        known = [(name, top) for name, top in zip(ids, tops, strict=True) if top is not None]
        lost = [name for name, top in known if self._is_lost(top)]
        queued = await ensure_turns(self.store, lost, priority)
        queued |= await waiting_in_line(self.redis, lost)
        for generation_id, top in known:
            place = Place(index, priority, since[generation_id], has_entry=generation_id in queued)
            try:
                finding = await self._mend(generation_id, place, top)
            except Unavailable:
                if not is_partly_away(self.redis):
                    raise
                continue  # one of its records is on a shard that is away
            if finding:
                found[finding] += 1
        return found

    async def _members(self, index: str, before_ms: int) -> dict[str, int]:
        """Return the oldest members of an index, and their scores.

        Generations for which a pass can do nothing are left out, and must not take the places of
        lost ones: their shard is away, or they have ended and the shard of their owner is away.
        """
        since: dict[str, int] = {}
        for page in range(PAGES_PER_PASS):
            with translated():
                members = await self.redis.zrangebyscore(
                    index, "-inf", before_ms,
                    start=page * MEMBERS_PER_PASS, num=MEMBERS_PER_PASS, withscores=True,
                )  # fmt: skip
            found = {member.decode(): int(since_ms) for member, since_ms in members}
            left_out = await self._must_stay(list(found)) if is_partly_away(self.redis) else ()
            since |= {name: found[name] for name in found if name not in left_out}
            if len(found) < MEMBERS_PER_PASS or len(since) >= MEMBERS_PER_PASS:
                break
        return dict(list(since.items())[:MEMBERS_PER_PASS])

    async def _must_stay(self, ids: Sequence[str]) -> set[str]:
        """Return the generations that stay in the index as long as shards are away."""
        read: list[Command] = [("HMGET", keys.meta(name), "status", "owner") for name in ids]
        try:
            replies = await self.store.scripts.pipeline.run(read) if ids else []
        except Unavailable:  # a cluster lost all of these calls
            return set(ids)
        return {
            name
            for name, reply in zip(ids, replies, strict=True)
            if isinstance(reply, Exception) or self._must_wait_for_owner(*reply)
        }

    def _must_wait_for_owner(self, status: bytes | None, owner: bytes | None) -> bool:
        """Whether a generation has ended, and `forget` cannot write the records of its owner."""
        if status in (None, b"queued", b"running") or not owner:
            return False
        return not serves(self.redis, keys.owner_bytes(owner.decode()))

    async def _mend(self, generation_id: str, place: Place, top: Top) -> str:
        """Mend one index member. Return the name of the counter; empty: nothing to mend."""
        age_s = (top.now_ms - place.since_ms) / 1000
        if top.status is None:
            # Redis lost it, or the prompt was never accepted. A living worker may restore it.
            if age_s <= RESTORE_WITHIN_S:
                return ""
            with translated():
                await self.redis.zrem(place.index, generation_id)
            return "queue_entries_dropped"
        if top.status not in ("queued", "running"):
            await forget(self.store, generation_id)
            return "queue_entries_dropped"
        if _idle_s(top) > self.settings.queue_wait_s and await self._time_out(generation_id):
            await leave_lines(self.store, [generation_id], place.priority)
            return "queue_timeouts"
        if self._is_lost(top) and not place.has_entry:
            if await requeue(self.store, generation_id, place.priority):
                return "generations_put_back"
        return ""

    def _is_lost(self, top: Top) -> bool:
        """Whether a worker should hold it by now. A wrong True only costs a queue entry."""
        if top.status not in ("queued", "running"):
            return False
        idle_s = _idle_s(top)
        return idle_s > (NEVER_BEGAN_S if top.waiting_since_ms else 2 * self.settings.lease_s)

    async def _time_out(self, generation_id: str) -> bool:
        with translated():
            own_ms = await self.redis.hget(keys.meta(generation_id), "wait")  # type: ignore[misc]
        # A line of a batch may wait as long as the window of its batch.
        wait_s = int(own_ms) / 1000 if own_ms else self.settings.queue_wait_s
        end = timed_out(wait_s)
        outcome = await self.store.close(generation_id, end, idle_ms=round(wait_s * 1000))
        if isinstance(outcome, EventId):
            await forget(self.store, generation_id)
        return isinstance(outcome, EventId)

    async def _drop_gone_workers(self, now_ms: int) -> int:
        dropped = 0
        for presence in await workers_seen(self.redis):
            if now_ms - presence.at_ms > WORKER_GONE_S * 1000:
                with translated():
                    dropped += await self.redis.hdel(keys.WORKERS, presence.worker)  # type: ignore[misc]
        return dropped


def _idle_s(top: Top) -> float:
    """Return how long no worker has held a generation, s."""
    return (top.now_ms - max(top.lease_ms, top.waiting_since_ms)) / 1000
