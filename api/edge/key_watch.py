"""Breaks off the connections of API keys that the file of keys no longer has.

A node reads the file again within a second of its change (api/edge/auth.py). Without this, a stream
that was opened with a removed key would go on until `connection_age_s`. Another key with the same
owner and scopes stands for a removed one, so a person who gets a new key keeps the connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from api.hub.contracts import Connection, ReadingOutcome
from shared.config.credentials import Identity


class KeyWatch:
    """The open connections of one node that were opened with keys of a file.

    Args:
        is_key_revoked: says whether the key of an identity was taken away.
    """

    def __init__(self, is_key_revoked: Callable[[Identity], bool]) -> None:
        self._is_key_revoked = is_key_revoked
        self._connections: dict[Identity, set[Connection]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, identity: Identity, connection: Connection) -> None:
        """Break `connection` off if the key goes; call `remove` when it closes.

        The key was checked when the request came. It may have gone while the node read the body or
        waited for the first content. Then the connection is broken off in the next turn of the
        loop, when the caller has stored its watch, which `break_off` uses.
        """
        self._connections.setdefault(identity, set()).add(connection)
        if self._is_key_revoked(identity):
            asyncio.get_running_loop().call_soon(self.end)

    def remove(self, identity: Identity, connection: Connection) -> None:
        connections = self._connections.get(identity, set())
        connections.discard(connection)
        if not connections:
            self._connections.pop(identity, None)

    def end(self) -> None:
        """Break off the connections of each identity whose key was taken away."""
        for identity in [each for each in self._connections if self._is_key_revoked(each)]:
            for connection in self._connections.pop(identity):
                connection.break_off(ReadingOutcome.REVOKED)
