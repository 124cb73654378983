"""The queue: it delivers each generation to some worker, at least once.

Three streams with one consumer group: `resume` before `interactive` before `batch`. An entry names
a generation. Safety never depends on the queue: `begin` on the generation decides which worker
holds it. Beside the streams stand sorted sets of waiting, running and postponed generations, and
the presence of each worker. All keys carry `{q}`.

Every coroutine here may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
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


class Presence(msgspec.Struct, frozen=True):
    """The report of a worker about itself, written at each renewal."""

    worker: str
    at_ms: int  # Redis's clock
    slots: int
    running: int
    draining: bool
    counters: dict[str, float]  # since the worker started; names as in docs/operations.md


@dataclass(frozen=True, slots=True)
class Delivery:
    """A queue entry that a worker received.

    Attributes:
        ticket: the content; None: this version cannot read it, leave it for other workers.
        is_claimed: taken over from a silent consumer, not read as a new entry.
    """

    lane: str
    entry_id: bytes
    ticket: LaneEntry | None
    is_claimed: bool = False


_tickets = msgspec.json.Decoder(LaneEntry)
_presences = msgspec.json.Decoder(Presence)


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
        """Create the lanes and their group at 0, so that earlier entries are delivered, too."""
        for lane in keys.LANES:
            with translated():
                try:
                    await self.redis.xgroup_create(keys.lane(lane), keys.GROUP, "0", mkstream=True)
                except ResponseError as exc:
                    if not str(exc).startswith("BUSYGROUP"):
                        raise

    async def read(self, lane: str, count: int) -> list[Delivery]:
        """Read up to `count` new entries of one lane, without waiting."""
        return await self._read(self.pipeline, [lane], count, ())

    async def wait(self, lanes: Sequence[str], wait_ms: int) -> list[Delivery]:
        """Wait at most `wait_ms` ms for a new entry, and read at most one of each lane."""
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
        """Take over entries that a silent consumer has held for `idle_ms` ms.

        Walks the whole lane until `count` entries are found.
        """
        found: list[Delivery] = []
        cursor: Any = "0-0"
        while len(found) < count:
            with translated():
                try:
                    reply = await self.redis.xautoclaim(
                        keys.lane(lane), keys.GROUP, self.worker, idle_ms, cursor,
                        count=count - len(found),  # one step may return fewer
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
        """Reset the idle time of entries (by lane), so that other workers do not claim them."""
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for lane, entries in held.items():
                if entries:
                    pipeline.xclaim(
                        keys.lane(lane), keys.GROUP, self.worker, 0, list(entries), justid=True
                    )
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
        acknowledging = _acknowledge_commands(delivery)
        charging = [await self.scripts.command(SCRIPT, charge)] if charge is not None else []
        forgetting = _forget_commands(generation_id)
        replies = await self.pipeline.run([*acknowledging, *forgetting, *charging])
        if charge is not None and isinstance(replies[-1], NoScriptError):
            await self.scripts.run(SCRIPT, *charge)
        await _follow_up(
            self.scripts, generation_id, retention_ms, replies[len(acknowledging)],
            is_charged=charge is not None,
        )  # fmt: skip

    # Beside the lanes

    async def note_begun(self, ticket: LaneEntry, now_ms: int) -> None:
        """Record that a worker runs a generation, which no longer waits."""
        await self.pipeline.run(
            [
                ("ZADD", keys.RUNNING, now_ms, ticket.id),
                ("ZREM", keys.waiting(ticket.priority), ticket.id),
            ]
        )

    async def note_running(self, ids: Sequence[str], now_ms: int) -> None:
        """Record again which generations run here, in case Redis lost the index."""
        if ids:
            with translated():
                await self.redis.zadd(keys.RUNNING, dict.fromkeys(ids, now_ms))

    async def try_later(self, ticket: LaneEntry, at_ms: int) -> None:
        """Postpone a generation: it returns to `resume` at `at_ms`, Redis's clock."""
        entry = msgspec.json.encode(ticket)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.zadd(keys.LATER, {entry: at_ms})
            pipeline.zadd(keys.waiting(ticket.priority), {ticket.id: at_ms}, nx=True)
            pipeline.zrem(keys.RUNNING, ticket.id)
            await pipeline.execute()

    async def announce(self, presence: Presence) -> None:
        """Write the presence of this worker."""
        with translated():
            encoded: Any = msgspec.json.encode(presence)
            await self.redis.hset(keys.WORKERS, presence.worker, encoded)  # type: ignore[misc]

    async def withdraw(self) -> None:
        """Delete the presence of this worker."""
        with translated():
            await self.redis.hdel(keys.WORKERS, self.worker)  # type: ignore[misc]


async def forget(redis: Client, generation_id: str, retention_ms: int) -> None:
    """Remove an ended generation from the indexes, and note its webhook as due.

    Its idempotency key then expires with its meta.
    """
    scripts = Scripts(redis)
    found, *_ = await scripts.pipeline.run(_forget_commands(generation_id))
    await _follow_up(scripts, generation_id, retention_ms, found, is_charged=False)


def _content(fields: Any) -> bytes:
    """Return the content of an entry. redis-py returns its fields as a mapping, RESP2 as a list."""
    if not isinstance(fields, Mapping):
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    content: bytes = fields.get(keys.FIELD, b"")
    return content


def _acknowledge_commands(delivery: Delivery) -> list[Command]:
    lane = keys.lane(delivery.lane)
    return [("XACK", lane, keys.GROUP, delivery.entry_id), ("XDEL", lane, delivery.entry_id)]


def _forget_commands(generation_id: str) -> list[Command]:
    """Return the commands of `forget`. The reply of the first one goes to `_follow_up`."""
    return [
        ("HMGET", keys.meta(generation_id), "idem", "webhook", "owner", "wait"),
        ("ZREM", keys.RUNNING, generation_id),
        *(("ZREM", keys.waiting(priority), generation_id) for priority in keys.PRIORITIES),
    ]


async def _follow_up(
    scripts: Scripts, generation_id: str, retention_ms: int, found: Any, *, is_charged: bool
) -> None:
    if isinstance(found, Exception):
        raise Unavailable(f"Redis refuses: {found}") from found
    redis = scripts.redis
    idempotency, webhook, owner, wait = found
    if owner and not wait and not is_charged:  # only lines of a batch have `wait`: not counted
        await scripts.run(SCRIPT, *over(owner.decode(), generation_id, retention_ms))
    if idempotency:
        with translated():
            # 1 s before meta expires: a key must never name an absent generation.
            await redis.pexpire(idempotency, max(1, 2 * retention_ms - 1000))
    if webhook and await end_generation(redis, generation_id):
        await wake_jobs(redis)


async def wake_jobs(redis: Client) -> None:
    """Wake one jobs process. Each also looks for due work once a second."""
    with translated():
        pipeline = redis.pipeline(transaction=False)
        pipeline.lpush(keys.JOBS_WAKE, b"1")
        pipeline.ltrim(keys.JOBS_WAKE, 0, 0)
        await pipeline.execute()


async def workers_seen(redis: Client) -> list[Presence]:
    """Return the presence of each worker. The caller judges its age."""
    with translated():
        found: dict[bytes, bytes] = await redis.hgetall(keys.WORKERS)  # type: ignore[misc]
    presences = []
    for raw in found.values():
        with suppress(msgspec.MsgspecError):  # a newer version wrote this one
            presences.append(_presences.decode(raw))
    return presences


async def running_of(redis: Client, ids: Sequence[str]) -> list[str]:
    """Return those of `ids` that are in the index of running generations."""
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for generation_id in ids:
            pipeline.zscore(keys.RUNNING, generation_id)
        scores = await pipeline.execute()
    return [name for name, score in zip(ids, scores, strict=True) if score is not None]


async def queue_depths(redis: Client) -> dict[str, int]:
    """Return the number of waiting (by priority), running and postponed generations."""
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for priority in keys.PRIORITIES:
            pipeline.zcard(keys.waiting(priority))
        pipeline.zcard(keys.RUNNING)
        pipeline.zcard(keys.LATER)
        counts = await pipeline.execute()
    return dict(zip((*keys.PRIORITIES, "running", "later"), counts, strict=True))


async def session_ids(
    redis: Client, owner: str | None, session: str, limit: int, *, before_ms: int | None = None
) -> list[str]:
    """Return up to `limit` ids of a session, newest first.

    Args:
        owner: whose session; None: sessions of all owners (indexed where tokens are accepted).
        before_ms: only generations created before this time, Redis's clock; None: all.
    """
    key = keys.session_of_all(session) if owner is None else keys.session(owner, session)
    return await _newest(redis, key, limit, before_ms)


async def owner_ids(
    redis: Client, owner: str, limit: int, *, before_ms: int | None = None
) -> list[str]:
    """Return up to `limit` ids of an owner, newest first; as `session_ids`."""
    return await _newest(redis, keys.owner(owner), limit, before_ms)


async def _newest(redis: Client, key: str, limit: int, before_ms: int | None) -> list[str]:
    highest = "+inf" if before_ms is None else f"({before_ms}"
    with translated():
        found = await redis.zrevrangebyscore(key, highest, "-inf", start=0, num=limit)
    return [member.decode() for member in found]


async def requeue(store: Store, generation_id: str, priority: str) -> None:
    """Queue a generation again. Safe at any time, because `begin` decides.

    All processes together requeue a generation at most once in `REQUEUE_APART_S`, so that unread
    entries do not accumulate.
    """
    guard = keys.requeued(generation_id)
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
    args = [generation_id, encode_entry(generation_id, priority, model), ""]
    await store.scripts.run("enqueue", [keys.lane(lane), keys.waiting(priority)], args)
