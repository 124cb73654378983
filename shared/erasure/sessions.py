"""Deletes the generations of one owner in one session."""

from __future__ import annotations

from shared.erasure.generations import GenerationEraser
from shared.queue.overview import session_ids
from shared.redis import keys
from shared.redis.client import translated

PAGE = 100  # generations whose metas are read in one round trip


async def erase_session(eraser: GenerationEraser, owner: str, session: str) -> int:
    """Delete the generations that the session has at this moment, and return their number.

    Raises:
        Unavailable: Redis did not answer in time. A repeat deletes the rest.
    """
    erased = 0
    index = keys.session(owner, session)
    while ids := await session_ids(eraser.redis, owner, session, PAGE):
        for meta in await eraser.store.metas(ids):
            if meta is not None and meta.owner == owner:  # a sealed one has no owner
                await eraser.erase(meta)
                erased += 1
        with translated():
            await eraser.redis.zrem(index, *ids)
    return erased
