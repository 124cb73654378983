"""A generation that the bench writes itself: through the store, one token an entry.

For what asks about the node alone: a worker would join tokens that come together, and the node
would be given credit for that.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.log.events import End, Token, encode
from shared.log.ids import new_generation_id
from shared.log.records import Ok
from shared.log.store import Store
from shared.redis.client import connect
from tests.support.generation import FIELDS, Holder

BATCH = 64  # entries in one call, as a worker's
LEASE_S = 120.0  # longer than any run
OWNER = "anonymous"
END = encode(End("completed", "stop"))


class Writer:
    """Holds generations and appends to them. Use `async with`."""

    def __init__(self, redis_url: str) -> None:
        settings = Settings(redis_url=redis_url, lease_s=LEASE_S, retention_s=60.0)
        self._redis: Redis = connect(settings)
        self._store = Store(self._redis, settings)

    async def __aenter__(self) -> Writer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()

    async def begin(self) -> Holder:
        """A new generation that has its `start` and nothing else."""
        generation_id = new_generation_id()
        fields = {**FIELDS, "owner": OWNER, "model": "bench", "session": ""}
        await self._store.create(generation_id, fields, may_be_lost=False)
        return await Holder.begin(self._store, generation_id=generation_id)

    async def say(self, holder: Holder, pieces: Sequence[str], *, said: int = 0) -> None:
        """Append tokens as fast as Redis takes them.

        Args:
            said: how many it has been told before.
        """
        for at in range(0, len(pieces), BATCH):
            raws = [encode(Token(piece)) for piece in pieces[at : at + BATCH]]
            outcome = await holder.append(*raws, after=holder.seq + said + at)
            assert outcome == Ok(), outcome

    async def end(self, holder: Holder, *, said: int) -> None:
        outcome = await holder.finish(after=holder.seq + said)
        assert outcome == Ok(), outcome
