"""Channels of the live connection that belong to no generation, each with its listener.

People's own streams have such channels (api/dialects/durable_streams/tail.py). Invariant: an
exception of a listener does not reach the live connection, which it would close for all readers of
the node. Knows no payload.
"""

from __future__ import annotations

import logging
from typing import Protocol

from api.hub.live_connection import LiveSource

logger = logging.getLogger(__name__)


class ChannelListener(Protocol):
    """Receives what comes on one channel. Both methods must be quick."""

    def subscribed(self) -> None:
        """Messages arrive from now on; those before may be lost. Also after a reconnect."""
        ...

    def message(self, payload: bytes) -> None: ...


class Channels:
    """The listeners of channels, at most one for each."""

    def __init__(self, live: LiveSource) -> None:
        self._live = live
        self._listeners: dict[bytes, ChannelListener] = {}
        self._failed: set[bytes] = set()  # channels whose listener has raised an exception

    def add(self, channel: bytes, listener: ChannelListener) -> None:
        """Subscribe to `channel` until `remove`."""
        self._listeners[channel] = listener
        self._live.subscribe(channel)

    def remove(self, channel: bytes) -> None:
        """Unsubscribe; the listener is not called any more."""
        del self._listeners[channel]
        self._failed.discard(channel)
        self._live.unsubscribe(channel)

    def subscribed(self, channel: bytes) -> None:
        if (listener := self._listeners.get(channel)) is not None:
            try:
                listener.subscribed()
            except Exception:  # boundary: one channel must not end the connection of all
                self._note_failure(channel)

    def message(self, channel: bytes, payload: bytes) -> None:
        if (listener := self._listeners.get(channel)) is not None:
            try:
                listener.message(payload)
            except Exception:  # boundary: one channel must not end the connection of all
                self._note_failure(channel)

    def _note_failure(self, channel: bytes) -> None:
        """Log the present exception, once for each channel: each of its messages may raise it."""
        if channel not in self._failed:
            self._failed.add(channel)
            logger.exception(
                "channel listener failed", extra={"channel": channel.decode("ascii", "replace")}
            )
