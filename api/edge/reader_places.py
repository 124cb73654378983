"""The places of an owner's open readers, counted over all nodes.

A node tells Redis how many readers of an owner it has: when one more comes, soon after one has
left, and every `RENEW_S`. The number counts for `LIFE_MS`, so a node that dies gives its places
back within that time. The script refuses a reader if the numbers of all nodes exceed the limit
(shared/redis/scripts/limit_place.lua).

Invariant: a call has this node's complete number, never a difference. So a call may be lost or
repeated, and the next one is right again. Without Redis a reader is let in and counted later: a
node goes on serving what it has a copy of. Owners without a limit cost no call.
"""

from __future__ import annotations

import asyncio
import contextlib

from prometheus_client import Counter

from api.errors import TooManyConnections
from shared.errors import Unavailable
from shared.log.store import Store
from shared.redis import keys
from shared.redis.pipeline import Call

SCRIPT = "limit_place"
RENEW_S = 2.5
LIFE_MS = 8_000
TOLD_MS = 30_000  # an EventSource that was told comes back within a part of this
OWNERS_PER_CALL = 500


class ReaderPlaces:
    """The readers of one node, by owner.

    Args:
        node: its name, unique among the nodes of one Redis.
        refused: counts the refusals.
    """

    def __init__(self, node: str, store: Store, refused: Counter) -> None:
        self._node = node
        self._store = store
        self._refused = refused
        self._own: dict[str, int] = {}
        self._changed: set[str] = set()
        self._has_changed = asyncio.Event()

    def count(self, owner: str) -> int:
        """Return the number of this node's readers of an owner."""
        return self._own.get(owner, 0)

    async def take(self, owner: str, most: int, reader: str = "") -> None:
        """Count one more reader; `give_back` ends the count.

        Args:
            most: readers of the owner on all nodes; above 0.
            reader: names who asks, if refusals of this reader are to be counted.

        Raises:
            TooManyConnections: all places are taken.
        """
        self._own[owner] = self.count(owner) + 1
        try:
            names, args = self._call(owner)
            reply = await self._store.scripts.run(SCRIPT, names, [*args[:3], most, reader, TOLD_MS])
        except Unavailable:
            return  # the next renewal counts it
        except BaseException:
            self.give_back(owner)
            raise
        if not reply[0]:
            self.give_back(owner)
            self._refused.labels("too_many_connections").inc()
            raise TooManyConnections(most, int(reply[2]))

    def give_back(self, owner: str) -> None:
        """Count one reader less, here at once and in Redis soon."""
        self._own[owner] -= 1
        self._changed.add(owner)
        self._has_changed.set()

    async def run(self) -> None:
        """Keep the numbers in Redis up to date until cancelled."""
        while True:
            try:
                async with asyncio.timeout(RENEW_S):
                    await self._has_changed.wait()
            except TimeoutError:
                self._changed.update(self._own)
            with contextlib.suppress(Unavailable):
                await self.write()

    async def write(self) -> None:
        """Write the numbers that have changed.

        Raises:
            Unavailable: Redis did not answer in time; the next renewal writes all of them.
        """
        self._has_changed.clear()
        owners, self._changed = sorted(self._changed), set()
        for start in range(0, len(owners), OWNERS_PER_CALL):
            some = owners[start : start + OWNERS_PER_CALL]
            calls = [self._call(owner) for owner in some]
            for owner in some:
                if not self._own.get(owner):
                    self._own.pop(owner, None)
            await self._store.scripts.run_many(SCRIPT, calls)

    def _call(self, owner: str) -> Call:
        names = keys.owner_places(owner), keys.owner_told(owner)
        return names, [self._node, self.count(owner), LIFE_MS, 0, "", TOLD_MS]


class ReaderPlace:
    """The place of one connection: at most one, however often it is taken or given back."""

    __slots__ = ("_is_kept", "_is_taken", "_most", "_owner", "_places")

    def __init__(self, places: ReaderPlaces, owner: str, most: int) -> None:
        self._places = places
        self._owner = owner
        self._most = most
        self._is_taken = False
        self._is_kept = False

    async def take(self, reader: str = "") -> None:
        """Take the place, unless it is taken; raises as `ReaderPlaces.take`."""
        if not self._is_taken:
            await self._places.take(self._owner, self._most, reader)
            self._is_taken = True

    def keep(self) -> None:
        """Keep the place after `close`: the answer goes on, and calls `give_back` at its end."""
        self._is_kept = True

    def close(self) -> None:
        """Give the place back at the end of the handler, unless the answer goes on."""
        if not self._is_kept:
            self.give_back()

    def give_back(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._places.give_back(self._owner)
