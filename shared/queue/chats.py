"""The index of a chat's generations: any node can find and stop them.

A chat is any text that a client of its owner chose. A stop must cancel a prompt that another node
is accepting at this moment, and must not cancel a prompt that a client sends after the stop was
answered. So stops are counted, in this order of steps:

    prompt   1 read the count        2 accept   3 add to the index   4 read the count again
    stop     1 increment the count   2 cancel every generation in the index

Either the stop finds the prompt in the index, or the prompt finds a higher count and cancels
itself. Reading an answer starts nothing, so reading cannot undo a stop.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.config.credentials import Identity
from shared.config.settings import Settings
from shared.log.lifetimes import chat_ms, listed_ms
from shared.log.records import Meta
from shared.log.store import Store
from shared.log.visibility import is_visible
from shared.queue.endings import cancel
from shared.queue.old_ids import OldIds, find_old
from shared.redis import keys
from shared.redis.client import Client, translated

RUNS_MAX = 100  # generations of one chat that `runs` and `running` look at, the newest
STOP_PAGE = 100  # generations of which `stop` reads the status in one round trip


class Chats:
    """The chats on one Redis.

    Every method may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
    """

    def __init__(
        self, redis: Client, store: Store, settings: Settings, *, by: str = "owner"
    ) -> None:
        self.redis = redis
        self._by = by  # for the timelines of generations that are cancelled here
        self.store = store
        self._kept_ms = chat_ms(settings)
        self._listed_ms = listed_ms(settings)
        self._old = OldIds(store)

    async def stops(self, owner: str, chat: str) -> int:
        """Return how often the chat has been stopped. Read it before accepting a prompt."""
        with translated():
            return int(await self.redis.get(keys.chat_stops(owner, chat)) or 0)

    async def add(self, chat: str, meta: Meta, stops: int) -> None:
        """Add an accepted generation to the index of its chat.

        If the chat was stopped after `stops` was read, cancel the generation.
        """
        runs, count = keys.chat_runs(meta.owner, chat), keys.chat_stops(meta.owner, chat)
        before_ms = meta.created_at_ms - self._listed_ms
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.zadd(runs, {meta.generation_id: meta.created_at_ms})
            pipeline.execute_command(*find_old(runs, before_ms))
            pipeline.pexpire(runs, self._kept_ms)
            pipeline.get(count)
            _, old, _, stops_now = await pipeline.execute()
        if int(stops_now or 0) != stops:
            await cancel(self.store, meta.generation_id, by=self._by)
        if old:
            await self._old.drop(runs, before_ms)

    async def stop(self, owner: str, chat: str) -> int:
        """Cancel every unfinished generation of a chat, and return their number."""
        runs, count = keys.chat_runs(owner, chat), keys.chat_stops(owner, chat)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.incr(count)
            pipeline.pexpire(count, self._kept_ms)
            await pipeline.execute()
        ids = await self._all_ids(runs)
        unfinished = await self._unfinished(ids)
        for generation_id in unfinished:
            await cancel(self.store, generation_id, by=self._by)
        if len(ids) > RUNS_MAX:
            await self._drop_older(runs, ids)
        return len(unfinished)

    async def running(self, viewer: Identity, chat: str) -> Meta | None:
        """Return the newest unfinished generation of a chat that `viewer` may see, or None."""
        metas = await self.runs(viewer, chat)
        return next((meta for meta in metas if not meta.is_ended), None)

    async def runs(self, viewer: Identity, chat: str) -> list[Meta]:
        """Return the meta of a chat's newest generations, newest first, at most `RUNS_MAX`.

        Args:
            viewer: the owner of the chat, or a client with a share of this owner. Such a client
                sees only the generations that the share covers.
        """
        name = keys.chat_runs(viewer.owner, chat)
        with translated():
            found = await self.redis.zrevrange(name, 0, RUNS_MAX - 1)
        metas = await self.store.metas([member.decode() for member in found])
        return [meta for meta in metas if is_visible(meta, viewer)]

    async def _all_ids(self, runs: str) -> list[str]:
        """Return every id that stays in an index during the call, in no order.

        ZSCAN promises this while other nodes add and remove members; pages by rank do not.
        """
        with translated():
            found = [member async for member, _ in self.redis.zscan_iter(runs, count=STOP_PAGE)]
        return [member.decode() for member in dict.fromkeys(found)]

    async def _unfinished(self, ids: Sequence[str]) -> list[str]:
        unfinished: list[str] = []
        for start in range(0, len(ids), STOP_PAGE):
            page = ids[start : start + STOP_PAGE]
            statuses = await self.store.statuses(page)
            unfinished += [
                generation_id
                for generation_id, status in zip(page, statuses, strict=True)
                if status in ("queued", "running")
            ]
        return unfinished

    async def _drop_older(self, runs: str, ended: Sequence[str]) -> None:
        """Remove ended generations that `runs` does not show, so that the next stop is short."""
        with translated():
            newest = {
                member.decode() for member in await self.redis.zrevrange(runs, 0, RUNS_MAX - 1)
            }
            older = [generation_id for generation_id in ended if generation_id not in newest]
            for start in range(0, len(older), STOP_PAGE):
                await self.redis.zrem(runs, *older[start : start + STOP_PAGE])
