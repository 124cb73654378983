"""Batches: what is known of each, and what anybody may do with it.

A batch's truth is one hash; beside it stand what is in flight, which objects hold results, and what
has failed. Its progress is a log like a generation's, under the batch's own id, and the holder of
that log's token is the only one who may change the batch (shared/batches/lease.py). Here is the
rest: creating, reading, listing, asking for its end. The scripts are
shared/redis/scripts/batch_*.lua.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from shared.config.credentials import EVERYBODY
from shared.config.settings import Settings
from shared.errors import NotFound
from shared.later.webhooks import decode_webhook, register
from shared.log.events import Counts
from shared.log.ids import is_batch_id
from shared.queue.idempotency import reserve
from shared.queue.lanes import wake_jobs
from shared.redis import keys
from shared.redis.client import Client, clock_ms, translated
from shared.redis.scripts import Scripts

ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/generations")
FINAL = ("completed", "failed", "expired", "cancelled")
KEPT_S = 30 * 86_400.0  # a batch is known this long after its end, or its window
LINES_MAX = 50_000
PAGE_READ = 100
OUTPUT_BYTES_MAX = 2**40  # whatever the lines gave: it was bounded line by line
TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A validated request for a batch.

    Attributes:
        batch_id: given by the caller, who may create it again: then there is one.
        window: as the client said it; `window_s` in seconds.
        output_expires_s: of its files, from their creation; None: as files do.
        webhook: what is to be told of its end, JSON; empty: nothing.
    """

    batch_id: str
    owner: str
    endpoint: str
    input_file_id: str
    window: str
    window_s: float
    metadata: bytes = b"{}"
    output_expires_s: float | None = None
    webhook: bytes = b""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it stands. Times are Redis's, ms since 1970.

    Attributes:
        times: when it came into each status that it has had; `TIMES`.
        line, offset: the cursor: lines taken so far, and where the next one begins.
        errors: why the input was refused, a JSON array.
    """

    id: str
    owner: str
    status: str
    endpoint: str
    input_file_id: str
    window: str
    metadata: bytes
    created_at_ms: int
    expires_at_ms: int
    times: Mapping[str, int]
    total: int
    completed: int
    failed: int
    line: int
    offset: int
    usage: Counts
    model: str
    output_file_id: str
    error_file_id: str
    errors: bytes
    output_expires_s: float | None
    webhook: bytes

    @property
    def is_final(self) -> bool:
        return self.status in FINAL


class BatchProgress(NamedTuple):
    """What says whether somebody must look at a batch: its status, and when its window is over."""

    status: str
    expires_at_ms: int


class DeadLetter(msgspec.Struct, frozen=True):
    """A line that failed for good: where it stands in the input, and why it failed."""

    line: int
    offset: int
    length: int
    custom_id: str
    code: str


_dead_letters = msgspec.json.Decoder(DeadLetter)


class Batches:
    """The batches on one Redis. Every method may raise `Unavailable`: repeating it is safe."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self.redis = redis
        self.settings = settings
        self.scripts = Scripts(redis)

    async def create(self, new: NewBatch) -> tuple[Batch, bool]:
        """Create a batch unless it is there; returns it, and whether it is new.

        The indexes come first: an entry without a batch is skipped and dropped, a batch without
        an entry would be run by nobody. So does its webhook, which is told by whoever finds that
        the batch has ended.
        """
        if new.webhook:
            about = {"endpoint": new.endpoint, "metadata": msgspec.Raw(new.metadata)}
            webhook = decode_webhook(new.webhook)
            await register(self.redis, new.batch_id, "batch", webhook, about, owner=new.owner)
        created_ms = await clock_ms(self.redis)
        kept_ms = round((KEPT_S + new.window_s) * 1000)
        index = keys.batches(new.owner)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.zadd(keys.BATCHES_ACTIVE, {new.batch_id: created_ms}, nx=True)
            pipeline.zadd(index, {new.batch_id: created_ms}, nx=True)
            pipeline.zremrangebyscore(index, "-inf", created_ms - 2 * kept_ms)
            pipeline.pexpire(index, 2 * kept_ms)
            await pipeline.execute()
        meta, record = _meta_fields(new), _record_fields(new)
        words = [part for pair in meta.items() for part in pair]
        fields = [part for pair in record.items() for part in pair]
        args = [round(new.window_s * 1000), len(words), *words, *fields]
        reply = await self.scripts.run("batch_create", batch_keys(new.batch_id), args)
        await wake_jobs(self.redis)
        batch = await self.load(new.batch_id)
        if batch is None:
            raise NotFound("batch")  # it was there, and has just expired
        return batch, reply[0] == b"ok"

    async def reserve(self, owner: str, key: str, digest: str, batch_id: str) -> str:
        """Return the id that an idempotency key names: `batch_id` where it is new.

        Raises:
            RequestError: 422 `idempotency_mismatch`.
        """
        # A space is in no client's key: generations have names of their own.
        name = keys.idempotency(owner, f"batch {key}")
        return await reserve(self.redis, name, batch_id, digest, round(KEPT_S * 1000))

    async def load(self, batch_id: str) -> Batch | None:
        """Return a batch, whoever's it is."""
        return next(iter(await self._load_many([batch_id])), None)

    async def get(self, batch_id: str, owner: str) -> Batch:
        """Return a batch of this owner's; `EVERYBODY`: whoever's it is.

        Raises:
            NotFound: there is none, or it is somebody else's: the two look the same.
        """
        batch = await self.load(batch_id) if is_batch_id(batch_id) else None
        if batch is None or owner not in (batch.owner, EVERYBODY):
            raise NotFound("batch")
        return batch

    async def page(self, owner: str, *, after: str, limit: int) -> tuple[list[Batch], bool]:
        """Return up to `limit` batches, the newest first, and whether there are more.

        Args:
            owner: whose; `EVERYBODY`: of all owners, those that have not ended.

        Raises:
            NotFound: `after` is no batch of this owner, or has ended meanwhile.
        """
        index = keys.BATCHES_ACTIVE if owner == EVERYBODY else keys.batches(owner)
        place = await self._place_after(index, after) if after else 0
        found: list[Batch] = []
        while len(found) <= limit:
            with translated():
                ids = await self.redis.zrevrange(index, place, place + PAGE_READ - 1)
            batches = await self._load_many([batch_id.decode() for batch_id in ids])
            if owner == EVERYBODY:
                found += [batch for batch in batches if not batch.is_final]
            else:
                found += [batch for batch in batches if batch.owner == owner]
            place += len(ids)
            if len(ids) < PAGE_READ:
                break
        return found[:limit], len(found) > limit

    async def _place_after(self, index: str, after: str) -> int:
        with translated():
            rank = await self.redis.zrevrank(index, after.encode("utf-8", "replace"))
        if rank is None:
            raise NotFound("batch: after")
        return int(rank) + 1

    async def cancel(self, batch_id: str) -> None:
        """Ask for the end of a batch; its holder sees it within half a second."""
        await self.scripts.run("batch_cancel", batch_keys(batch_id), [])
        await wake_jobs(self.redis)

    async def dead_letters(self, batch_id: str, start: int, count: int) -> list[DeadLetter]:
        """Return the lines that failed for good, in the order in which they did."""
        with translated():
            raws: Sequence[bytes] = await self.redis.lrange(  # type: ignore[misc]
                keys.batch_dead(batch_id), start, start + count - 1
            )
        return [_dead_letters.decode(raw) for raw in raws]

    async def active(self, count: int) -> list[tuple[str, int]]:
        """Return the oldest unfinished batches, and when each was entered, ms."""
        with translated():
            found = await self.redis.zrange(keys.BATCHES_ACTIVE, 0, count - 1, withscores=True)
        return [(batch_id.decode(), int(since_ms)) for batch_id, since_ms in found]

    async def standings(self, ids: Sequence[str]) -> list[BatchProgress | None]:
        """Return status and end of the window of many batches, in one round trip; None: gone."""
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for batch_id in ids:
                pipeline.hmget(keys.batch(batch_id), ["status", "expires"])
            replies = await pipeline.execute() if ids else []
        return [
            None if status is None else BatchProgress(status.decode(), int(expires or b"0"))
            for status, expires in replies
        ]

    async def retire(self, ids: Sequence[str]) -> None:
        """Take batches that have ended, or are gone, out of the index of the unfinished."""
        with translated():
            await self.redis.zrem(keys.BATCHES_ACTIVE, *ids)

    async def _load_many(self, ids: Sequence[str]) -> list[Batch]:
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for batch_id in ids:
                pipeline.hgetall(keys.batch(batch_id))
            replies = await pipeline.execute() if ids else []
        return [parse_batch(*pair) for pair in zip(ids, replies, strict=True) if pair[1]]


def parts_prefix(batch_id: str) -> str:
    """Return below what the objects that hold a batch's results lie until it ends."""
    return f"batches/{batch_id}/"


def batch_keys(batch_id: str) -> tuple[str, ...]:
    """Return the keys that the scripts on a batch are given."""
    return (
        keys.meta(batch_id),
        keys.log(batch_id),
        keys.live(batch_id),
        keys.readers(batch_id),
        keys.batch(batch_id),
        keys.batch_flight(batch_id),
        keys.batch_parts(batch_id),
        keys.batch_dead(batch_id),
    )


def parse_batch(batch_id: str, fields: Mapping[bytes, bytes]) -> Batch:
    """Decode a record."""

    def text(name: str) -> str:
        return fields.get(name.encode(), b"").decode()

    def number(name: str) -> int:
        return int(fields.get(name.encode()) or b"0")

    output_expires = text("output_expires")
    return Batch(
        id=batch_id,
        owner=text("owner"),
        status=text("status"),
        endpoint=text("endpoint"),
        input_file_id=text("input_file_id"),
        window=text("window"),
        metadata=fields.get(b"metadata", b"{}"),
        created_at_ms=number("created"),
        expires_at_ms=number("expires"),
        times={name: number(f"{name}_at") for name in TIMES if f"{name}_at".encode() in fields},
        total=number("total"),
        completed=number("completed"),
        failed=number("failed"),
        line=number("line"),
        offset=number("offset"),
        usage=Counts(*(number(f"{name}_tokens") for name in ("prompt", "completion", "total"))),
        model=text("model"),
        output_file_id=text("output_file_id"),
        error_file_id=text("error_file_id"),
        errors=fields.get(b"errors", b""),
        output_expires_s=float(output_expires) if output_expires else None,
        webhook=fields.get(b"webhook", b""),
    )


def _meta_fields(new: NewBatch) -> dict[str, Any]:
    """Of the log of its progress. It has no model: no worker is ever to look after it."""
    return {
        "owner": new.owner, "session": "", "model": "", "priority": "batch",
        "request": b'{"messages":[]}', "metadata": new.metadata, "prompt": "",
    }  # fmt: skip


def _record_fields(new: NewBatch) -> dict[str, Any]:
    expires = "" if new.output_expires_s is None else repr(new.output_expires_s)
    return {
        "owner": new.owner, "endpoint": new.endpoint, "input_file_id": new.input_file_id,
        "window": new.window, "metadata": new.metadata, "output_expires": expires,
        "webhook": new.webhook,
    }  # fmt: skip
