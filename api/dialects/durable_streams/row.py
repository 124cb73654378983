"""The readers of a stream on a node that have all entries.

The next entry is written to all of them. A reader in the row has no turn of its own: no wake-up of
its task, no timer, no encoding. The bytes are made once for all readers that sent the same cursor,
and go past the server's `send`. A long row is served in slices, so that other work of the node
waits for no row. Invariant: a follower gets an entry only behind the entry before it; otherwise it
leaves the row and reads on by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from shared.streams.place import Place
from shared.streams.record import Entry

SLICE_READERS = 64  # written in one turn of the event loop, about 1 ms

Chunks = dict[tuple[str, bool], bytes]


class Follower(Protocol):
    """A reader in the row.

    Attributes:
        place: behind the last entry that it has.
    """

    place: Place

    def follow(self, entry: Entry, chunks: Chunks) -> None:
        """Write an entry.

        Args:
            chunks: what other readers have made of this entry, by the cursor that they sent and
                whether the entry is still the last one.

        Raises:
            Exception: the connection took no byte of the entry.
        """
        ...

    def leave(self) -> None:
        """Read on without the row, which does not have this reader any more."""
        ...


class Row:
    """The row of one stream. Readers are in the order in which they joined."""

    def __init__(self) -> None:
        self._followers: dict[Follower, None] = {}

    def join(self, follower: Follower) -> None:
        self._followers[follower] = None

    def discard(self, follower: Follower) -> None:
        self._followers.pop(follower, None)

    def deliver(self, entry: Entry) -> None:
        """Write an entry to all readers that have the entry before it; others leave."""
        self._deliver(entry, list(self._followers), {})

    def dissolve(self) -> None:
        """Let all readers leave."""
        followers, self._followers = self._followers, {}
        for follower in followers:
            follower.leave()

    def _deliver(self, entry: Entry, followers: Sequence[Follower], chunks: Chunks) -> None:
        for follower in followers[:SLICE_READERS]:
            if follower not in self._followers:
                continue
            if follower.place != entry.before or not self._give(follower, entry, chunks):
                self.discard(follower)
                follower.leave()
        if rest := followers[SLICE_READERS:]:
            asyncio.get_running_loop().call_soon(self._deliver, entry, rest, chunks)

    def _give(self, follower: Follower, entry: Entry, chunks: Chunks) -> bool:
        """Write an entry to one reader; False: its connection did not take the entry.

        The caller is the live connection of the node, which an exception would end for all readers.
        """
        try:
            follower.follow(entry, chunks)
        except Exception:  # a server may raise anything for one connection
            follower.place = entry.before  # the reader sends the entry by itself
            return False
        return True
