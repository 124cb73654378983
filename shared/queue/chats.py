"""Which generations belong to a chat: found and stopped from any node.

A chat is a name of its owner's clients, any text. A stop must also reach a prompt that is just
being accepted, on whatever node, and none that was asked for after it. So stops are counted, and
the order of steps decides:

    a prompt   1 reads the count   2 is accepted   3 is listed   4 reads the count again
    a stop     1 counts            2 reads the list and cancels what is in it

Either the stop finds the prompt listed, or the prompt finds the stop counted, and cancels itself.
Reading an answer starts nothing, so it can undo no stop.
"""

from __future__ import annotations

from shared.config.settings import Settings
from shared.log.records import Meta
from shared.log.store import Store
from shared.queue.endings import cancel
from shared.redis import keys
from shared.redis.client import Client, translated

RUNS_MAX = 100  # of one chat, the newest; older ones are no longer found by its name


class Chats:
    """The chats on one Redis. Every method may raise `Unavailable`: repeating it is safe."""

    def __init__(self, redis: Client, store: Store, settings: Settings) -> None:
        self.redis = redis
        self.store = store
        s = settings
        longest_s = s.queue_wait_s + s.attempts_max * s.upstream_total_s + 2 * s.retention_s
        self._kept_ms = round(longest_s * 1000)

    async def stops(self, owner: str, chat: str) -> int:
        """Return how often the chat has been stopped; to be read before a prompt is accepted."""
        with translated():
            return int(await self.redis.get(keys.chat_stops(owner, chat)) or 0)

    async def add(self, chat: str, meta: Meta, stops: int) -> None:
        """List an accepted generation; where a stop came since `stops` was read, cancel it."""
        runs, count = keys.chat_runs(meta.owner, chat), keys.chat_stops(meta.owner, chat)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.zadd(runs, {meta.generation_id: meta.created_at_ms})
            pipeline.zremrangebyrank(runs, 0, -RUNS_MAX - 1)
            pipeline.pexpire(runs, self._kept_ms)
            pipeline.get(count)
            *_, seen = await pipeline.execute()
        if int(seen or 0) != stops:
            await cancel(self.store, meta.generation_id)

    async def stop(self, owner: str, chat: str) -> int:
        """Cancel all that runs in a chat; returns how many that were."""
        count = keys.chat_stops(owner, chat)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.incr(count)
            pipeline.pexpire(count, self._kept_ms)
            await pipeline.execute()
        metas = [meta for meta in await self.runs(owner, chat) if not meta.is_ended]
        for meta in metas:
            await cancel(self.store, meta.generation_id)
        return len(metas)

    async def running(self, owner: str, chat: str) -> Meta | None:
        """Return the newest generation of a chat that has not ended."""
        metas = await self.runs(owner, chat)
        return next((meta for meta in metas if not meta.is_ended), None)

    async def runs(self, owner: str, chat: str) -> list[Meta]:
        """Return what is known of a chat's generations, newest first."""
        with translated():
            found = await self.redis.zrevrange(keys.chat_runs(owner, chat), 0, -1)
        metas = await self.store.metas([member.decode() for member in found])
        return [
            meta
            for meta in metas
            if meta is not None and meta.owner == owner and meta.status != "sealed"
        ]
