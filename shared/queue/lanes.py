"""The queue: who should look at which generation, at least once. Safety never depends on it.

Three streams of one consumer group, `resume` before `interactive` before `batch`; an entry names a
generation, and `begin` on that generation decides. Beside them: who waits since when (ZSETs), what
is tried again when, and which workers live. All keys carry `{q}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.exceptions import NoScriptError, ResponseError

from shared.errors import Unavailable
from shared.later.webhooks import end_generation
from shared.log.owner_bytes import SCRIPT, over
from shared.log.store import Store
from shared.redis import keys
from shared.redis.client import Client, Command, translated
from shared.redis.pipeline import Call, ClientPipeline, Pipeline
from shared.redis.scripts import Scripts

REQUEUE_S = 10.0  # a generation is put back on a lane at most once in this time
VERSION = 1
LATER_PER_SWEEP = 200


class LaneEntry(msgspec.Struct, frozen=True):
    """One queue entry's content; `v` lets old and new workers share a queue."""

    v: int
    id: str
    priority: str
    model: str


class Presence(msgspec.Struct, frozen=True):
    """What a worker says of itself at each renewal."""

    worker: str
    at_ms: int  # Redis's clock
    slots: int
    running: int
    draining: bool
    counters: dict[str, float]  # since the worker started; names as in docs/operations.md


@dataclass(frozen=True, slots=True)
class Delivery:
    """An entry that a worker was given.

    Attributes:
        is_claimed: it was taken over from a consumer that has been silent, not read fresh.
        ticket: None where this version cannot read it: leave it for others.
    """

    lane: str
    entry_id: bytes
    ticket: LaneEntry | None
    is_claimed: bool = False


_tickets = msgspec.json.Decoder(LaneEntry)
_presences = msgspec.json.Decoder(Presence)


def batch_slots_max(slots: int) -> int:
    """How many of a worker's slots may run lines: alone they never fill it."""
    return max(1, slots * 3 // 4)


def encode_entry(generation_id: str, priority: str, model: str) -> bytes:
    return msgspec.json.encode(LaneEntry(VERSION, generation_id, priority, model))


def decode_entry(raw: bytes) -> LaneEntry | None:
    """Read an entry; None for one of another version or shape."""
    try:
        ticket = _tickets.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return ticket if ticket.v == VERSION else None


class Queue:
    """The lanes as one worker uses them.

    Every method may raise `Unavailable`: Redis did not answer in time.

    Args:
        worker: the name of this worker, its consumer name in the group.
        pipeline: carries the commands of each generation; None: redis-py's pool.
        blocking_pipeline: carries blocking reads, and nothing else: a call behind a blocking read
            would wait for it. None: redis-py's pool, where a blocking read has its own connection.
    """

    def __init__(
        self,
        redis: Client,
        worker: str,
        pipeline: Pipeline | None = None,
        blocking_pipeline: Pipeline | None = None,
    ) -> None:
        self.redis = redis
        self.worker = worker
        self.scripts = Scripts(redis, pipeline)
        self.pipeline = self.scripts.pipeline
        self.blocking_pipeline: Pipeline = blocking_pipeline or ClientPipeline(redis)

    async def ensure_groups(self) -> None:
        """Make the lanes and their group, at 0: what was added before is delivered, too."""
        for lane in keys.LANES:
            with translated():
                try:
                    await self.redis.xgroup_create(keys.lane(lane), keys.GROUP, "0", mkstream=True)
                except ResponseError as exc:
                    if not str(exc).startswith("BUSYGROUP"):
                        raise

    async def read(self, lane: str, count: int) -> list[Delivery]:
        """Take up to `count` fresh entries of one lane, without waiting."""
        return await self._read(self.pipeline, [lane], count, ())

    async def wait(self, lanes: Sequence[str], wait_ms: int) -> list[Delivery]:
        """Take the next entry of any lane; at most one of each, after at most `wait_ms`."""
        return await self._read(self.blocking_pipeline, lanes, 1, ("BLOCK", wait_ms))

    async def _read(
        self, pipeline: Pipeline, lanes: Sequence[str], count: int, wait: Command
    ) -> list[Delivery]:
        names = {keys.lane(lane): lane for lane in lanes}
        command = (
            "XREADGROUP", "GROUP", keys.GROUP, self.worker, "COUNT", count, *wait,
            "STREAMS", *names, *(">" for _ in names),
        )  # fmt: skip
        (reply,) = await pipeline.run([command])
        with translated():
            if isinstance(reply, Exception):
                if not str(reply).startswith(("NOGROUP", "UNBLOCKED")):
                    raise reply
                await self.ensure_groups()  # Redis came back empty
                return []
        return [
            Delivery(names[stream.decode()], entry_id, decode_entry(_content(fields)))
            for stream, entries in reply or ()
            for entry_id, fields in entries
        ]

    async def claim(self, lane: str, idle_ms: int, count: int) -> list[Delivery]:
        """Take over what has been with a silent consumer for `idle_ms`; walks the whole lane."""
        found: list[Delivery] = []
        cursor: Any = "0-0"
        while len(found) < count:
            with translated():
                try:
                    reply = await self.redis.xautoclaim(
                        keys.lane(lane), keys.GROUP, self.worker, idle_ms, cursor,
                        count=count - len(found),  # one step may find less, and there are slots
                    )  # fmt: skip
                except ResponseError as exc:
                    if not str(exc).startswith("NOGROUP"):
                        raise
                    await self.ensure_groups()
                    return found
            cursor, entries = reply[0], reply[1]
            found += [
                Delivery(lane, entry_id, decode_entry(fields.get(keys.FIELD, b"")), True)
                for entry_id, fields in entries
                if fields
            ]
            if cursor in (b"0-0", "0-0"):
                break
        return found

    async def renew(self, held: Mapping[str, Sequence[bytes]]) -> None:
        """Keep entries (by lane) away from other workers' claims, without counting a delivery."""
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for lane, entries in held.items():
                if entries:
                    pipeline.xclaim(
                        keys.lane(lane), keys.GROUP, self.worker, 0, list(entries), justid=True
                    )
            await pipeline.execute(raise_on_error=False)

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take an entry off its lane for good."""
        await self.pipeline.run(_acknowledging(delivery))

    async def leave(
        self,
        delivery: Delivery,
        generation_id: str,
        retention_ms: int,
        charge: Call | None = None,
    ) -> None:
        """Acknowledge the entry of a generation that has ended, and `forget` it, in one request.

        Args:
            charge: notes what it keeps (shared/log/owner_bytes.py), where that is known.
        """
        done, forgetting = _acknowledging(delivery), _forgetting(generation_id)
        noting = [await self.scripts.command(SCRIPT, charge)] if charge is not None else []
        replies = await self.pipeline.run([*done, *forgetting, *noting])
        if charge is not None and isinstance(replies[-1], NoScriptError):
            await self.scripts.run(SCRIPT, *charge)
        await _follow_up(
            self.scripts, generation_id, retention_ms, replies[len(done)],
            is_noted=charge is not None,
        )  # fmt: skip

    # Beside the lanes

    async def note_begun(self, ticket: LaneEntry, now_ms: int) -> None:
        """It waits no more: a worker has it."""
        await self.pipeline.run(
            [
                ("ZADD", keys.RUNNING, now_ms, ticket.id),
                ("ZREM", keys.waiting(ticket.priority), ticket.id),
            ]
        )

    async def note_running(self, ids: Sequence[str], now_ms: int) -> None:
        """Say again what runs here, so that the index survives its loss."""
        if ids:
            with translated():
                await self.redis.zadd(keys.RUNNING, dict.fromkeys(ids, now_ms))

    async def try_later(self, ticket: LaneEntry, at_ms: int) -> None:
        """Put it back on `resume` at `at_ms`, Redis's clock; it waits meanwhile."""
        entry = msgspec.json.encode(ticket)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.zadd(keys.LATER, {entry: at_ms})
            pipeline.zadd(keys.waiting(ticket.priority), {ticket.id: at_ms}, nx=True)
            pipeline.zrem(keys.RUNNING, ticket.id)
            await pipeline.execute()

    async def announce(self, presence: Presence) -> None:
        with translated():
            encoded: Any = msgspec.json.encode(presence)
            await self.redis.hset(keys.WORKERS, presence.worker, encoded)  # type: ignore[misc]

    async def withdraw(self) -> None:
        """This worker is gone: nobody need count on it."""
        with translated():
            await self.redis.hdel(keys.WORKERS, self.worker)  # type: ignore[misc]


async def forget(redis: Client, generation_id: str, retention_ms: int) -> None:
    """Take an ended generation out of the indexes, and have its webhook delivered.

    Its idempotency key goes when its meta goes.
    """
    scripts = Scripts(redis)
    found, *_ = await scripts.pipeline.run(_forgetting(generation_id))
    await _follow_up(scripts, generation_id, retention_ms, found, is_noted=False)


def _content(fields: Any) -> bytes:
    """Return what an entry says: redis-py makes a mapping of it, on a line it is as it came."""
    if not isinstance(fields, Mapping):
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    content: bytes = fields.get(keys.FIELD, b"")
    return content


def _acknowledging(delivery: Delivery) -> list[Command]:
    lane = keys.lane(delivery.lane)
    return [("XACK", lane, keys.GROUP, delivery.entry_id), ("XDEL", lane, delivery.entry_id)]


def _forgetting(generation_id: str) -> list[Command]:
    """Return the commands; the first one's answer goes to `_follow_up`."""
    return [
        ("HMGET", keys.meta(generation_id), "idem", "webhook", "owner", "wait"),
        ("ZREM", keys.RUNNING, generation_id),
        *(("ZREM", keys.waiting(priority), generation_id) for priority in keys.PRIORITIES),
    ]


async def _follow_up(
    scripts: Scripts, generation_id: str, retention_ms: int, found: Any, *, is_noted: bool
) -> None:
    if isinstance(found, Exception):
        raise Unavailable(f"Redis refuses: {found}") from found
    redis = scripts.redis
    idempotency, webhook, owner, wait = found
    if owner and not wait and not is_noted:  # lines of a batch, which wait, are not counted
        await scripts.run(SCRIPT, *over(owner.decode(), generation_id, retention_ms))
    if idempotency:
        with translated():
            # A little less than meta: a key must never name a generation that is not there.
            await redis.pexpire(idempotency, max(1, 2 * retention_ms - 1000))
    if webhook and await end_generation(redis, generation_id):
        await wake_jobs(redis)


async def wake_jobs(redis: Client) -> None:
    """Tell one jobs process that something may be due; each looks once a second anyway."""
    with translated():
        pipeline = redis.pipeline(transaction=False)
        pipeline.lpush(keys.JOBS_WAKE, b"1")
        pipeline.ltrim(keys.JOBS_WAKE, 0, 0)
        await pipeline.execute()


async def workers_seen(redis: Client) -> list[Presence]:
    """Return what each worker last said; the reader judges its age."""
    with translated():
        found: dict[bytes, bytes] = await redis.hgetall(keys.WORKERS)  # type: ignore[misc]
    presences = []
    for raw in found.values():
        with suppress(msgspec.MsgspecError):  # of a newer version
            presences.append(_presences.decode(raw))
    return presences


async def running_of(redis: Client, ids: Sequence[str]) -> list[str]:
    """Return those of `ids` that some worker has not left yet, as far as workers have said."""
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for generation_id in ids:
            pipeline.zscore(keys.RUNNING, generation_id)
        scores = await pipeline.execute()
    return [one for one, score in zip(ids, scores, strict=True) if score is not None]


async def queue_depths(redis: Client) -> dict[str, int]:
    """Return how many wait by priority, run, and are to be tried later."""
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for priority in keys.PRIORITIES:
            pipeline.zcard(keys.waiting(priority))
        pipeline.zcard(keys.RUNNING)
        pipeline.zcard(keys.LATER)
        counts = await pipeline.execute()
    return dict(zip((*keys.PRIORITIES, "running", "later"), counts, strict=True))


async def session_ids(
    redis: Client, owner: str, session: str, limit: int, *, before_ms: int | None = None
) -> list[str]:
    """Return a session's generations, newest first; those made before `before_ms`."""
    return await _newest(redis, keys.session(owner, session), limit, before_ms)


async def owner_ids(
    redis: Client, owner: str, limit: int, *, before_ms: int | None = None
) -> list[str]:
    """Return an owner's generations, newest first."""
    return await _newest(redis, keys.owner(owner), limit, before_ms)


async def _newest(redis: Client, key: str, limit: int, before_ms: int | None) -> list[str]:
    highest = "+inf" if before_ms is None else f"({before_ms}"
    with translated():
        found = await redis.zrevrangebyscore(key, highest, "-inf", start=0, num=limit)
    return [member.decode() for member in found]


async def requeue(store: Store, generation_id: str, priority: str) -> None:
    """Ask workers once more to look at a generation: safe at any time, `begin` decides.

    Each generation is put back at most once in `REQUEUE_S`, whoever asks, so that entries which
    nobody reads do not pile up.

    Raises:
        Unavailable: repeating it is safe.
    """
    guard = keys.requeued(generation_id)
    with translated():
        if not await store.redis.set(guard, b"1", nx=True, px=round(REQUEUE_S * 1000)):
            return
        model = await store.redis.hget(keys.meta(generation_id), "model")  # type: ignore[misc]
    if model:  # the log of a batch has no model, and no worker looks after it
        await put_back(store, generation_id, priority, bytes(model).decode())


async def put_back(
    store: Store, generation_id: str, priority: str, model: str, *, lane: str = "resume"
) -> None:
    """Put a generation on a lane again, which wakes a waiting worker at once.

    Raises:
        Unavailable: repeating it is safe.
    """
    args = [generation_id, encode_entry(generation_id, priority, model), ""]
    await store.scripts.run("enqueue", [keys.lane(lane), keys.waiting(priority)], args)
