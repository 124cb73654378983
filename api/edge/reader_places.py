"""The places of an owner's open readers, counted over all nodes.

A node tells Redis how many places of an owner it needs: when one more reader comes, soon after one
has left, and every `RENEW_S`. The number counts for `LIFE_MS`, so a node that dies gives its places
back within that time. The script refuses a reader if the numbers of all nodes exceed the limit
(shared/redis/scripts/limit_place.lua). Far from the limit it grants a few places ahead, so that the
next readers need not wait for an answer; near the limit there are none ahead.

Invariant: a call has this node's complete number, never a difference. So a call may be lost or
repeated, and the next call corrects the number. Without Redis a reader is let in and counted
later, because a node can still serve the logs of which it has copies. Owners without a limit cost
no call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter

from api.errors import TooManyConnections
from shared.errors import Unavailable
from shared.log.store import Store
from shared.redis import keys
from shared.redis.pipeline import Call

SCRIPT = "limit_place"
# How long a reader waits for its place before it is let in. While Redis hangs, a request waits for
# three calls, and must be answered within 5 s: `META_READ_S` (2 s, api/readers/lookup.py), this
# one, and `REDIS_ANSWER_S` (2.5 s) for the note that a generation with a grace has a reader.
PLACE_WAIT_S = 0.25
RENEW_S = 2.5
LIFE_MS = 8_000
TOLD_MS = 30_000  # a refused EventSource comes back sooner than this; refusals count until then
OWNERS_PER_CALL = 500
AHEAD_MAX, AHEAD_SHARE = 8, 16  # places ahead of a node: at most 8, and a sixteenth of the limit


@dataclass(slots=True)
class _OwnerPlaces:
    """The places and readers of one owner on one node.

    Attributes:
        readers: those that are open or being let in.
        places: as Redis last granted; readers up to this number need no call.
        ahead: how many of them were granted beyond the readers.
        until_s: the places may be used until then, loop time.
        most: the owner's limit, as the last reader brought it.
    """

    readers: int = 0
    places: int = 0
    ahead: int = 0
    until_s: float = 0.0
    most: int = 0

    @property
    def wanted_ahead(self) -> int:
        return min(AHEAD_MAX, self.most // AHEAD_SHARE)

    def has_place(self, now_s: float) -> bool:
        return self.readers <= self.places and now_s < self.until_s


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
        self._owners: dict[str, _OwnerPlaces] = {}
        self._changed: set[str] = set()
        self._has_changed = asyncio.Event()

    def count(self, owner: str) -> int:
        """Return the number of this node's readers of an owner."""
        return self._owners[owner].readers if owner in self._owners else 0

    async def take(self, owner: str, most: int, reader: str = "") -> None:
        """Count one more reader; `give_back` ends the count.

        Args:
            most: readers of the owner on all nodes; above 0.
            reader: names who asks, if refusals of this reader are to be counted.

        Raises:
            TooManyConnections: all places are taken.
        """
        own = self._owners.setdefault(owner, _OwnerPlaces())
        own.readers, own.most = own.readers + 1, most
        if own.has_place(_now_s()):
            if own.places - own.readers < own.ahead // 2:
                self._write_soon(owner)
            return
        try:
            async with asyncio.timeout(PLACE_WAIT_S):
                reply = await self._call_one(owner, reader)
        except (Unavailable, TimeoutError):
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
        own = self._owners[owner]
        own.readers -= 1
        # With places ahead the limit is far, and no other node waits for this place.
        if not own.ahead or own.places - own.readers > 2 * own.ahead:
            self._write_soon(owner)

    async def run(self) -> None:
        """Keep the numbers in Redis up to date until cancelled.

        Owners that change all the time must not delay the renewal of the others.
        """
        renew_at_s = _now_s() + RENEW_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(renew_at_s):
                    await self._has_changed.wait()
            if is_due := _now_s() >= renew_at_s:
                renew_at_s = _now_s() + RENEW_S
            with contextlib.suppress(Unavailable):
                await self.write(everything=is_due)

    async def write(self, *, everything: bool = False) -> None:
        """Write the numbers that have changed, or all.

        Raises:
            Unavailable: Redis did not answer in time; the next renewal writes all of them.
        """
        self._has_changed.clear()
        owners = sorted(self._owners if everything else self._changed)
        self._changed = set()
        for start in range(0, len(owners), OWNERS_PER_CALL):
            some = owners[start : start + OWNERS_PER_CALL]
            calls = [self._call(owner) for owner in some]
            sent_s, readers = _now_s(), [self._freeze(owner) for owner in some]
            replies = await self._store.scripts.run_many(SCRIPT, calls)
            for owner, number, reply in zip(some, readers, replies, strict=True):
                if not isinstance(reply, Exception):
                    self._hear(owner, number, reply, sent_s)

    def _write_soon(self, owner: str) -> None:
        self._changed.add(owner)
        self._has_changed.set()

    async def _call_one(self, owner: str, reader: str) -> Sequence[Any]:
        sent_s, number = _now_s(), self._freeze(owner)
        names, args = self._call(owner, reader, is_new=True)
        reply: Sequence[Any] = await self._store.scripts.run(SCRIPT, names, args)
        if reply[0]:
            self._hear(owner, number, reply, sent_s)
        return reply

    def _freeze(self, owner: str) -> int:
        """Let no further reader in without a call until the answer comes; return the readers.

        The answer may take back places that were granted ahead.
        """
        if owner not in self._owners:
            return 0
        own = self._owners[owner]
        own.places = min(own.places, own.readers)
        return own.readers

    def _hear(self, owner: str, readers: int, reply: Sequence[Any], sent_s: float) -> None:
        """Take the places that Redis granted to `readers` readers."""
        own = self._owners.get(owner)
        if own is None:
            return
        own.places = int(reply[1])
        own.ahead = own.places - readers
        own.until_s = sent_s + LIFE_MS / 1000 / 2
        if not own.readers and not own.places:
            del self._owners[owner]

    def _call(self, owner: str, reader: str = "", *, is_new: bool = False) -> Call:
        own = self._owners.get(owner, _OwnerPlaces())
        names = keys.owner_places(owner), keys.owner_told(owner)
        return names, [
            self._node, own.readers, LIFE_MS, own.most, int(is_new),
            own.wanted_ahead if own.readers else 0, reader, TOLD_MS,
        ]  # fmt: skip


def _now_s() -> float:
    return asyncio.get_running_loop().time()


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
