"""Removes old ids from the lists of owners, sessions and chats.

An old generation may still be unfinished, so its age alone does not remove it: its meta must be
absent. To look costs a round trip. So a list is looked at when it has `OLD_MAX` old ids, at most
once in `LOOK_EVERY_S`. If a look leaves more to remove, the next one does not wait for this time:
otherwise the list of an owner with many prompts would grow without a bound. The jobs role removes
absent generations, too (jobs/index_janitor.py).
"""

from __future__ import annotations

from contextlib import suppress

from shared.errors import Unavailable
from shared.log.store import Store
from shared.queue.pace import Pace
from shared.redis import keys
from shared.redis.client import Command

OLD_MAX = 100  # with fewer old ids, a list is not looked at
LOOK_EVERY_S = 60.0  # between two looks of one process at a list
LOOK_MAX = 1_000  # ids in one look, the oldest first
LISTS_MAX = 10_000  # whose last look a process remembers


def find_old(name: str, before_ms: int) -> Command:
    """Return the command whose reply is not empty if a list has `OLD_MAX` older ids."""
    return ("ZRANGEBYSCORE", name, "-inf", before_ms, "LIMIT", OLD_MAX - 1, 1)


class OldIds:
    """The looks of one process at old ids."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pace = Pace(LISTS_MAX)

    async def drop(self, name: str, before_ms: int) -> None:
        """Remove absent generations that are older from a list, unless it was looked at just now.

        If Redis does not answer, a later look does it.
        """
        if not self._pace.take(name, LOOK_EVERY_S):
            return
        with suppress(Unavailable):
            if await self._drop(name, before_ms):
                self._pace.forget(name)

    async def _drop(self, name: str, before_ms: int) -> bool:
        """Look once; whether another look would probably remove many ids, too."""
        run = self._store.scripts.pipeline.run
        (ids,) = await run([("ZRANGEBYSCORE", name, "-inf", before_ms, "LIMIT", 0, LOOK_MAX)])
        if isinstance(ids, Exception) or not ids:
            return False
        known = await run([("HGET", keys.meta(each.decode()), "status") for each in ids])
        absent = [each for each, status in zip(ids, known, strict=True) if status is None]
        if not absent:
            return False
        (removed,) = await run([("ZREM", name, *absent)])
        # Ids of unfinished generations stay, and each look reads them again.
        is_worth_it = isinstance(removed, int) and removed >= OLD_MAX
        return is_worth_it and len(ids) == LOOK_MAX
