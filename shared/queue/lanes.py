"""The queue: it delivers each generation to some worker, at least once.

Three streams with one consumer group: `resume` before `interactive` before `batch`. An entry names
a generation. Safety never depends on the queue: `begin` on the generation decides which worker
holds it. Beside the streams stand sorted sets of waiting, running and postponed generations. Each
partition (shared/queue/partitions.py) has these streams and sets; a lane is read over all of them.

Every coroutine here may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.exceptions import NoScriptError

from shared.log.owner_bytes import SCRIPT
from shared.log.store import Store
from shared.queue.leaving import follow_up, forget_commands, leave_call
from shared.queue.partitions import Partitions, partitions_of
from shared.redis import keys
from shared.redis.client import Client, Command, translated
from shared.redis.pipeline import Call, ClientPipeline, Pipeline
from shared.redis.scripts import Scripts

NEVER_BEGAN_S = 30.0  # a generation that waits this long without a begin may have lost its entry
REQUEUE_APART_S = 10.0  # all processes together requeue a generation at most once in this time
ENTRY_VERSION = 1
LATER_PER_SWEEP = 200  # postponed entries that one sweep puts back on `resume`


class LaneEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of a queue entry. `v` lets old and new workers share a queue."""

    v: int
    id: str
    priority: str
    model: str
    away_since_ms: int = 0  # since then its model server does not answer, Redis's clock; 0: unknown
    breaks: int = 0  # how often the server broke off this answer without a counted failure


@dataclass(frozen=True, slots=True)
class Delivery:
    """A queue entry that a worker received.

    Attributes:
        ticket: the content; None: this version cannot read it, leave it for other workers.
        is_claimed: taken over from a silent consumer, not read as a new entry.
        tag: of its partition.
    """

    lane: str
    entry_id: bytes
    ticket: LaneEntry | None
    is_claimed: bool = False
    tag: str = keys.QUEUE

    @property
    def stream(self) -> str:
        return keys.lane(self.lane, self.tag)


_tickets = msgspec.json.Decoder(LaneEntry)


def batch_slots_max(slots: int) -> int:
    """Return how many of a worker's slots may run lines of batches: three quarters, at least 1."""
    return max(1, slots * 3 // 4)


def encode_entry(generation_id: str, priority: str, model: str) -> bytes:
    """Return the content of a queue entry in this version."""
    return msgspec.json.encode(LaneEntry(ENTRY_VERSION, generation_id, priority, model))


def decode_entry(raw: bytes) -> LaneEntry | None:
    """Decode the content of an entry; None: another version or form."""
    try:
        ticket = _tickets.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return ticket if ticket.v == ENTRY_VERSION else None


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
        self._turn = 0  # the partition whose turn it is to be read first

    async def ensure_groups(self) -> None:
        """Create the lanes and their group at 0, so that earlier entries are delivered, too."""
        streams = [keys.lane(lane, tag) for tag in self.partitions.tags for lane in keys.LANES]
        create: list[Command] = [
            ("XGROUP", "CREATE", stream, keys.GROUP, "0", "MKSTREAM") for stream in streams
        ]
        with translated():
            for reply in await self.pipeline.run(create):
                if isinstance(reply, Exception) and not str(reply).startswith("BUSYGROUP"):
                    raise reply

    async def read(self, lane: str, count: int) -> list[Delivery]:
        """Read up to `count` new entries of one lane over all partitions, without waiting.

        Partitions take turns: if there are more of them than entries may start, each call begins
        with the next one.
        """
        found: list[Delivery] = []
        tags = self._in_turn()
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

    def _in_turn(self) -> list[str]:
        tags = self.partitions.tags
        self._turn = (self._turn + 1) % len(tags)
        return [*tags[self._turn :], *tags[: self._turn]]

    async def _not_empty(self, lane: str, tags: Sequence[str]) -> list[str]:
        """Return the partitions whose lane has entries; workers may have read all of them."""
        lengths = await self.pipeline.run([("XLEN", keys.lane(lane, tag)) for tag in tags])
        return [tag for tag, length in zip(tags, lengths, strict=True) if length]

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
        cursors: dict[str, Any] = dict.fromkeys(self._in_turn(), "0-0")
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
            for tag, reply in zip(tags, await self.pipeline.run(claims), strict=True):
                if isinstance(reply, Exception):
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
        charge: Call | None = None,
    ) -> None:
        """Acknowledge the entry of an ended generation and `forget` it, in one round trip.

        Args:
            charge: the call that records its bytes (shared/log/owner_bytes.py); None: not known.
        """
        calls: list[tuple[str, Call]] = [] if charge is None else [(SCRIPT, charge)]
        forgetting = forget_commands(generation_id, self.partitions.of(generation_id))
        if self._counts_usage:
            forgetting = forgetting[:1]
            calls.append(leave_call(generation_id, self.partitions.of(generation_id)))
        scripts = [await self.scripts.command(*call) for call in calls]
        # The entry is acknowledged last: without its acknowledgement all of this is repeated.
        commands = [*forgetting, *scripts, *_acknowledge_commands(delivery)]
        replies = await self.pipeline.run(commands)
        for call, reply in zip(calls, replies[len(forgetting) :], strict=False):
            if isinstance(reply, NoScriptError):
                await self.scripts.run(call[0], *call[1])
        await follow_up(
            self.scripts, generation_id, retention_ms, replies[0], is_charged=charge is not None
        )

    # Beside the lanes

    async def note_begun(self, ticket: LaneEntry, now_ms: int) -> None:
        """Record that a worker runs a generation, which no longer waits."""
        tag = self.partitions.of(ticket.id)
        await self.pipeline.run(
            [
                ("ZADD", keys.running(tag), now_ms, ticket.id),
                ("ZREM", keys.waiting(ticket.priority, tag), ticket.id),
            ]
        )

    async def note_running(self, ids: Sequence[str], now_ms: int) -> None:
        """Record again which generations run here, in case Redis lost the index."""
        if ids:
            with translated():
                pipeline = self.redis.pipeline(transaction=False)
                for tag, some in self.partitions.grouped(ids).items():
                    pipeline.zadd(keys.running(tag), dict.fromkeys(some, now_ms))
                await pipeline.execute()

    async def try_later(self, ticket: LaneEntry, at_ms: int) -> None:
        """Postpone a generation: it returns to `resume` at `at_ms`, Redis's clock."""
        entry, tag = msgspec.json.encode(ticket), self.partitions.of(ticket.id)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.zadd(keys.later(tag), {entry: at_ms})
            pipeline.zadd(keys.waiting(ticket.priority, tag), {ticket.id: at_ms}, nx=True)
            pipeline.zrem(keys.running(tag), ticket.id)
            await pipeline.execute()

    async def move_due(self) -> None:
        """Move postponed entries that are due to `resume`, in each partition."""
        calls: list[tuple[str, Call]] = [
            ("later", ([keys.later(tag), keys.lane("resume", tag)], [LATER_PER_SWEEP]))
            for tag in self.partitions.tags
        ]
        await self.scripts.run_all(calls)


def _content(fields: Any) -> bytes:
    """Return the content of an entry. redis-py returns its fields as a mapping, RESP2 as a list."""
    if not isinstance(fields, Mapping):
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    content: bytes = fields.get(keys.FIELD, b"")
    return content


def _acknowledge_commands(delivery: Delivery) -> list[Command]:
    stream = delivery.stream
    return [("XACK", stream, keys.GROUP, delivery.entry_id), ("XDEL", stream, delivery.entry_id)]


async def requeue(store: Store, generation_id: str, priority: str) -> None:
    """Queue a generation again. Safe at any time, because `begin` decides.

    All processes together requeue a generation at most once in `REQUEUE_APART_S`, so that unread
    entries do not accumulate.
    """
    guard = keys.requeued(generation_id, partitions_of(store.settings).of(generation_id))
    with translated():
        if not await store.redis.set(guard, b"1", nx=True, px=round(REQUEUE_APART_S * 1000)):
            return
        model = await store.redis.hget(keys.meta(generation_id), "model")  # type: ignore[misc]
    if model:  # the meta of a batch has no model: no worker runs a batch
        await put_back(store, generation_id, priority, bytes(model).decode())


async def put_back(
    store: Store, generation_id: str, priority: str, model: str, *, lane: str = "resume"
) -> None:
    """Add another entry of a generation to a lane, which wakes a waiting worker."""
    tag = partitions_of(store.settings).of(generation_id)
    names = [keys.lane(lane, tag), keys.waiting(priority, tag)]
    args = [generation_id, encode_entry(generation_id, priority, model), ""]
    await store.scripts.run("enqueue", names, args)
