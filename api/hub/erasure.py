"""Drops a node's copies of generations that were deleted, on whichever node.

The process that deletes a generation publishes its id to all nodes. A node whose live connection
was away may have missed notices, so it compares its copies with Redis after each reconnect. The
text is then gone from the copy; bytes that a connection has not sent yet go with the connection.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from api.hub.contracts import BlockableSink, ReadingOutcome
from api.hub.relay import Relay
from shared.log.event_bytes import DELETED
from shared.log.store import Store
from shared.redis import keys

DELETED_CHANNEL = keys.DELETED.encode()
STATUSES_MAX = 500  # in one pipeline


class ErasureHub(Protocol):
    """The part of a hub that the erasure reads and changes."""

    store: Store
    relays: dict[str, Relay]
    blocked_sinks: set[BlockableSink]

    def close(self, relay: Relay) -> None: ...


class Erasure:
    """The erasures of one node."""

    def __init__(self, hub: ErasureHub) -> None:
        self._hub = hub

    def take(self, payload: bytes) -> None:
        """Take a notice: the ids of deleted generations, divided by spaces."""
        for generation_id in payload.decode("ascii", "replace").split():
            self.erase(generation_id)

    def erase(self, generation_id: str) -> None:
        """Drop the copy of a generation at once.

        Readers get an end. Blocked readers are broken off.
        """
        relay = self._hub.relays.get(generation_id)
        if relay is None:
            return
        relay.drop_copy()
        relay.meta = replace(relay.meta, request=b"", prompt="", metadata=b"{}", dialect=b"")
        relay.end_unlogged(DELETED)
        self._hub.close(relay)
        readers: set[object] = set(relay.readers)
        for sink in [sink for sink in self._hub.blocked_sinks if sink in readers]:
            sink.break_off(ReadingOutcome.LOST)

    async def look(self) -> None:
        """Drop the copies of all generations that were deleted without a notice to this node.

        Raises:
            Unavailable: Redis did not answer in time; the next reconnect looks again.
        """
        ids = list(self._hub.relays)
        for start in range(0, len(ids), STATUSES_MAX):
            some = ids[start : start + STATUSES_MAX]
            statuses = await self._hub.store.statuses(some)
            for generation_id, status in zip(some, statuses, strict=True):
                if status == "sealed":
                    await self.erase_if_deleted(generation_id)

    async def erase_if_deleted(self, generation_id: str) -> bool:
        """Drop the copy of a sealed generation if it was deleted, and not lost.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        was_deleted = await self._hub.store.was_deleted(generation_id)
        if was_deleted:
            self.erase(generation_id)
        return was_deleted
