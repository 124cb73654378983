"""The rate of a transfer: whether its peer sends, or reads, fast enough. Pure.

The clock of a `TransferRate` runs only while this side waits for the peer: a slow disk or bucket of
ours does not count against the peer. Knows nothing of connections or forms.
"""

from __future__ import annotations

from collections import deque

RATE_BYTES_S_MIN = 4_096  # bytes a second; a slow mobile connection is faster
RATE_WINDOW_S = 30.0  # the rate is a mean over this time, so that a shorter pause does no harm
CONTENDED_RATE_WINDOW_S = 10.0  # the window while another transfer waits for this transfer's turn
SAMPLE_INTERVAL_S = 0.2  # between two stored samples


class TransferRate:
    """The bytes of one transfer over the time for which this side waited for its peer."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque([(0.0, 0)])  # waited s, moved bytes

    def is_slow(self, waited_s: float, moved: int, window_s: float) -> bool:
        """Return whether the mean rate of the last `window_s` is below `RATE_BYTES_S_MIN`.

        The answer is False until `window_s` has passed.

        Args:
            waited_s: the total time spent waiting for the peer, s; it never decreases.
            moved: the bytes that the peer has sent, or read, in total.
            window_s: at most `RATE_WINDOW_S`.
        """
        self._store_sample(waited_s, moved)
        if waited_s < window_s:
            return False
        moved_before = 0  # at the beginning of the window
        for sampled_s, sampled_bytes in self._samples:
            if sampled_s > waited_s - window_s:
                break
            moved_before = sampled_bytes
        return moved - moved_before < RATE_BYTES_S_MIN * window_s

    def _store_sample(self, waited_s: float, moved: int) -> None:
        if waited_s - self._samples[-1][0] >= SAMPLE_INTERVAL_S:
            self._samples.append((waited_s, moved))
        while len(self._samples) > 1 and self._samples[1][0] <= waited_s - RATE_WINDOW_S:
            self._samples.popleft()
