"""A generation for tests of the store: creates it, begins it, brings it into any state, reads it.

Reaches into Redis directly only where a test needs what no script offers: a lease that has run out,
or a loss of data. Nothing here waits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.log.events import End, Token, encode
from shared.log.ids import START, EventId
from shared.log.records import Append, Begun, Entry, Moved, Writing
from shared.log.store import Store
from shared.redis import keys

ID = "gen_0123456789"
END = encode(End("completed", "stop"))
FIELDS: dict[str, str | bytes] = {
    "owner": "alice",
    "session": "chat",
    "model": "demo",
    "priority": "interactive",
    "request": b'{"messages":[]}',
    "metadata": b'{"a":1}',
}


def token(text: str) -> bytes:
    return encode(Token(text))


def store_on(redis: Redis, **settings: Any) -> Store:
    return Store(redis, Settings(redis_url="redis://test", **settings))


async def create(store: Store, generation_id: str = ID, **fields: str | bytes) -> None:
    is_new, *_ = await store.create(generation_id, FIELDS | fields, may_be_lost=False)
    assert is_new


async def types_of(store: Store, generation_id: str = ID) -> list[str]:
    """What stands in the log, by type; token events by their text."""
    events = [json.loads(raw) for _, raw in await store.page(generation_id, START, 10_000)]
    return [event.get("text", event["type"]) for event in events]


async def log_of(store: Store, generation_id: str = ID) -> list[Entry]:
    return await store.page(generation_id, START, 10_000)


async def let_lapse(store: Store, generation_id: str = ID) -> None:
    """The lease runs out: its time is long past."""
    await store.redis.hset(keys.meta(generation_id), "lease", "1")


async def lose(store: Store, generation_id: str = ID) -> None:
    """Redis forgets the generation."""
    await store.redis.delete(keys.meta(generation_id), keys.log(generation_id))


async def lose_tail(store: Store, keep: int, generation_id: str = ID) -> None:
    """Redis forgets all entries but the first `keep`; meta stays as it is."""
    key = keys.log(generation_id)
    entries = await store.redis.xrange(key)
    await store.redis.delete(key)
    for entry_id, fields in entries[:keep]:
        await store.redis.xadd(key, fields, id=entry_id)


@dataclass
class Holder:
    """One worker as the holder of a generation: the token and the attempt of its calls."""

    store: Store
    begun: Begun
    generation_id: str = ID

    @classmethod
    async def begin(
        cls, store: Store, token: str = "mine", generation_id: str = ID, **kwargs: Any
    ) -> Holder:
        begun = await store.begin(generation_id, token, "worker", **kwargs)
        assert isinstance(begun, Begun), begun
        return cls(store, begun, generation_id)

    @property
    def token(self) -> str:
        return self.begun.fields[b"token"].decode()

    @property
    def attempt(self) -> int:
        return self.begun.start[0].attempt

    @property
    def seq(self) -> int:
        """Of this attempt's `start`."""
        return self.begun.start[0].seq

    def batch(self, *raws: bytes, after: int | None = None, status: Any = None) -> Append:
        before = self.seq if after is None else after
        return Append(self.generation_id, self.token, self.attempt, before, raws, status)

    async def append(self, *raws: bytes, after: int | None = None) -> Any:
        return (await self.store.append_many([self.batch(*raws, after=after)]))[0]

    async def say(self, *texts: str, after: int | None = None) -> Any:
        return await self.append(*map(token, texts), after=after)

    async def finish(self, *texts: str, after: int | None = None) -> Any:
        raws = [*map(token, texts), END]
        return (await self.store.append_many([self.batch(*raws, after=after, status="completed")]))[
            0
        ]

    async def renew(self) -> Any:
        has_grace = self.begun.meta.grace_s is not None
        holder = (self.generation_id, self.token, self.attempt, has_grace)
        return (await self.store.renew_many([holder]))[0]

    async def release(self, *, has_failed: bool = False) -> Any:
        return await self.store.release(
            self.generation_id, self.token, self.attempt, has_failed=has_failed
        )

    async def restore(
        self, top: EventId, *entries: Entry, with_fields: bool = True
    ) -> Writing | Moved:
        fields = self.begun.fields if with_fields else {}
        return await self.store.restore(
            self.generation_id, self.token, self.attempt, top, fields, entries
        )
