"""Channels of the live connection that belong to no generation, each with its listener.

People's own streams have such channels (api/dialects/durable_streams/tail.py). Knows no payload.
"""

from __future__ import annotations

from typing import Protocol

from api.hub.live_connection import LiveSource


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

    def add(self, channel: bytes, listener: ChannelListener) -> None:
        """Subscribe to `channel` until `remove`."""
        self._listeners[channel] = listener
        self._live.subscribe(channel)

    def remove(self, channel: bytes) -> None:
        """Unsubscribe; the listener is not called any more."""
        del self._listeners[channel]
        self._live.unsubscribe(channel)

    def subscribed(self, channel: bytes) -> None:
        if (listener := self._listeners.get(channel)) is not None:
            listener.subscribed()

    def message(self, channel: bytes, payload: bytes) -> None:
        if (listener := self._listeners.get(channel)) is not None:
            listener.message(payload)
