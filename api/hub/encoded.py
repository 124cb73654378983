"""A generation's log in one dialect: the bytes, and where each entry's bytes end.

Invariant: the bytes are the fold of the feed's entries in order, each folded once however many
readers there are. A resume or a late join is one slice of them. Encoding is lazy and bounded per
call, so that a long log which nobody has read in this dialect does not hold the loop.
Knows no clock, no transport and no reader.
"""

from __future__ import annotations

import bisect
from array import array

from api.dialects.fold import Dialect, Fold
from api.hub.feed import Feed
from shared.outcomes import Meta

ENCODE_ENTRIES_MAX = 1_000  # per call: about a millisecond
SLICE_BYTES_MAX = 65_536


class EncodedLog:
    """What all readers of one generation in one dialect share."""

    def __init__(self, feed: Feed, dialect: Dialect, meta: Meta) -> None:
        self.dialect = dialect
        self._feed = feed
        self._meta = meta
        self._start()

    def _start(self) -> None:
        self._epoch = self._feed.epoch
        self.fold: Fold = self.dialect.new_fold(self._meta)
        self._bytes = bytearray()
        self._ends = array("Q", [0])  # where entry seq ends; seq 0 is the place before the first
        self._shared: tuple[tuple[int, int, int], bytes, int] = ((-1, -1, -1), b"", -1)

    @property
    def bytes_kept(self) -> int:
        return len(self._bytes) + self._ends.itemsize * len(self._ends)

    def slice(self, seq: int, bytes_max: int = SLICE_BYTES_MAX) -> tuple[bytes, int]:
        """Return the bytes after entry `seq`, and the seq of the last entry in them.

        At most `bytes_max`, but one entry at least, and cut at entries only. Empty with the same
        seq: nothing yet. Readers at one place get the same object.
        """
        self._encode()
        available = len(self._ends) - 1
        if seq >= available:
            return b"", seq
        key = (seq, available, bytes_max)
        if self._shared[0] == key:
            return self._shared[1], self._shared[2]
        start = self._ends[seq]
        last = available
        if self._ends[last] - start > bytes_max:
            last = bisect.bisect_right(self._ends, start + bytes_max, seq + 1) - 1
            last = max(last, seq + 1)
        chunk = bytes(memoryview(self._bytes)[start : self._ends[last]])
        self._shared = (key, chunk, last)
        return chunk, last

    def backlog_bytes(self, seq: int) -> int:
        """Return how many bytes follow entry `seq`; what is not encoded yet counts as it is."""
        available = len(self._ends) - 1
        if seq >= available:
            return sum(map(len, self._feed.raws[seq:]))
        return self._ends[-1] - self._ends[seq] + sum(map(len, self._feed.raws[available:]))

    def _encode(self) -> None:
        """Fold what is new, up to the bound of one call."""
        if self._epoch != self._feed.epoch:
            self._start()
        ids, raws, add = self._feed.ids, self._feed.raws, self.fold.add
        done = len(self._ends) - 1
        if done == len(raws):
            return
        for index in range(done, min(len(raws), done + ENCODE_ENTRIES_MAX)):
            self._bytes += add(ids.at(index + 1), raws[index])
            self._ends.append(len(self._bytes))

    @property
    def is_complete(self) -> bool:
        """Whether all that the feed has is encoded."""
        return len(self._ends) - 1 == self._feed.count and self._epoch == self._feed.epoch
