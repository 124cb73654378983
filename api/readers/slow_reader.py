"""A write that waits: for how long, with what progress, and when its reader counts as too slow.

Invariant: a reader whose peer takes bytes is never too slow, however many bytes are unsent; a late
joiner that catches up is not a slow reader. A reader is too slow in two cases: its peer has taken
nothing for `STALL_OVER_LIMIT_S` and more than the limit is unsent, or its peer has taken nothing
for `STALL_S_MAX`. Knows no clock and no transport. Source: docs/protocol.md, "A slow reader".
"""

from __future__ import annotations

STALL_OVER_LIMIT_S = 1.0  # allowed without progress when more bytes are unsent than the limit
STALL_S_MAX = 60.0  # allowed without progress in any case


class BlockedWrite:
    """One write that waits, from the moment at which it began to wait.

    Args:
        now: loop time, s.
        unacknowledged_bytes: bytes that the peer has not taken; see
            api/transport/unacknowledged.py.
    """

    __slots__ = ("_unacknowledged_bytes", "_progress_at")

    def __init__(self, now: float, unacknowledged_bytes: int) -> None:
        self._progress_at = now
        self._unacknowledged_bytes = unacknowledged_bytes

    def is_too_slow(
        self, now: float, *, unacknowledged_bytes: int, backlog_bytes: int, bytes_max: int
    ) -> bool:
        """Return whether to cut the reader. The hub calls this regularly while the write waits.

        Args:
            now: loop time, s.
            unacknowledged_bytes: bytes that the peer has not taken now; fewer than before is
                progress.
            backlog_bytes: all bytes that the reader still has to be sent.
            bytes_max: the limit for `backlog_bytes`.
        """
        if unacknowledged_bytes < self._unacknowledged_bytes:
            self._progress_at = now
        self._unacknowledged_bytes = unacknowledged_bytes
        stalled_s = now - self._progress_at
        is_over_limit = backlog_bytes > bytes_max
        return stalled_s >= STALL_S_MAX or (stalled_s >= STALL_OVER_LIMIT_S and is_over_limit)
