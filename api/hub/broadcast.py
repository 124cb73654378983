"""The readers of one encoded log that have all of it so far: written to in rows.

A reader that is behind reads by itself (api/readers/http_reader.py); once it has caught up it
follows, and from then on costs one `write` for each broadcast and no call of ours. A row is what is
written to in one go (api/hub/pump.py), small enough not to hold the loop.

Invariants: all members of a row have read up to the row's `seq`; a follower is in one row at most,
and leaves it with that place the moment its connection takes no more, the log is rewritten, ends,
is over for its dialect, or is given last words. The bytes of a broadcast are one object for all.

With many readers a broadcast is work, so broadcasts of one log keep a distance that grows with
their number (`window_s`): tokens that arrive meanwhile leave together. What comes after a pause
leaves at once, and so do the beginning and the end of an answer. Knows no transport but `write`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from api.hub.contracts import Counters
from api.hub.encoded import EncodedLog
from api.hub.feed import Feed, FeedState
from api.hub.pump import Broadcast, Write

ROW_MAX = 128  # at about 5 µs a write
WINDOW_READERS_MIN = 32  # fewer are written to at once, always
WINDOW_PER_READER_S = 30e-6  # six times what writing to one costs
WINDOW_S_MAX = 0.03
AT_ONCE_ENTRIES = 8  # the beginning of an answer waits for no window


class Follower(Protocol):
    """A reader that has caught up."""

    write: Write
    row: Row | None

    def step_out(self, seq: int, sent_at: float) -> None:
        """Read by yourself again: you have all up to `seq`, and were last written to then."""
        ...


class Host(Protocol):
    """What an audience needs of its hub."""

    counters: Counters

    def now(self) -> float: ...

    def wake_row(self, row: Row) -> None: ...

    def call_at(self, at: float, callback: Callable[[], None]) -> Any: ...


class Row:
    """Followers that are written to in one go."""

    __slots__ = ("_audience", "_writes", "is_queued", "members", "sent_at", "seq")

    def __init__(self, audience: BroadcastGroup, seq: int, now: float) -> None:
        self.seq = seq
        self.sent_at = now
        self.members: dict[Follower, None] = {}
        self.is_queued = False
        self._audience = audience
        self._writes: tuple[Write, ...] | None = ()

    def add(self, follower: Follower) -> None:
        self.members[follower] = None
        self._audience.count += 1
        self._writes = None
        follower.row = self

    def remove(self, follower: Follower) -> None:
        """Let a member go; it is told its place."""
        del self.members[follower]
        self._audience.count -= 1
        self._writes = None
        follower.row = None
        if not self.members:
            self._audience.rows.remove(self)
        follower.step_out(self.seq, self.sent_at)

    def take(self, now: float, due: list[Broadcast]) -> bool:
        """Add what is new to all members to `due`, as written; True: there is more."""
        audience, start = self._audience, self.seq
        data, seq = audience.broadcast_after(start)
        if seq == start:
            return False
        writes = self._writes
        if writes is None:
            writes = self._writes = tuple([follower.write for follower in self.members])
        # From here on it is theirs: who is stopped by one of the writes has been given it.
        self.seq, self.sent_at = seq, now
        if data:  # a dialect may have nothing to say of an entry
            due.append((writes, data))
        counters = audience.counters
        counters.events_delivered += (seq - start) * len(writes)
        counters.bytes_delivered += len(data) * len(writes)
        return audience.has_more(self)


class BroadcastGroup:
    """All rows of one log in one dialect.

    Args:
        is_chunked: the bytes go into HTTP bodies: chunks (RFC 9112, 7.1).
    """

    __slots__ = (
        "_chunk",
        "_feed",
        "_framed",
        "_host",
        "_is_chunked",
        "_log",
        "_next_at",
        "_timer",
        "_wake",
        "count",
        "counters",
        "rows",
    )

    def __init__(self, log: EncodedLog, feed: Feed, host: Host, *, is_chunked: bool) -> None:
        self.rows: list[Row] = []
        self.count = 0  # of all who follow
        self._log = log
        self._feed = feed
        self._host = host
        self._wake = host.wake_row
        self.counters = host.counters
        self._is_chunked = is_chunked
        self._chunk = self._framed = b""  # the last broadcast, without and with its frame
        self._next_at = 0.0
        self._timer: Any = None

    def admit(self, follower: Follower, seq: int, now: float) -> None:
        """Let a reader that has all up to `seq` follow."""
        row = next(
            (row for row in self.rows if row.seq == seq and len(row.members) < ROW_MAX), None
        )
        if row is None:
            row = Row(self, seq, now)
            self.rows.append(row)
        row.add(follower)

    def changed(self) -> None:
        """There may be something new: write it at once, or when the window is over."""
        if self.count >= WINDOW_READERS_MIN and not self._is_urgent:
            if self._timer is not None:
                return
            now = self._host.now()
            if now < self._next_at:
                self._timer = self._host.call_at(self._next_at, self._window_over)
                return
            self._next_at = now + self.window_s
        for row in self.rows:
            self._wake(row)

    @property
    def window_s(self) -> float:
        """The least distance of two broadcasts, s."""
        if self.count < WINDOW_READERS_MIN:
            return 0.0
        return min(WINDOW_S_MAX, self.count * WINDOW_PER_READER_S)

    @property
    def _is_urgent(self) -> bool:
        return self._feed.is_ended or self._feed.count <= AT_ONCE_ENTRIES

    def _window_over(self) -> None:
        self._timer = None
        self._next_at = self._host.now() + self.window_s
        for row in self.rows:
            self._wake(row)

    def broadcast_after(self, seq: int) -> tuple[bytes, int]:
        """Return the bytes after entry `seq` as they go out, and the seq of the last one."""
        chunk, last = self._log.slice(seq)
        if not self._is_chunked or not chunk:
            return chunk, last
        if self._chunk is not chunk:  # rows at one place are given the same object
            self._chunk, self._framed = chunk, b"%x\r\n%b\r\n" % (len(chunk), chunk)
        return self._framed, last

    def has_more(self, row: Row) -> bool:
        """Whether a row that was written to is behind still. After the end everybody steps out."""
        feed, seq = self._feed, row.seq
        is_behind = seq < feed.ids.count
        if seq == self._log.over_at or (feed.state is FeedState.ENDED and not is_behind):
            self._disband(row)
            return False
        return is_behind

    def disband(self) -> None:
        """Everybody reads by himself again, from his place in the log as it is now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for row in list(self.rows):
            self._disband(row)

    def _disband(self, row: Row) -> None:
        for follower in list(row.members):
            row.remove(follower)

    @property
    def seq_min(self) -> int | None:
        """The place of who is furthest back; None: nobody is here."""
        return min((row.seq for row in self.rows), default=None)
