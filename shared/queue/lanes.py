"""The queue: it delivers each generation to some worker, at least once.

Three streams with one consumer group: `resume` before `interactive` before `batch`. An entry names
a generation. Safety never depends on the queue: `begin` on the generation decides which worker
holds it. Beside the streams stand sorted sets of waiting, running and postponed generations. Each
partition (shared/queue/partitions.py) has these streams and sets; a lane is read over all of them.

Every coroutine here may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shared.log.store import Store
from shared.queue.entries import Delivery as Delivery
from shared.queue.entries import LaneEntry as LaneEntry
from shared.queue.entries import decode_entry as decode_entry
from shared.queue.entries import encode_entry as encode_entry
from shared.queue.leaving import Ending, leave
from shared.queue.leaving import forget as forget  # for callers of the queue
from shared.queue.partitions import Partitions, partitions_of
from shared.redis import keys
from shared.redis.client import Client, Command, is_partial, raise_unless_partial, translated
from shared.redis.pipeline import Call, ClientPipeline, Pipeline
from shared.redis.scripts import Scripts
from shared.redis.shards import is_partly_away, serves

NEVER_BEGAN_S = 30.0  # a generation that waits this long without a begin may have lost its entry
REQUEUE_APART_S = 10.0  # all processes together requeue a generation at most once in this time
LATER_PER_SWEEP = 200  # postponed entries that one sweep puts back on `resume`


def batch_slots_max(slots: int) -> int:
    """Return how many of a worker's slots may run lines of batches: three quarters, at least 1."""
    return max(1, slots * 3 // 4)


class Queue:
    """The lanes as one worker uses them.

    Args:
        worker: the name of this worker, its consumer name in the group.
        pipeline: carries the commands of each generation; None: redis-py's pool.
        blocking_pipelines: by the tag of a partition, each carries blocking reads of this partition
            and nothing else: a call behind a blocking read would wait for it. Without one:
            redis-py's pool, where a blocking read has its own connection.
        counts_usage: note ended generations, so that their usage is counted.
    """

    def __init__(
        self,
        redis: Client,
        worker: str,
        pipeline: Pipeline | None = None,
        blocking_pipelines: Mapping[str, Pipeline] | None = None,
        *,
        partitions: Partitions | None = None,
        counts_usage: bool = True,
    ) -> None:
        self.redis = redis
        self.worker = worker
        self.scripts = Scripts(redis, pipeline)
        self.pipeline = self.scripts.pipeline
        self.blocking_pipelines = dict(blocking_pipelines or {})
        self.partitions = partitions or Partitions()
        self._counts_usage = counts_usage
        # By lane: the partition that is read first. One number for all lanes would go on by the
        # number of lanes that are read in a round, and so pass over some partitions.
        self._first = Counter[str]()

    async def ensure_groups(self) -> None:
        """Create the lanes and their group at 0, so that earlier entries are delivered, too.

        Passes over partitions of a cluster that are away: a read creates their groups later.
        """
        streams = [keys.lane(lane, tag) for tag in self.partitions.tags for lane in keys.LANES]
        create: list[Command] = [
            ("XGROUP", "CREATE", stream, keys.GROUP, "0", "MKSTREAM") for stream in streams
        ]
        with translated():
            replies = [
                None if str(reply).startswith("BUSYGROUP") else reply
                for reply in await self.pipeline.run(create)
            ]
            for reply in replies:
                if isinstance(reply, Exception) and not is_partial(reply, replies):
                    raise reply

    async def read(self, lane: str, count: int) -> list[Delivery]:
        """Read up to `count` new entries of one lane over all partitions, without waiting.

        Partitions take turns: if there are more of them than entries may start, each call begins
        with the next one.
        """
        found: list[Delivery] = []
        tags = self._in_turn(lane)
        if count < len(tags):
            tags = await self._not_empty(lane, tags)
        while tags and len(found) < count:
            some = tags[: count - len(found)]
            # Redis applies COUNT to each stream, so each gets a share of what may start.
            share = (count - len(found)) // len(some)
            found += await self._read(self.pipeline, [(tag, [lane]) for tag in some], share, ())
            tags = tags[len(some) :]
        return found

    async def wait(self, lanes: Sequence[str], wait_ms: int, *, tag: str = "") -> list[Delivery]:
        """Wait at most `wait_ms` ms for a new entry, and read at most one of each lane.

        Args:
            tag: of the partition; empty: the only one.
        """
        tag = tag or self.partitions.tags[0]
        pipeline = self.blocking_pipelines.get(tag) or ClientPipeline(self.redis)
        return await self._read(pipeline, [(tag, lanes)], 1, ("BLOCK", wait_ms))

    def _in_turn(self, what: str) -> list[str]:
        """Return the partitions; of a cluster with some shards away, those on the others."""
        tags = self.partitions.tags
        self._first[what] = first = (self._first[what] + 1) % len(tags)
        tags = (*tags[first:], *tags[:first])
        if not is_partly_away(self.redis):
            return list(tags)
        return [tag for tag in tags if serves(self.redis, keys.running(tag))] or list(tags)

    async def _not_empty(self, lane: str, tags: Sequence[str]) -> list[str]:
        """Return the partitions whose lane has entries; workers may have read all of them."""
        lengths = await self.pipeline.run([("XLEN", keys.lane(lane, tag)) for tag in tags])
        with translated():
            return [
                tag for tag, length in zip(tags, lengths, strict=True) if _checked(length, lengths)
            ]

    async def _read(
        self,
        pipeline: Pipeline,
        places: Sequence[tuple[str, Sequence[str]]],
        count: int,
        wait: Command,
    ) -> list[Delivery]:
        """Read `count` entries of each lane of each place: a tag of a partition, and lanes."""
        commands: list[Command] = [
            (
                "XREADGROUP", "GROUP", keys.GROUP, self.worker, "COUNT", count, *wait,
                "STREAMS", *(keys.lane(lane, tag) for lane in lanes), *(">" for _ in lanes),
            )
            for tag, lanes in places
        ]  # fmt: skip
        replies = await pipeline.run(commands)
        found: list[Delivery] = []
        for (tag, lanes), reply in zip(places, replies, strict=True):
            if isinstance(reply, Exception):
                if not is_partial(reply, replies):
                    await self._mend_group(reply)
                continue
            names = {keys.lane(lane, tag).encode(): lane for lane in lanes}
            found += [
                Delivery(names[stream], entry_id, decode_entry(_content(fields)), tag=tag)
                for stream, entries in reply or ()
                for entry_id, fields in entries
            ]
        return found

    async def _mend_group(self, refusal: Exception) -> None:
        """Create the groups again if Redis came back empty; raise any other refusal."""
        with translated():
            if not str(refusal).startswith(("NOGROUP", "UNBLOCKED")):
                raise refusal
        await self.ensure_groups()

    async def claim(self, lane: str, idle_ms: int, count: int) -> list[Delivery]:
        """Take over entries that a silent consumer has held for `idle_ms` ms.

        Walks the whole lane in each partition until `count` entries are found.
        """
        found: list[Delivery] = []
        cursors: dict[str, Any] = dict.fromkeys(self._in_turn(f"claim {lane}"), "0-0")
        while cursors and len(found) < count:
            tags = list(cursors)[: count - len(found)]
            share = (count - len(found)) // len(tags)
            claims: list[Command] = [
                (
                    "XAUTOCLAIM", keys.lane(lane, tag), keys.GROUP, self.worker, idle_ms,
                    cursors[tag], "COUNT", share,  # one step may return fewer
                )
                for tag in tags
            ]  # fmt: skip
            replies = await self.pipeline.run(claims)
            for tag, reply in zip(tags, replies, strict=True):
                if isinstance(reply, Exception):
                    if not is_partial(reply, replies):
                        await self._mend_group(reply)
                    del cursors[tag]
                    continue
                cursors[tag], entries = reply[0], reply[1]
                found += [
                    Delivery(lane, entry[0], decode_entry(_content(entry[1])), True, tag)
                    for entry in entries
                    if entry and entry[1]  # Redis 6.2 returns deleted entries, too, as nil
                ]
                if cursors[tag] in (b"0-0", "0-0"):
                    del cursors[tag]
        return found

    async def renew(self, held: Mapping[str, Sequence[bytes]]) -> None:
        """Reset the idle time of entries (by stream), so that other workers do not claim them."""
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for stream, entries in held.items():
                if entries:
                    pipeline.xclaim(stream, keys.GROUP, self.worker, 0, list(entries), justid=True)
            await pipeline.execute(raise_on_error=False)

    async def acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge an entry and delete it from its lane."""
        await self.pipeline.run(_acknowledge_commands(delivery))

    async def leave(
        self,
        delivery: Delivery,
        generation_id: str,
        retention_ms: int,
        records: Sequence[tuple[str, Call]] = (),
        *,
        fields: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Do what follows the end of a generation, then acknowledge its entry.

        Args:
            records: calls of scripts that record the owner's bytes and tokens. A record without a
                call here is written in a further round trip, from the end in meta.
            fields: of meta, as the begin returned them; None: not known.
        """
        ending = Ending(generation_id, self.partitions.of(generation_id), retention_ms)
        await leave(
            self.scripts, ending, _acknowledge_commands(delivery),
            records=records, fields=fields, counts_usage=self._counts_usage,
        )  # fmt: skip

    # Beside the lanes

    async def note_begun(self, ticket: LaneEntry, created_at_ms: int) -> None:
        """Record that a worker runs a generation, which no longer waits.

        Args:
            created_at_ms: when it was accepted. `note_running` replaces this time.
        """
        tag = self.partitions.of(ticket.id)
        await self.pipeline.run(
            [
                ("ZADD", keys.running(tag), created_at_ms, ticket.id),
                ("ZREM", keys.waiting(ticket.priority, tag), ticket.id),
            ]
        )

    async def note_running(self, ids: Sequence[str], now_ms: int) -> None:
        """Record again which generations run here, in case Redis lost the index.

        Passes over partitions of a cluster that are away, as long as others answer.
        """
        if ids:
            zadds: list[Command] = [
                ("ZADD", keys.running(tag), *(part for name in some for part in (now_ms, name)))
                for tag, some in self.partitions.grouped(ids).items()
            ]
            raise_unless_partial(await self.pipeline.run(zadds))

    async def try_later(
        self, ticket: LaneEntry, at_ms: int, *, guard_s: float | None = None
    ) -> None:
        """Postpone a generation: it returns to `resume` at `at_ms`, Redis's clock.

        Args:
            guard_s: the pause of a generation that has not begun: the janitor, which takes it for
                lost after some time, adds no second entry meanwhile.
        """
        entry, tag = msgspec.json.encode(ticket), self.partitions.of(ticket.id)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.zadd(keys.later(tag), {entry: at_ms})
            pipeline.zadd(keys.waiting(ticket.priority, tag), {ticket.id: at_ms}, nx=True)
            pipeline.zrem(keys.running(tag), ticket.id)
            if guard_s is not None:
                guard_ms = round((guard_s + REQUEUE_APART_S) * 1000)
                pipeline.set(keys.requeued(ticket.id, tag), b"1", px=guard_ms)
            await pipeline.execute()

    async def put_back(self, tickets: Sequence[LaneEntry], lane: str = "resume") -> None:
        """Put entries of generations on a lane, which wakes waiting workers.

        Writes no index: the generation is in one of them, or it has ended meanwhile.
        """
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for ticket in tickets:
                stream = keys.lane(lane, self.partitions.of(ticket.id))
                pipeline.xadd(stream, {keys.FIELD: msgspec.json.encode(ticket)})
            await pipeline.execute()

    async def has_ended(self, generation_id: str) -> bool:
        """Whether a generation has ended, for example by a cancel; False: also if it is absent."""
        with translated():
            status = await self.redis.hget(keys.meta(generation_id), "status")  # type: ignore[misc]
        return status not in (None, b"queued", b"running")

    async def move_due(self) -> None:
        """Move postponed entries that are due to `resume`, in each partition."""
        calls: list[tuple[str, Call]] = [
            ("later", ([keys.later(tag), keys.lane("resume", tag)], [LATER_PER_SWEEP]))
            for tag in self.partitions.tags
        ]
        raise_unless_partial(await self.scripts.run_mixed(calls))


def _content(fields: Any) -> bytes:
    """Return the content of an entry. redis-py returns its fields as a mapping, RESP2 as a list."""
    if not isinstance(fields, Mapping):
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    content: bytes = fields.get(keys.FIELD, b"")
    return content


def _checked(reply: Any, replies: Sequence[Any]) -> Any:
    """Return a reply; None for an error that `is_partial`. Raises any other error."""
    if not isinstance(reply, Exception):
        return reply
    if not is_partial(reply, replies):
        raise reply
    return None


def _acknowledge_commands(delivery: Delivery) -> list[Command]:
    stream = delivery.stream
    return [("XACK", stream, keys.GROUP, delivery.entry_id), ("XDEL", stream, delivery.entry_id)]


async def put_back(
    store: Store, generation_id: str, priority: str, model: str, *, lane: str = "resume"
) -> None:
    """Add another entry of a generation to a lane, which wakes a waiting worker."""
    tag = partitions_of(store.settings).of(generation_id)
    names = [keys.lane(lane, tag), keys.waiting(priority, tag)]
    args = [generation_id, encode_entry(generation_id, priority, model), ""]
    await store.scripts.run("enqueue", names, args)
