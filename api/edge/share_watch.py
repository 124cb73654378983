"""Breaks off the connections of shares that have been deleted.

The node that deletes a share ends its own connections at once. Every other node asks Redis once a
second whether the shares that have connections there still exist: one round trip, and none while
there are no such connections. So a deleted share is read by nobody after two seconds, as long as
Redis answers.
"""

from __future__ import annotations

import asyncio
import contextlib

from api.hub.contracts import Connection, ReadingOutcome
from shared.errors import Unavailable
from shared.later.shares import Shares

SHARE_CHECK_S = 1.0
IDS_MAX = 1_000  # in one round trip


class ShareWatch:
    """The connections of one node that were opened with shares."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._connections: dict[str, set[Connection]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, share_id: str, connection: Connection) -> None:
        """Break `connection` off if the share ends; call `remove` when it closes."""
        self._connections.setdefault(share_id, set()).add(connection)

    def remove(self, share_id: str, connection: Connection) -> None:
        connections = self._connections.get(share_id, set())
        connections.discard(connection)
        if not connections:
            self._connections.pop(share_id, None)

    def end(self, share_id: str) -> None:
        """Break off all connections of a share."""
        for connection in self._connections.pop(share_id, set()):
            connection.break_off(ReadingOutcome.EXPIRED)

    async def look(self) -> None:
        """End the connections of shares that are no more.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        ids = list(self._connections)
        for start in range(0, len(ids), IDS_MAX):
            for share_id in await self._shares.ended(ids[start : start + IDS_MAX]):
                self.end(share_id)

    async def run(self) -> None:
        """Look once a second until cancelled."""
        while True:
            await asyncio.sleep(SHARE_CHECK_S)
            with contextlib.suppress(Unavailable):
                await self.look()
