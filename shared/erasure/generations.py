"""Deletes a generation wherever it is: in Redis, in the memory of nodes, and in its worker.

    1  an unfinished generation is cancelled: its readers get an end, and its worker stops
    2  its usage is counted, because the later steps delete the log and the counts
    3  its webhook is dropped
    4  it is sealed; the same script tells every node to drop its copy
    5  the indexes of its owner and its session forget it, and so does the cache of its model

Every step may be repeated. If the process dies before step 4, the generation is still there, and
the client repeats its request. After step 4 no client can read it; indexes skip it and expire.
"""

from __future__ import annotations

from contextlib import suppress

from shared.cache.answers import AnswerCache
from shared.config.settings import Settings
from shared.errors import Expired
from shared.later.webhooks import drop
from shared.log.event_bytes import DELETED
from shared.log.events import End, Failure, decode
from shared.log.records import Meta
from shared.log.store import Store
from shared.queue.endings import cancel
from shared.queue.partitions import partitions_of
from shared.redis import cache_keys, keys
from shared.redis.client import Client, translated
from shared.usage.settlement import Settlement


class GenerationEraser:
    """Deletes generations on one Redis.

    Every coroutine may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
    """

    def __init__(self, redis: Client, store: Store, settings: Settings) -> None:
        self.redis = redis
        self.store = store
        self._counts_usage = bool(settings.usage_days)
        self._settlement = Settlement(redis, store, settings)
        self._cache = AnswerCache(redis)
        self._partitions = partitions_of(settings)

    async def erase(self, meta: Meta, *, forgets_key: bool = False) -> None:
        """Delete a generation, whatever its state.

        Args:
            forgets_key: also delete its idempotency key. Without, a repeat of the request that
                started the generation does not start it again, as long as the key is kept.
        """
        name = meta.generation_id
        if not meta.is_ended:
            with suppress(Expired):
                await cancel(self.store, name, error=_deleted())
        if self._counts_usage:
            await self._settlement.settle([name])
        await drop(self.redis, name)
        if forgets_key:
            with translated():
                key = await self.redis.hget(keys.meta(name), "idem")  # type: ignore[misc]
                if key:
                    await self.redis.delete(key)
        await self.store.delete(name)
        await self._leave_indexes(meta)

    async def _leave_indexes(self, meta: Meta) -> None:
        name = meta.generation_id
        tag = self._partitions.of(name)
        indexes = [
            keys.owner(meta.owner), keys.unsettled(tag), keys.running(tag),
            *(keys.waiting(priority, tag) for priority in keys.PRIORITIES),
        ]  # fmt: skip
        if meta.session:
            indexes.append(keys.session(meta.owner, meta.session))
            indexes.append(keys.session_of_all(meta.session))
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for index in indexes:
                pipeline.zrem(index, name)
            pipeline.get(cache_keys.cached_by(name))
            *_, stored = await pipeline.execute()
        if stored is not None:
            await self._cache.drop_of(name, stored.decode())


def _deleted() -> Failure:
    end = decode(DELETED)
    assert isinstance(end, End) and end.error is not None
    return end.error
