"""A generation's log in a dialect whose frames each depend on one entry alone.

Then nothing has to be folded in advance or kept: what is newest is made once for all who follow,
and who is behind is given runs of tokens as one (api/hub/runs.py), so that an answer of thousands
of tokens comes back to a telephone as one event. It is to the hub what an `EncodedLog` is.
Knows no clock, no transport and no reader.
"""

from __future__ import annotations

from api.dialects.fold import Dialect
from api.hub.encoded import SLICE_BYTES_MAX
from api.hub.feed import Feed
from api.hub.runs import Runs
from shared.outcomes import Meta

JOIN_FROM = 32  # entries behind; fewer are one small write, in the pieces that a page shows
FRAME_BYTES = 128  # what a frame may have around its text


class JoinedLog:
    """What all readers of one generation in one dialect share.

    Attributes:
        opening, over_at: as of an `EncodedLog`.
    """

    __slots__ = (
        "_epoch",
        "_feed",
        "_last",
        "_last_seq",
        "_runs",
        "_shared",
        "dialect",
        "fold",
        "opening",
    )
    over_at = -1  # it says something of every entry

    def __init__(self, feed: Feed, runs: Runs, dialect: Dialect, meta: Meta) -> None:
        self.dialect = dialect
        self.fold = dialect.new_fold(meta)
        self.opening = self.fold.opening()
        self._feed = feed
        self._runs = runs
        self._epoch = feed.epoch
        self._last, self._last_seq = b"", 0  # the newest entry's bytes, for all who follow
        self._shared: tuple[tuple[int, ...], bytes, int] = ((), b"", 0)

    @property
    def bytes_kept(self) -> int:
        return len(self._last)

    @property
    def count(self) -> int:
        """The entries that can be given out."""
        return self._feed.count

    @property
    def base(self) -> int:
        return self._feed.base

    def trim(self, seq: int) -> None:
        """Nothing is kept here that the feed has not."""

    def slice(self, seq: int, bytes_max: int = SLICE_BYTES_MAX) -> tuple[bytes, int]:
        """Return bytes after entry `seq`, and the seq of the last entry in them.

        At most `bytes_max`, but one entry at least, and cut at entries only. Empty with the same
        seq: nothing yet, or `lacks(seq)`. Readers at one place get the same object.
        """
        feed = self._feed
        newest = feed.ids.count
        if seq == newest - 1:
            if self._last_seq != newest or self._epoch != feed.epoch:
                self._last = self.fold.add(feed.ids.top, feed.raws[-1])
                self._last_seq, self._epoch = newest, feed.epoch
            return self._last, newest
        if seq >= newest or seq < feed.base:
            return b"", seq
        key = (feed.epoch, seq, newest, bytes_max)
        if self._shared[0] != key:
            self._shared = (key, *self._slice(seq, newest, bytes_max))
        return self._shared[1], self._shared[2]

    def _slice(self, seq: int, newest: int, bytes_max: int) -> tuple[bytes, int]:
        feed, add = self._feed, self.fold.add
        if newest - seq >= JOIN_FROM:
            self._runs.look()
        frames: list[bytes] = []
        size = 0
        while seq < newest:
            stop = newest if newest - seq >= JOIN_FROM else seq + 1
            room = max(1, bytes_max - size - FRAME_BYTES)
            raw, end = self._runs.piece(seq, stop=stop, bytes_max=room)
            frame = add(feed.ids.at(end), raw)
            if frames and size + len(frame) > bytes_max:
                break
            frames.append(frame)
            size, seq = size + len(frame), end
        return b"".join(frames), seq

    def lacks(self, seq: int) -> bool:
        """Whether the bytes after `seq` are made of entries that the feed has let go."""
        return seq < self._feed.base

    def backlog_bytes(self, seq: int) -> int:
        """Return about how many bytes follow entry `seq`."""
        feed = self._feed
        return sum(map(len, feed.raws[max(0, seq - feed.base) :]))
