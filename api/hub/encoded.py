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
        self.base = 0  # the bytes up to this entry have been let go
        self._bytes = bytearray()
        self._ends = array("Q", [0])  # where the bytes of entry base + n end
        self._shared: tuple[tuple[int, int, int], bytes, int] = ((-1, -1, -1), b"", -1)
        # The newest entry's bytes, for the many who wait for just these.
        self._last, self._last_seq = b"", -1

    @property
    def bytes_kept(self) -> int:
        return len(self._bytes) + self._ends.itemsize * len(self._ends)

    @property
    def count(self) -> int:
        """The entries that have been folded."""
        return self.base + len(self._ends) - 1

    def slice(self, seq: int, bytes_max: int = SLICE_BYTES_MAX) -> tuple[bytes, int]:
        """Return the bytes after entry `seq`, and the seq of the last entry in them.

        At most `bytes_max`, but one entry at least, and cut at entries only. Empty with the same
        seq: nothing yet, or not encoded yet, or `lacks(seq)`. Readers at one place get the same
        object.
        """
        feed = self._feed
        if self._epoch != feed.epoch or self.base + len(self._ends) - 1 != feed.ids.count:
            self._encode()
        if seq == self._last_seq - 1:
            return self._last, self._last_seq
        if seq < self.base:
            if self._feed.base:
                return b"", seq
            self._start()  # deterministic, so these are the bytes that were let go
            self._encode()
        available = self.count
        if seq >= available:
            return b"", seq
        key = (seq, available, bytes_max)
        if self._shared[0] == key:
            return self._shared[1], self._shared[2]
        start, stop = seq - self.base, available - self.base
        begin = self._ends[start]
        if self._ends[stop] - begin > bytes_max:
            stop = bisect.bisect_right(self._ends, begin + bytes_max, start + 1) - 1
            stop = max(stop, start + 1)
        chunk = bytes(memoryview(self._bytes)[begin : self._ends[stop]])
        last = self.base + stop
        self._shared = (key, chunk, last)
        return chunk, last

    def lacks(self, seq: int) -> bool:
        """Whether the bytes after `seq` are made of entries that the feed has let go."""
        if self._epoch != self._feed.epoch:
            return False
        needs = self.count if seq >= self.base else 0
        return needs < self._feed.base

    def trim(self, seq: int) -> None:
        """Let go of the bytes up to entry `seq`, which has been folded."""
        assert self.base <= seq <= self.count
        cut = self._ends[seq - self.base]
        del self._bytes[:cut]
        self._ends = array("Q", [end - cut for end in self._ends[seq - self.base :]])
        self.base = seq

    def backlog_bytes(self, seq: int) -> int:
        """Return about how many bytes follow entry `seq`; what is not encoded counts as it is."""
        available, feed = self.count, self._feed
        encoded = 0
        if self.base <= seq < available:
            encoded = self._ends[-1] - self._ends[seq - self.base]
            seq = available
        return encoded + sum(map(len, feed.raws[max(0, seq - feed.base) :]))

    def _encode(self) -> None:
        """Fold what is new, up to the bound of one call."""
        if self._epoch != self._feed.epoch:
            self._start()
        feed, done = self._feed, self.count
        if done == feed.ids.count or done < feed.base:
            return
        ids, raws, add = feed.ids, feed.raws, self.fold.add
        first = done - feed.base
        for index in range(first, min(len(raws), first + ENCODE_ENTRIES_MAX)):
            self._last = add(ids.at(feed.base + index + 1), raws[index])
            self._bytes += self._last
            self._ends.append(len(self._bytes))
        self._last_seq = self.count

    @property
    def is_complete(self) -> bool:
        """Whether all that the feed has is encoded."""
        return self.count == self._feed.count and self._epoch == self._feed.epoch
