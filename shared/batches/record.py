"""Batches: create, read, list and cancel them.

The record of a batch is one hash. Beside it stand the lines in flight, the names of objects with
results, and the failed lines. The progress of a batch is a log like that of a generation, under the
id of the batch. Invariant: only the holder of this log's token changes a running batch
(shared/batches/lease.py). The scripts are shared/redis/scripts/batch_*.lua.
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
from shared.redis import keys
from shared.redis.client import Client, clock_ms, translated
from shared.redis.jobs_wake import wake_jobs
from shared.redis.scripts import Scripts

ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/generations")
FINAL = ("completed", "failed", "expired", "cancelled")
BATCH_KEPT_S = 30 * 86_400.0  # until the record expires, after the end or the window
LINES_MAX = 50_000  # of one batch
PAGE_READ = 100  # records in one round trip
OUTPUT_BYTES_MAX = 2**40  # no real bound: each line has its own
# The statuses whose first time the record keeps.
TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A validated request for a batch.

    Attributes:
        batch_id: from the caller; a second create with this id changes nothing.
        endpoint: the path that every line calls.
        window: the completion window, as the client wrote it; `window_s` in seconds.
        output_expires_s: of its output files, from their creation; None: the default of files.
        webhook: JSON of a `Webhook` to deliver at its end; empty: none.
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
    """The record of a batch. Times are Redis's clock, ms since 1970.

    Attributes:
        times: when it entered each status that it has had; see `TIMES`.
        total, completed, failed: numbers of lines.
        line, offset: the cursor: the number of lines taken, and the byte where the next one begins.
        errors: why the input was refused, a JSON array; empty: it was not.
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
    """The status of a batch, and when its window ends, ms since 1970."""

    status: str
    expires_at_ms: int


class FailedLine(msgspec.Struct, frozen=True):
    """A line that failed for good: its place in the input, and the code of the failure."""

    line: int
    offset: int
    length: int
    custom_id: str
    code: str


_dead_letters = msgspec.json.Decoder(FailedLine)


class Batches:
    """The batches on one Redis.

    Every method may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
    """

    def __init__(self, redis: Client, settings: Settings) -> None:
        self.redis = redis
        self.settings = settings
        self.scripts = Scripts(redis)

    async def create(self, new: NewBatch) -> tuple[Batch, bool]:
        """Create a batch unless it exists. Return it, and whether it is new.

        Webhook and indexes are written before the record. An index entry without a batch is skipped
        and dropped later, but a batch without an entry would never run.
        """
        if new.webhook:
            about = {"endpoint": new.endpoint, "metadata": msgspec.Raw(new.metadata)}
            webhook = decode_webhook(new.webhook)
            await register(self.redis, new.batch_id, "batch", webhook, about, owner=new.owner)
        created_ms = await clock_ms(self.redis)
        kept_ms = round((BATCH_KEPT_S + new.window_s) * 1000)
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
        names = [keys.meta(new.batch_id), keys.batch(new.batch_id)]
        reply = await self.scripts.run("batch_create", names, args)
        await wake_jobs(self.redis)
        batch = await self.load(new.batch_id)
        if batch is None:
            raise NotFound("batch")  # it existed and has just expired
        return batch, reply[0] == b"ok"

    async def reserve(self, owner: str, key: str, digest: str, batch_id: str) -> str:
        """Return the id that an idempotency key names: `batch_id` if the key is new.

        Raises:
            RequestError: 422 `idempotency_mismatch`.
        """
        # Clients' keys have no spaces, so this name differs from every key of a generation.
        name = keys.idempotency(owner, f"batch {key}")
        kept_ms = round(BATCH_KEPT_S * 1000)
        return (await reserve(self.scripts, name, batch_id, digest, kept_ms)).id

    async def load(self, batch_id: str) -> Batch | None:
        """Return a batch of any owner; None: absent."""
        return next(iter(await self._load_many([batch_id])), None)

    async def get(self, batch_id: str, owner: str) -> Batch:
        """Return a batch of an owner; `EVERYBODY`: of any owner.

        Raises:
            NotFound: absent, or of another owner. A client cannot distinguish the two.
        """
        batch = await self.load(batch_id) if is_batch_id(batch_id) else None
        if batch is None or owner not in (batch.owner, EVERYBODY):
            raise NotFound("batch")
        return batch

    async def page(self, owner: str, *, after: str, limit: int) -> tuple[list[Batch], bool]:
        """Return up to `limit` batches, newest first, and whether there are more.

        Args:
            owner: an owner; `EVERYBODY`: the unfinished batches of all owners.
            after: the last id of the page before; empty: the first page.

        Raises:
            NotFound: `after` is not a batch of this owner, or has ended meanwhile.
        """
        index = keys.BATCHES_ACTIVE if owner == EVERYBODY else keys.batches(owner)
        rank = await self._rank_after(index, after) if after else 0
        found: list[Batch] = []
        while len(found) <= limit:
            with translated():
                ids = await self.redis.zrevrange(index, rank, rank + PAGE_READ - 1)
            batches = await self._load_many([batch_id.decode() for batch_id in ids])
            if owner == EVERYBODY:
                found += [batch for batch in batches if not batch.is_final]
            else:
                found += [batch for batch in batches if batch.owner == owner]
            rank += len(ids)
            if len(ids) < PAGE_READ:
                break
        return found[:limit], len(found) > limit

    async def _rank_after(self, index: str, after: str) -> int:
        with translated():
            rank = await self.redis.zrevrank(index, after.encode("utf-8", "replace"))
        if rank is None:
            raise NotFound("batch: after")
        return int(rank) + 1

    async def cancel(self, batch_id: str) -> None:
        """Request the end of a batch. Its holder notices within half a second."""
        await self.scripts.run("batch_cancel", [keys.batch(batch_id)], [])
        await wake_jobs(self.redis)

    async def dead_letters(self, batch_id: str, start: int, count: int) -> list[FailedLine]:
        """Return up to `count` failed lines from number `start` on, in the order of failure."""
        with translated():
            raws: Sequence[bytes] = await self.redis.lrange(  # type: ignore[misc]
                keys.batch_dead(batch_id), start, start + count - 1
            )
        return [_dead_letters.decode(raw) for raw in raws]

    async def active(self, count: int) -> list[tuple[str, int]]:
        """Return the oldest unfinished batches (id, when it was created, ms since 1970)."""
        with translated():
            found = await self.redis.zrange(keys.BATCHES_ACTIVE, 0, count - 1, withscores=True)
        return [(batch_id.decode(), int(since_ms)) for batch_id, since_ms in found]

    async def progress_of(self, ids: Sequence[str]) -> list[BatchProgress | None]:
        """Return the progress of many batches in one round trip; None: absent."""
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
        """Remove ended or absent batches from the index of unfinished batches."""
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
    """Return the path of the objects with a batch's results, which exist until its end."""
    return f"batches/{batch_id}/"


def batch_keys(batch_id: str) -> tuple[str, ...]:
    """Return the keys of the scripts that only the holder runs, in their order."""
    return (
        keys.meta(batch_id),
        keys.log(batch_id),
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
        usage=Counts(number("prompt_tokens"), number("completion_tokens"), number("total_tokens")),
        model=text("model"),
        output_file_id=text("output_file_id"),
        error_file_id=text("error_file_id"),
        errors=fields.get(b"errors", b""),
        output_expires_s=float(output_expires) if output_expires else None,
        webhook=fields.get(b"webhook", b""),
    )


def _meta_fields(new: NewBatch) -> dict[str, Any]:
    """Return the meta of a batch's log. It has no model, so no worker takes it."""
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
