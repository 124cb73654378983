"""A write that waits: how long, with what progress, and when its reader is too slow.

Invariant: a reader whose socket takes bytes is never slow, however much it has before it; a late
joiner catching up is not a slow reader. Slow is who has taken nothing for `STALL_S` and has more
unsent than the limit, or has taken nothing for `AGE_S` whatever it has.
Knows no clock and no transport. Source: docs/protocol.md, "A slow reader".
"""

from __future__ import annotations

STALL_S = 1.0
AGE_S = 60.0


class Blockage:
    """One blocked write, from when it began to wait.

    Args:
        now: loop time, s.
        unread_bytes: what the peer has not taken, see api/transport/unacknowledged.py.
    """

    __slots__ = ("_unread_bytes", "_progress_at")

    def __init__(self, now: float, unread_bytes: int) -> None:
        self._progress_at = now
        self._unread_bytes = unread_bytes

    def is_too_slow(
        self, now: float, *, unread_bytes: int, backlog_bytes: int, bytes_max: int
    ) -> bool:
        """Whether to cut the reader; to be asked every now and then while it waits.

        Args:
            backlog_bytes: all that its socket has not been able to take.
        """
        if unread_bytes < self._unread_bytes:
            self._progress_at = now
        self._unread_bytes = unread_bytes
        stalled_s = now - self._progress_at
        return stalled_s >= AGE_S or (stalled_s >= STALL_S and backlog_bytes > bytes_max)
