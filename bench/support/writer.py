"""Writes a generation directly through the store, with one token per entry.

For benchmarks of the node alone: a worker would join tokens that come together, and the node would
look cheaper than it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.log.events import End, Token, encode
from shared.log.ids import new_generation_id
from shared.log.records import Ok
from shared.log.store import Store
from shared.redis.connections import connect
from tests.support.generation import FIELDS, Holder

BATCH = 64  # entries in one call, as in a worker
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
        """Create a generation that has only its `start`."""
        generation_id = new_generation_id()
        fields = {**FIELDS, "owner": OWNER, "model": "bench", "session": ""}
        await self._store.create(generation_id, fields, may_be_lost=False)
        return await Holder.begin(self._store, generation_id=generation_id)

    async def say(self, holder: Holder, pieces: Sequence[str], *, tokens_before: int = 0) -> None:
        """Append tokens as fast as Redis takes them.

        Args:
            tokens_before: number of tokens that were appended before.
        """
        for at in range(0, len(pieces), BATCH):
            raws = [encode(Token(piece)) for piece in pieces[at : at + BATCH]]
            outcome = await holder.append(*raws, after=holder.seq + tokens_before + at)
            assert outcome == Ok(), outcome

    async def end(self, holder: Holder, *, tokens_before: int) -> None:
        """Append the end.

        Args:
            tokens_before: number of tokens that were appended before.
        """
        outcome = await holder.finish(after=holder.seq + tokens_before)
        assert outcome == Ok(), outcome
