"""Aborts a connection whose peer takes no bytes.

uvicorn closes a connection after all unsent bytes have left. With a peer that reads nothing, that
never happens; a response without a stream waits in the same way. The criterion here is whether the
peer takes any byte within a time, not how many bytes are left: a slow download is not a stall. For
readers of streams the hub has a stricter rule (api/readers/slow_reader.py).
"""

from __future__ import annotations

import asyncio

from api.transport.unacknowledged import unacknowledged_bytes

# Each time: how long the peer may take no byte before the connection is aborted.
CLOSING_STALL_S = 1.0  # while a connection closes and at most a close frame is unsent
FLUSHING_STALL_S = 30.0  # while a connection closes and a response may be unsent
OPEN_STALL_S = 90.0  # while a connection stays open; the hub cuts readers of streams earlier
CHECKS_PER_STALL = 8


class StallTimer:
    """Aborts one connection when its peer has taken no byte for a given time."""

    __slots__ = (
        "_checks_without_progress",
        "_is_ended",
        "_stall_s",
        "_timer",
        "_transport",
        "_unread_bytes",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._stall_s = 0.0
        self._unread_bytes = 0  # at the last check
        self._checks_without_progress = 0  # in a row
        self._is_ended = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_watching(self) -> bool:
        return self._timer is not None

    def watch(self, stall_s: float) -> None:
        """Watch from now on; abort when the peer has taken no byte for `stall_s` seconds.

        A second call replaces the time of the first call. After `end` this does nothing.
        """
        self.stop()
        if not self._is_ended:
            self._stall_s = stall_s
            self._unread_bytes = unacknowledged_bytes(self._transport)
            self._checks_without_progress = 0
            self._check_later()

    def stop(self) -> None:
        """Stop watching; `watch` may start again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Stop watching for good, because the connection is lost."""
        self.stop()
        self._is_ended = True

    def _check_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._stall_s / CHECKS_PER_STALL, self._check)

    def _check(self) -> None:
        self._timer = None
        unread = unacknowledged_bytes(self._transport)
        has_progress = unread < self._unread_bytes
        self._checks_without_progress = 0 if has_progress else self._checks_without_progress + 1
        self._unread_bytes = unread
        if self._checks_without_progress >= CHECKS_PER_STALL:
            self._transport.abort()
        else:
            self._check_later()
