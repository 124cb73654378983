"""Breaks off the connections of API keys that the file of keys no longer has.

A node reads the file again within a second of its change (api/edge/auth.py). Without this, a stream
that was opened with a removed key would go on until `connection_age_s`. Another key with the same
owner and scopes stands for a removed one, so a person who gets a new key keeps the connections.
"""

from __future__ import annotations

from collections.abc import Callable

from api.hub.contracts import Connection, ReadingOutcome
from shared.config.credentials import Identity


class KeyWatch:
    """The open connections of one node that were opened with keys of a file."""

    def __init__(self) -> None:
        self._connections: dict[Identity, set[Connection]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, identity: Identity, connection: Connection) -> None:
        """Break `connection` off if the key goes; call `remove` when it closes."""
        self._connections.setdefault(identity, set()).add(connection)

    def remove(self, identity: Identity, connection: Connection) -> None:
        connections = self._connections.get(identity, set())
        connections.discard(connection)
        if not connections:
            self._connections.pop(identity, None)

    def end(self, is_key_revoked: Callable[[Identity], bool]) -> None:
        """Break off the connections of each identity whose key was taken away."""
        for identity in [each for each in self._connections if is_key_revoked(each)]:
            for connection in self._connections.pop(identity):
                connection.break_off(ReadingOutcome.REVOKED)
