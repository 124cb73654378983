"""Reads the meta of generations, without their requests.

The request in a meta may be a megabyte long. Rule: only code that shows or uses the request reads
it. So every read names its fields, and only `with_request` reads the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from shared.log.records import META_FIELDS, Meta, Top, parse_meta, parse_top
from shared.log.request import shown_fields
from shared.log.request_pieces import PIECES, fetch
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.pipeline import ClientPipeline

REQUESTS_AT_ONCE = 8  # each up to half a megabyte, which bounds Redis's output buffer


class MetaReader:
    """The metas on one Redis.

    Every method may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
    """

    def __init__(self, redis: Client) -> None:
        self.redis = redis
        self._older_requests_lock = asyncio.Lock()

    async def meta(self, generation_id: str) -> Meta | None:
        """Return the meta of a generation without its request; None: the generation is absent."""
        return (await self.metas([generation_id]))[0]

    async def writer(self, generation_id: str) -> str:
        """Return the name of the worker that began the newest attempt; empty: none has begun."""
        with translated():
            name = await self.redis.hget(keys.meta(generation_id), "worker")  # type: ignore[misc]
        return name.decode() if isinstance(name, bytes) else name or ""

    async def metas(self, ids: Sequence[str]) -> list[Meta | None]:
        """Return the metas of many generations in one round trip; as `meta`."""
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for generation_id in ids:
                pipeline.hmget(keys.meta(generation_id), list(META_FIELDS))
            replies = await pipeline.execute()
        found = [_present(reply) for reply in replies]
        await self._add_shown(ids, found)
        return [
            parse_meta(generation_id, fields) if fields else None
            for generation_id, fields in zip(ids, found, strict=True)
        ]

    async def with_request(self, meta: Meta) -> Meta | None:
        """Return `meta` with its request, read if missing; None: the generation is gone."""
        return (await self.with_requests([meta]))[0]

    async def with_requests(self, metas: Sequence[Meta | None]) -> list[Meta | None]:
        """Add the requests of many metas, `REQUESTS_AT_ONCE` per round trip; in order."""
        found = list(metas)
        lacking = [n for n, meta in enumerate(metas) if meta is not None and not meta.request]
        for start in range(0, len(lacking), REQUESTS_AT_ONCE):
            places = lacking[start : start + REQUESTS_AT_ONCE]
            some = [meta for n in places if (meta := metas[n]) is not None]
            requests = await self._requests([meta.generation_id for meta in some])
            for n, meta, request in zip(places, some, requests, strict=True):
                found[n] = replace(meta, request=request) if request else None
        return found

    async def _add_shown(self, ids: Sequence[str], found: Sequence[dict[bytes, bytes]]) -> None:
        """Add the fields that a version before `prompt` stored only inside the request.

        Such generations exist for one retention after an upgrade. The requests of one page may be
        100 MB, so this process reads them one by one.
        """
        for generation_id, fields in zip(ids, found, strict=True):
            is_there = fields.get(b"status", b"sealed") != b"sealed"
            if is_there and b"prompt" not in fields:
                async with self._older_requests_lock:
                    fields |= shown_fields((await self._requests([generation_id]))[0])

    async def _requests(self, ids: Sequence[str]) -> list[bytes]:
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for generation_id in ids:
                pipeline.hmget(keys.meta(generation_id), ["request", PIECES])
            replies = await pipeline.execute()
        requests = []
        for generation_id, (request, count) in zip(ids, replies, strict=True):
            if count is not None:
                request = await fetch(ClientPipeline(self.redis), generation_id, int(count))
            requests.append(request or b"")
        return requests

    async def was_deleted(self, generation_id: str) -> bool:
        """Whether a sealed generation was deleted, and not lost."""
        with translated():
            return bool(await self.redis.hexists(keys.meta(generation_id), "deleted"))  # type: ignore[misc]

    async def statuses(self, ids: Sequence[str]) -> list[str | None]:
        """Return the status of many generations in one round trip; None: absent."""
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for generation_id in ids:
                pipeline.hget(keys.meta(generation_id), "status")
            replies = await pipeline.execute()
        return [None if status is None else status.decode() for status in replies]

    async def tops(self, ids: Sequence[str]) -> list[Top]:
        """Return the newest state of many generations in one round trip."""
        return await self._tops(ids, raise_on_error=True)  # type: ignore[return-value]

    async def known_tops(self, ids: Sequence[str]) -> list[Top | None]:
        """As `tops`, with None for generations on shards of a cluster that do not answer."""
        return await self._tops(ids, raise_on_error=not getattr(self.redis, "is_sharded", False))

    async def _tops(self, ids: Sequence[str], *, raise_on_error: bool) -> list[Top | None]:
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.time()
            for generation_id in ids:
                pipeline.hmget(keys.meta(generation_id), ["status", "lease", "waiting"])
                pipeline.xrevrange(keys.log(generation_id), count=1)
            now, *replies = await pipeline.execute(raise_on_error=raise_on_error)
            if isinstance(now, Exception):
                raise now
        return [parse_top(*pair, now) for pair in zip(replies[::2], replies[1::2], strict=True)]


def _present(reply: Sequence[bytes | None]) -> dict[bytes, bytes]:
    pairs = zip(META_FIELDS, reply, strict=True)
    return {name: value for name, value in pairs if value is not None}
