"""Whether a peer sends, or takes, as fast as a transfer must go. Pure.

The clock of a `Pace` runs only while the peer is waited for: where our own disk or bucket is slow,
the peer is not blamed. Knows nothing of connections or forms.
"""

from __future__ import annotations

from collections import deque

BYTES_S = 4_096  # a slow mobile connection keeps that; one byte now and then does not
WINDOW_S = 30.0  # the mean is taken over so long, so a shorter silence does no harm
WANTED_S = 10.0  # the same where somebody waits for this transfer's turn
STEP_S = 0.2  # between two samples that are kept


class Pace:
    """The bytes of one transfer over the time for which its peer was waited for."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque([(0.0, 0)])

    def is_slow(self, waited_s: float, moved: int, window_s: float) -> bool:
        """Say whether the mean of the last `window_s` is below `BYTES_S`; not before they are over.

        Args:
            waited_s: how long the peer was waited for in all, seconds; never less than before.
            moved: how many bytes it has sent, or taken, in all.
            window_s: at most `WINDOW_S`.
        """
        self._keep(waited_s, moved)
        if waited_s < window_s:
            return False
        begun = 0
        for at_s, count in self._samples:
            if at_s > waited_s - window_s:
                break
            begun = count
        return moved - begun < BYTES_S * window_s

    def _keep(self, waited_s: float, moved: int) -> None:
        if waited_s - self._samples[-1][0] >= STEP_S:
            self._samples.append((waited_s, moved))
        while len(self._samples) > 1 and self._samples[1][0] <= waited_s - WINDOW_S:
            self._samples.popleft()
