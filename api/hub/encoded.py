"""A generation's log in one dialect: the bytes, and where each entry's bytes end.

Invariant: the bytes are the fold of the feed's entries in order, each folded once however many
readers there are. A resume or a late join is one slice of them. Encoding is lazy and bounded per
call, so that a long log which nobody has read in this dialect does not hold the loop. Of a numbered
dialect it also knows which entry each chunk is in.
Knows no clock, no transport and no reader.
"""

from __future__ import annotations

import bisect
from array import array

from api.hub.feed import Feed
from shared.log.fold import FRAME_END, Dialect, Fold
from shared.log.ids import EventId
from shared.log.records import Meta
from shared.text.large import FOLD_BYTES_MAX

ENCODE_ENTRIES_MAX = 1_000  # per call: about a millisecond
SLICE_BYTES_MAX = 65_536


class EncodedLog:
    """What all readers of one generation in one dialect share.

    Attributes:
        count: the entries that have been folded.
        opening: what a reader from the start is sent first, before the log's bytes.
        over_at: the seq after which this dialect has nothing more to say; -1: not known of any.
    """

    __slots__ = (
        "_bytes",
        "_ends",
        "_epoch",
        "_feed",
        "_given",
        "_is_numbered",
        "_last",
        "_meta",
        "_shared",
        "base",
        "count",
        "dialect",
        "fold",
        "opening",
        "over_at",
    )

    def __init__(self, feed: Feed, dialect: Dialect, meta: Meta) -> None:
        self.dialect = dialect
        self._is_numbered = dialect.is_numbered
        self._feed = feed
        self._meta = meta
        self._start()

    def _start(self) -> None:
        self._epoch = self._feed.epoch
        self.fold: Fold = self.dialect.new_fold(self._meta)
        self.opening = self.fold.opening()
        self.over_at = -1
        self.base = 0  # the bytes up to this entry have been let go
        self._bytes = bytearray()
        self._ends = array("Q", [0])  # where the bytes of entry base + n end
        self._given = array("Q", [self.fold.given])  # chunks up to entry n, of a numbered dialect
        self._shared: tuple[tuple[int, int, int], bytes, int] = ((-1, -1, -1), b"", -1)
        self.count = 0  # the entries that have been folded
        self._last = b""  # the newest one's bytes, for the many who wait for just these

    @property
    def bytes_kept(self) -> int:
        kept = len(self._ends) + len(self._given)
        return len(self._bytes) + self._ends.itemsize * kept

    def slice(self, seq: int, bytes_max: int = SLICE_BYTES_MAX) -> tuple[bytes, int]:
        """Return the bytes after entry `seq`, and the seq of the last entry in them.

        At most `bytes_max`, but one entry at least, and cut at entries only. Empty with the same
        seq: nothing yet, or not encoded yet, or `lacks(seq)`. Readers at one place get the same
        object.
        """
        feed = self._feed
        if self._epoch != feed.epoch or self.count != feed.ids.count:
            self.encode()
        if seq == self.count - 1:
            return self._last, self.count
        if seq < self.base:
            if self._feed.base:
                return b"", seq
            self._start()  # deterministic, so these are the bytes that were let go
            self.encode()
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
        if self.over_at >= 0:
            return encoded
        return encoded + sum(map(len, feed.raws[max(0, seq - feed.base) :]))

    def encode(self) -> None:
        """Fold what is new, up to the bound of one call."""
        feed = self._feed
        if self._epoch != feed.epoch:
            self._start()
        done = self.count
        if done == feed.ids.count or done < feed.base or self.over_at >= 0:
            return
        if done == feed.ids.count - 1:  # as nearly always
            self._add(feed.ids.top, feed.raws[-1])
            return
        folded = 0
        for seq in range(done + 1, min(feed.ids.count, done + ENCODE_ENTRIES_MAX) + 1):
            raw = feed.raws[seq - feed.base - 1]
            self._add(feed.ids.at(seq), raw)
            folded += len(raw)
            if self.over_at >= 0 or folded > FOLD_BYTES_MAX:
                break

    def _add(self, event_id: EventId, raw: bytes) -> None:
        fold = self.fold
        self._last = fold.add(event_id, raw)
        self._bytes += self._last
        self._ends.append(len(self._bytes))
        self.count += 1
        self.over_at = fold.over_at
        if self._is_numbered:
            self._given.append(fold.given)

    @property
    def is_complete(self) -> bool:
        """Whether all that the feed has, or that the dialect has to say, is encoded."""
        if self._epoch != self._feed.epoch:
            return False
        return self.count == self._feed.count or self.over_at >= 0

    @property
    def is_finished(self) -> bool:
        """Whether all is encoded that this dialect will ever say of this log."""
        return self.over_at >= 0 or (self._feed.is_ended and self.is_complete)

    # Numbered chunks

    @property
    def chunks(self) -> int:
        """The chunks in what has been folded, those of the opening included."""
        return self._given[-1]

    def chunks_up_to(self, seq: int) -> int:
        """The chunks up to entry `seq`, which has been folded, or beyond which nothing is said."""
        return self._given[min(seq, self.count)]

    def find(self, number: int) -> tuple[int, bytes] | None:
        """Return the seq of the entry that chunk `number` is in, and its bytes from there on.

        Seq 0 is the opening; with `number == chunks` the last entry and no bytes. None: the bytes
        have been let go, or are not encoded again yet.
        """
        assert self.dialect.is_numbered and 0 <= number <= self.chunks
        seq = bisect.bisect_right(self._given, number)
        if seq == len(self._given):
            return self.count, b""
        rest = self.slice(seq - 1, 1)[0] if seq else self.opening
        if not rest:
            return None
        for _ in range(number - (self._given[seq - 1] if seq else 0)):
            rest = rest.partition(FRAME_END)[2]
        return seq, rest
