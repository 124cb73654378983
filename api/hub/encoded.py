"""One generation's log as bytes of one dialect, shared by all readers of that dialect.

The fold of the dialect (shared/log/fold.py) turns each entry into bytes, once. All bytes stand in
one buffer, so what a reader gets after its place is one slice of the buffer:

    entry   1 … base    base + 1     base + 2         count       feed.count
             trimmed │            │            │        │             │
    _bytes           │░░ bytes ░░░│░░ bytes ░░░│░░ … ░░░│ not folded  │
    _ends            0            e1           e2       en        ends in _bytes, from `base` on

In a numbered dialect clients count chunks. `_given[n]` is the number of chunks in the opening and
the entries up to n; it is not trimmed.

Invariant: the bytes are the fold of the feed's entries in order. Each entry is folded once for all
readers, and again only after its bytes were trimmed or the log was rewritten. Folding is lazy and
bounded per call, so that a long log that was never read in this dialect does not hold the event
loop. Has no clock, knows no transport and no reader.
"""

from __future__ import annotations

import bisect
from array import array

from api.hub.feed import Feed
from shared.log.event_bytes import escape_line_ends
from shared.log.fold import ByteFold, Dialect
from shared.log.ids import EventId
from shared.log.records import Meta
from shared.text.large import FOLD_BYTES_MAX

SLICE_BYTES_MAX = 65_536  # of one slice, unless a single entry is longer


class EncodedLog:
    """A feed in one dialect.

    Args:
        meta: passed to the fold; a fold may return the prompt to the client.

    Attributes:
        fold: the fold, which has been given the entries up to `count`.
        opening: bytes for a reader from the start, before the bytes of the first entry.
        count: number of folded entries.
        base: `seq` of the last entry whose bytes were trimmed; 0: none.
        over_at: `seq` of the entry after which the dialect writes nothing more; -1: there is no
            such entry so far.
    """

    __slots__ = (
        "_bytes",
        "_ends",
        "_epoch",
        "_feed",
        "_given",
        "_is_lines",
        "_is_numbered",
        "_last_slice",
        "_meta",
        "_newest",
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
        self._is_lines = dialect.is_lines
        self._feed = feed
        self._meta = meta
        self.start_again()

    def start_again(self) -> None:
        """Drop all bytes and the fold. The next fold needs all entries, also trimmed ones."""
        self._epoch = self._feed.epoch
        self.fold: ByteFold = self.dialect.new_fold(self._meta)
        opening = self.fold.opening()
        self.opening = escape_line_ends(opening) if self._is_lines else opening
        self.over_at = -1
        self.base = 0
        self._bytes = bytearray()
        self._ends = array("Q", [0])  # of entry base + n, in `_bytes`
        self._given = array("Q", [self.fold.given])  # chunks up to entry n, if numbered
        # Arguments and result of the latest slice: readers at one place get the same object.
        self._last_slice: tuple[tuple[int, int, int], bytes, int] = ((-1, -1, -1), b"", -1)
        self.count = 0
        self._newest = b""  # bytes of entry `count`; most readers need only these

    @property
    def bytes_kept(self) -> int:
        """The memory of this log, bytes, approximately."""
        kept = len(self._ends) + len(self._given)
        state_bytes = self.dialect.state_bytes if self.count else 0
        return len(self._bytes) + self._ends.itemsize * kept + state_bytes

    def slice(self, seq: int, bytes_max: int = SLICE_BYTES_MAX) -> tuple[bytes, int]:
        """Return the bytes after entry `seq`, and the `seq` of the last entry in them.

        Readers with the same `seq` get the same object.

        Args:
            bytes_max: limit of the bytes; the slice ends between entries and has one entry at
                least.

        Returns:
            No bytes and `seq` itself, if there is no later entry, it is not encoded yet, or
            `is_refill_needed(seq)`. No bytes and a higher `seq`, if the dialect writes nothing for
            these entries.
        """
        feed = self._feed
        if self._epoch != feed.epoch or self.count != feed.ids.count:
            self.encode()
        if seq == self.count - 1:
            return self._newest, self.count
        if seq < self.base:
            if self._feed.base:
                return b"", seq
            self.start_again()  # the fold is deterministic: it gives the trimmed bytes again
            self.encode()
        available = self.count
        if seq >= available:
            return b"", seq
        key = (seq, available, bytes_max)
        if self._last_slice[0] == key:
            return self._last_slice[1], self._last_slice[2]
        start, stop = seq - self.base, available - self.base
        begin = self._ends[start]
        if self._ends[stop] - begin > bytes_max:
            stop = bisect.bisect_right(self._ends, begin + bytes_max, start + 1) - 1
            stop = max(stop, start + 1)
        chunk = bytes(memoryview(self._bytes)[begin : self._ends[stop]])
        last = self.base + stop
        self._last_slice = (key, chunk, last)
        return chunk, last

    def is_refill_needed(self, seq: int) -> bool:
        """Whether the bytes after entry `seq` need entries that the feed has trimmed."""
        if self._epoch != self._feed.epoch:
            return False
        needs = self.count if seq >= self.base else 0
        return needs < self._feed.base

    def trim(self, seq: int) -> None:
        """Free the bytes of the entries up to `seq`.

        Args:
            seq: a folded entry, `base` at least.
        """
        assert self.base <= seq <= self.count
        cut = self._ends[seq - self.base]
        del self._bytes[:cut]
        self._ends = array("Q", [end - cut for end in self._ends[seq - self.base :]])
        self.base = seq

    def erase(self) -> None:
        """Drop all bytes, because the feed was emptied for good. The fold stays, for `aside`."""
        self._epoch = self._feed.epoch
        self.opening = self._newest = b""
        self.base = self.count = 0
        self._bytes = bytearray()
        self._ends = array("Q", [0])
        self._given = array("Q", [0])
        self._last_slice = ((-1, -1, -1), b"", -1)

    def backlog_bytes(self, seq: int) -> int:
        """Return about how many bytes follow entry `seq`.

        Entries that are not encoded yet count with the size of their JSON.
        """
        available, feed = self.count, self._feed
        encoded = 0
        if self.base <= seq < available:
            encoded = self._ends[-1] - self._ends[seq - self.base]
            seq = available
        if self.over_at >= 0:
            return encoded
        return encoded + sum(map(len, feed.raws[max(0, seq - feed.base) :]))

    def encode(self) -> None:
        """Fold new entries, at most `fold_entries_max` or about `FOLD_BYTES_MAX` bytes."""
        feed = self._feed
        if self._epoch != feed.epoch:
            self.start_again()
        done = self.count
        if done == feed.ids.count or done < feed.base or self.over_at >= 0:
            return
        if done == feed.ids.count - 1:  # nearly always: one new entry
            self._add(feed.ids.top, feed.raws[-1])
            return
        folded = 0
        for seq in range(done + 1, min(feed.ids.count, done + self.dialect.fold_entries_max) + 1):
            raw = feed.raws[seq - feed.base - 1]
            self._add(feed.ids.at(seq), raw)
            folded += len(raw)
            if self.over_at >= 0 or folded > FOLD_BYTES_MAX:
                break

    def _add(self, event_id: EventId, raw: bytes) -> None:
        fold = self.fold
        framed = fold.add(event_id, raw)
        self._newest = escape_line_ends(framed) if self._is_lines else framed
        self._bytes += self._newest
        self._ends.append(len(self._bytes))
        self.count += 1
        self.over_at = fold.over_at
        if self._is_numbered:
            self._given.append(fold.given)

    @property
    def is_complete(self) -> bool:
        """Whether all present entries are encoded, as far as the dialect writes them."""
        if self._epoch != self._feed.epoch:
            return False
        return self.count == self._feed.count or self.over_at >= 0

    @property
    def is_finished(self) -> bool:
        """Whether all bytes that this dialect will ever write for this log are encoded."""
        return self.over_at >= 0 or (self._feed.is_ended and self.is_complete)

    # Numbered chunks

    @property
    def chunks(self) -> int:
        """The number of chunks in the folded entries and the opening."""
        return self._given[-1]

    def chunks_up_to(self, seq: int) -> int:
        """Return the number of chunks in the opening and the entries up to `seq`.

        Args:
            seq: a folded entry, or any later one if the dialect is over.
        """
        return self._given[min(seq, self.count)]

    def find_chunk(self, number: int) -> tuple[int, bytes] | None:
        """Find chunk `number` of a numbered dialect; chunks count from 0.

        Returns:
            The `seq` of the entry that contains the chunk (0: the opening), and the entry's bytes
            from the chunk on. For `number == chunks`: the last folded entry and no bytes.
            None: the bytes are trimmed, or are not encoded again yet.
        """
        assert self.dialect.is_numbered and 0 <= number <= self.chunks
        seq = bisect.bisect_right(self._given, number)
        if seq == len(self._given):
            return self.count, b""
        rest = self.slice(seq - 1, 1)[0] if seq else self.opening
        if not rest:
            return None
        for _ in range(number - (self._given[seq - 1] if seq else 0)):
            rest = self.dialect.after_frame(rest)
        return seq, rest
