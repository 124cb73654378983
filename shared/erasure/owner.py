"""Forgets an owner: deletes all data of the owner in Redis and in the file store.

The work is done in steps, each within a few seconds, so that a request can do one step and name the
next. The first steps follow the indexes of the owner: schedules and batches come first, because
they start generations. The last steps walk through all keys and look at the owner that each record
names. So these steps also find records that no index names: lines of batches, and the remains of
crashes. A step may be repeated; records that are gone are skipped.

The steps may miss a generation that starts while they run. So a caller repeats all steps until they
find nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from shared.audit.objects import forget as forget_audit
from shared.batches.record import Batches, batch_keys, parts_prefix
from shared.cache.answers import AnswerCache
from shared.config.settings import Settings
from shared.erasure.generations import GenerationEraser
from shared.erasure.references import drop_references
from shared.errors import RequestError, Unavailable
from shared.files.store import FileStore
from shared.later.schedules import Schedules
from shared.later.shares import Shares
from shared.later.webhooks import drop
from shared.log.ids import is_batch_id
from shared.log.store import Store
from shared.queue.overview import owner_ids
from shared.queue.partitions import partitions_of
from shared.redis import cache_keys, keys
from shared.redis.client import Client, translated
from shared.redis.shards import is_partly_away
from shared.streams.store import StreamStore, owner_of
from shared.streams.subscriptions import Subscriptions
from shared.streams.sweep import forget_owner
from shared.usage.ledger import Ledger

STEP_S = 2.0  # after this time a step ends, and the next step continues the work
PAGE = 100
SCAN_COUNT = 1_000
_STEP = re.compile(
    r"(schedules|batches|generations|files|shares|streams)|walk-([0-9]{1,30})", re.ASCII
)
_NAMED = ("schedules", "batches", "generations", "files", "shares", "streams")
_RECORD = re.compile(rb"tr:\{([A-Za-z0-9_-]{8,64})\}:(?:meta|batch)", re.ASCII)


class Step(NamedTuple):
    """Numbers of deleted records by kind, and the next step; empty: there is no further step."""

    deleted: Counter[str]
    next: str


class OwnerEraser:
    """Forgets owners on one Redis and one file store.

    Every coroutine may raise `Unavailable`: Redis or the file store did not answer in time.
    Repeating it is safe.
    """

    def __init__(self, redis: Client, store: Store, files: FileStore, settings: Settings) -> None:
        self.redis = redis
        self.store = store
        self.files = files
        self.settings = settings
        self.generations = GenerationEraser(redis, store, settings)
        self.batches = Batches(redis, settings)
        self.schedules = Schedules(redis, settings.schedules_max)
        self.shares = Shares(redis)
        self.cache = AnswerCache(redis)
        self.ledger = Ledger(redis, settings)
        self.streams = StreamStore(redis, settings)

    async def step(self, owner: str, name: str, *, keeps_usage: bool = False) -> Step:
        """Do one step.

        Args:
            name: of the step; empty: the first one.
            keeps_usage: leave the sums of usage, for bills.

        Raises:
            RequestError: 422 `invalid_request`, there is no such step.
        """
        match = _STEP.fullmatch(name or _NAMED[0])
        if match is None:
            raise RequestError(422, "invalid_request", "after must be the next of the step before")
        until_s = asyncio.get_running_loop().time() + STEP_S
        if match[1] is None:
            return await self._walk(owner, int(match[2]), until_s, keeps_usage=keeps_usage)
        deleted: Counter[str] = Counter()
        work = {
            "schedules": self._schedules, "batches": self._batches,
            "generations": self._generations, "files": self._files, "shares": self._shares,
            "streams": self._streams,
        }[match[1]]  # fmt: skip
        while asyncio.get_running_loop().time() < until_s:
            found = await work(owner)
            deleted[match[1]] += found
            if not found:
                place = _NAMED.index(match[1]) + 1
                return Step(deleted, _NAMED[place] if place < len(_NAMED) else "walk-0")
        return Step(deleted, match[1])

    # By the indexes of the owner. Each call deletes a page, and returns the number.

    async def _schedules(self, owner: str) -> int:
        found = await self.schedules.page(owner, PAGE, before_ms=None)
        for schedule in found:
            await self.schedules.delete(schedule)
        return len(found)

    async def _batches(self, owner: str) -> int:
        found, _ = await self.batches.page(owner, after="", limit=PAGE)
        for batch in found:
            await self._erase_batch(batch.id, owner)
        return len(found)

    async def _generations(self, owner: str) -> int:
        ids = await owner_ids(self.redis, owner, PAGE)
        for meta in await self.store.metas(ids):
            if meta is not None and meta.owner == owner:
                await self.generations.erase(meta, forgets_key=True)
        if ids:
            with translated():
                await self.redis.zrem(keys.owner(owner), *ids)
        return len(ids)

    async def _files(self, owner: str) -> int:
        found, _ = await self.files.page(owner, limit=PAGE)
        for record in found:
            await self._erase_file(record.id, owner)
        return len(found)

    async def _shares(self, owner: str) -> int:
        with translated():
            found = await self.redis.zrange(keys.shares_of(owner), 0, PAGE - 1)
        for raw in found:
            await self.shares.delete(raw.decode(), owner)
        if found:
            with translated():
                await self.redis.zrem(keys.shares_of(owner), *found)
        return len(found)

    async def _streams(self, owner: str) -> int:
        digest = owner_of(owner)
        await Subscriptions(self.streams).forget_owner(digest)
        return await forget_owner(self.streams, digest)

    async def _erase_batch(self, batch_id: str, owner: str) -> None:
        """Delete a batch: its holder is fenced, and its lines are found by the walk."""
        await drop(self.redis, batch_id)
        await self.store.delete(batch_id)
        _meta, _log, *rest = batch_keys(batch_id)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for key in rest:
                pipeline.unlink(key)
            pipeline.zrem(keys.BATCHES_ACTIVE, batch_id)
            pipeline.zrem(keys.batches(owner), batch_id)
            await pipeline.execute()
        await self.files.delete_prefix(parts_prefix(batch_id))

    async def _erase_file(self, file_id: str, owner: str) -> None:
        """Delete the object, then the record. If the object cannot be deleted, the record stays."""
        record = await self.files.get(file_id, owner)
        if record is not None:
            await self.files.objects.delete(record.object_name)
            await self.files.delete(file_id, owner)

    # By all keys

    async def _walk(self, owner: str, cursor: int, until_s: float, *, keeps_usage: bool) -> Step:
        deleted: Counter[str] = Counter()
        while True:
            with translated():
                cursor, names = await self.redis.scan(cursor, match="tr:*", count=SCAN_COUNT)
            if is_partly_away(self.redis):  # of a cluster: the walk passes over silent shards
                raise Unavailable("a shard of Redis does not answer, so the walk would miss keys")
            deleted += await self._look_at(owner, names)
            if cursor == 0:
                deleted += await self._forget_name(owner, keeps_usage=keeps_usage)
                # The last step, because deleting a generation writes its record.
                deleted["audit"] += await forget_audit(self.files.objects, owner)
                return Step(deleted, "")
            if asyncio.get_running_loop().time() >= until_s:
                return Step(deleted, f"walk-{cursor}")

    async def _look_at(self, owner: str, names: Sequence[bytes]) -> Counter[str]:
        """Delete the records of the owner among `names`, and keys that refer to deleted records."""
        deleted: Counter[str] = Counter()
        records = [name for name in names if _kind_of(name)]
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for name in records:
                pipeline.hget(name.decode(), "owner")
            owners = await pipeline.execute() if records else []
        own = owner.encode("utf-8", "surrogatepass")
        for name, found in zip(records, owners, strict=True):
            if found == own:
                deleted[_kind_of(name)] += await self._erase_record(name, owner)
        await drop_references(self.redis, self.store, [name.decode() for name in names])
        return deleted

    async def _erase_record(self, name: bytes, owner: str) -> int:
        text = name.decode()
        subject = text.removeprefix("tr:{").partition("}")[0]
        match _kind_of(name):
            case "generations":
                meta = await self.store.meta(subject)
                if meta is None or meta.owner != owner:
                    return 0
                await self.generations.erase(meta, forgets_key=True)
            case "batches":
                await self._erase_batch(subject, owner)
            case "schedules":
                schedule = await self.schedules.get(text.removeprefix(keys.schedule("")))
                if schedule is None:
                    return 0
                await self.schedules.delete(schedule)
            case "webhooks":
                return int(await drop(self.redis, text.removeprefix(keys.hook(""))))
            case "files":
                await self._erase_file(text.removeprefix(keys.file("")), owner)
            case "cached":
                await self.cache.drop(text)
            case "shares":
                await self.shares.delete(subject.removeprefix("share:"), owner)
        return 1

    async def _forget_name(self, owner: str, *, keeps_usage: bool) -> Counter[str]:
        """Delete the keys whose name has only the digest of the owner."""
        usage = 0
        if not keeps_usage:
            usage = int(
                await self.ledger.forget(owner, round(self.settings.generation_s_max * 1000))
            )
        digest = keys.digest_of(owner)
        with translated():  # the texts of documents (workers/stages/documents/cache.py)
            texts = await self.redis.zrange(keys.documents(owner), 0, -1)
        names = [
            *(keys.document(owner, text.decode()) for text in texts), keys.documents(owner),
            keys.owner(owner), keys.batches(owner), keys.shares_of(owner), keys.files_by(digest),
            keys.schedules_of(owner), keys.schedules_unfinished(owner),
            keys.hooks_hosts(digest), keys.owner_limits(owner), keys.owner_active(owner),
            keys.owner_told(owner),
            *(keys.hooks_clock(owner, kind) for kind in ("generation", "batch")),
        ]  # fmt: skip
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for name in names:
                pipeline.unlink(name)
            for tag in partitions_of(self.settings).tags:
                for lane in keys.PRIORITIES:  # the turns of the owner (shared/queue/turns.py)
                    pipeline.unlink(keys.line(lane, digest, tag))
                    pipeline.hdel(keys.turns(lane, tag), digest)
            pipeline.zrem(keys.HOOKS_OWNERS, digest)
            pipeline.zrem(keys.TOKEN_OWNERS, digest)
            await pipeline.execute()
        return Counter(usage=usage)


def _kind_of(name: bytes) -> str:
    """Return the kind of a record that names its owner; empty: the key is no such record."""
    if (match := _RECORD.fullmatch(name)) is not None:
        return "batches" if is_batch_id(match[1].decode()) else "generations"
    for prefix, kind in _PREFIXES:
        if name.startswith(prefix):
            return kind
    return ""


_PREFIXES = (
    (keys.schedule("").encode(), "schedules"),
    (keys.hook("").encode(), "webhooks"),
    (keys.file("").encode(), "files"),
    (b"tr:{share:", "shares"),
    (cache_keys.CACHED.encode(), "cached"),
)
