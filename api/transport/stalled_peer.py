"""A connection whose peer takes nothing is broken off.

uvicorn closes a connection by waiting until what is unsent has gone, which is for ever where the
peer reads nothing, and lets a plain answer wait the same way. What counts here is whether the peer
takes anything within a time, not how much is left: a slow download is no stall. Readers of streams
are the hub's affair (api/readers/slow_reader.py), which is stricter.
"""

from __future__ import annotations

import asyncio

from api.transport.unacknowledged import unread_bytes

CLOSE_S = 1.0  # a peer that does not read its close frame is not waited for any longer
FLUSH_S = 30.0  # a closed connection, from which something is still to be taken
OPEN_S = 90.0  # an open one; the hub has cut readers of streams before
LOOKS = 8  # within that time


class Stall:
    """Breaks one connection off once its peer has taken nothing for a while."""

    __slots__ = ("_is_over", "_left", "_looks", "_patience_s", "_timer", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._patience_s = 0.0
        self._left = 0
        self._looks = 0  # in a row that saw nothing taken
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_watching(self) -> bool:
        return self._timer is not None

    def watch(self, patience_s: float) -> None:
        """Break off when nothing is taken for `patience_s`, from now on, until told to stop."""
        self.stop()
        if not self._is_over:
            self._patience_s = patience_s
            self._left = unread_bytes(self._transport)
            self._looks = 0
            self._look_later()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """The connection is lost: there is nothing to watch, now or later."""
        self.stop()
        self._is_over = True

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._patience_s / LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        left = unread_bytes(self._transport)
        self._looks = 0 if left < self._left else self._looks + 1
        self._left = left
        if self._looks >= LOOKS:
            self._transport.abort()
        else:
            self._look_later()
