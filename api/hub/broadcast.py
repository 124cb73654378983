"""Writes each new event once to all readers of one encoded log that have caught up.

A reader that is behind reads by itself (api/readers/http_reader.py). Once it has all of the log so
far, `admit` makes it a follower in a row. From then on a broadcast costs one `write` per follower
and no other call.

    BroadcastGroup          one log in one dialect
      ├─ FollowerRow, seq 41        up to ROW_MAX followers, all of which have the entries up to 41
      ├─ FollowerRow, seq 41        small rows, so that writing to one does not hold the event loop
      └─ FollowerRow, seq 38        has not had its turn since entry 39

    reading by itself ──admit()──▶ following in a row ──step_out(seq)──▶ reading by itself

A follower leaves its row when its connection takes no more bytes, its reading ends, the log was
rewritten, ended, or is over for the dialect, or the relay ends all readers with an event that is
not in the log.

Invariants: all followers of a row have been given exactly the entries up to the row's `seq`. A
follower is in one row at most and leaves it with the row's `seq`. The bytes of a broadcast are one
object for all followers.

With many followers a broadcast takes time. So broadcasts of one log keep a distance that grows with
the number of followers (`window_s`), and the events that arrive meanwhile leave together. The first
entries of an answer, its end, and the first event after a pause leave at once.
Knows nothing of a transport except `write`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from api.hub.contracts import HubCounters
from api.hub.feed import Feed, FeedState
from api.hub.pump import Broadcast, Write

ROW_MAX = 128  # followers of one row; a write takes about 5 µs
WINDOW_READERS_MIN = 32  # with fewer followers each broadcast leaves at once
WINDOW_PER_READER_S = 30e-6  # six times the cost of a write to one follower
WINDOW_S_MAX = 0.03
AT_ONCE_ENTRIES = 8  # the first entries of an answer leave at once


class Follower(Protocol):
    """A reader that has caught up.

    Attributes:
        write: takes all bytes at once and never waits.
        row: the row that the follower is in; None: it reads by itself.
    """

    write: Write
    row: FollowerRow | None

    def step_out(self, seq: int, sent_at: float) -> None:
        """Read alone again.

        Args:
            seq: the follower has been given the entries up to this one.
            sent_at: loop time of the last write, s.
        """
        ...


class SlicedLog(Protocol):
    """A log whose bytes a group writes: an encoded log, or a compressed one."""

    @property
    def count(self) -> int:
        """The number of folded entries. It falls when trimmed bytes are made again."""
        ...

    @property
    def over_at(self) -> int:
        """`seq` of the entry after which the log has no more bytes; -1: there is none so far."""
        ...

    def slice(self, seq: int) -> tuple[bytes, int]:
        """Return the bytes after entry `seq`, and the `seq` of the last entry in them."""
        ...


class BroadcastHost(Protocol):
    """The part of a hub that a broadcast group uses."""

    counters: HubCounters

    def now(self) -> float:
        """Return loop time, s."""
        ...

    def wake_row(self, row: FollowerRow) -> None:
        """Give `row` a turn soon."""
        ...

    def call_at(self, at: float, callback: Callable[[], None]) -> Any:
        """Call `callback` at loop time `at`, s; the result has `cancel()`."""
        ...


class FollowerRow:
    """Followers that are written to in one turn.

    Attributes:
        seq: all followers have been given the entries up to this one.
        sent_at: loop time of the last write, s.
        members: the followers, in the order in which they joined.
        is_queued: the pump will give the row a turn.
    """

    __slots__ = ("_group", "_writes", "is_queued", "members", "sent_at", "seq")

    def __init__(self, group: BroadcastGroup, seq: int, now: float) -> None:
        self.seq = seq
        self.sent_at = now
        self.members: dict[Follower, None] = {}
        self.is_queued = False
        self._group = group
        self._writes: tuple[Write, ...] | None = ()  # of all members; None: outdated

    def add(self, follower: Follower) -> None:
        """Add a follower that has exactly the entries up to `seq`."""
        self.members[follower] = None
        self._group.count += 1
        self._writes = None
        follower.row = self

    def remove(self, follower: Follower) -> None:
        """Remove a follower and pass its place to its `step_out`."""
        del self.members[follower]
        self._group.count -= 1
        self._writes = None
        follower.row = None
        if not self.members:
            self._group.rows.remove(self)
        follower.step_out(self.seq, self.sent_at)

    def take(self, now: float, due: list[Broadcast]) -> bool:
        """Append the next broadcast to `due`, and count it as written; True: there is more."""
        if not self.members:
            return False  # the last one left while the row was queued
        group, start = self._group, self.seq
        data, seq = group.broadcast_after(start)
        if seq == start:
            return group.is_folding
        writes = self._writes
        if writes is None:
            writes = self._writes = tuple([follower.write for follower in self.members])
        # Set before the writes: a follower that one of the writes removes has been given the data.
        self.seq, self.sent_at = seq, now
        if data:  # empty: the dialect writes nothing for these entries
            due.append((writes, data))
        counters = group.counters
        counters.events_delivered += (seq - start) * len(writes)
        counters.bytes_delivered += len(data) * len(writes)
        return group.has_more(self)


class BroadcastGroup:
    """All rows of one log in one dialect.

    Args:
        is_chunked: the bytes go into HTTP bodies, as chunks (RFC 9112, 7.1).

    Attributes:
        rows: rows with at least one follower.
        count: followers in all rows.
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

    def __init__(
        self, log: SlicedLog, feed: Feed, host: BroadcastHost, *, is_chunked: bool
    ) -> None:
        self.rows: list[FollowerRow] = []
        self.count = 0
        self._log = log
        self._feed = feed
        self._host = host
        self._wake = host.wake_row
        self.counters = host.counters
        self._is_chunked = is_chunked
        self._chunk = self._framed = b""  # the last broadcast, without and with the chunk's frame
        self._next_at = 0.0  # loop time, s, at which the present window ends
        self._timer: Any = None  # runs if a broadcast waits for the end of the window

    def admit(self, follower: Follower, seq: int, now: float) -> None:
        """Put a reader that has exactly the entries up to `seq` into a row."""
        row = next(
            (row for row in self.rows if row.seq == seq and len(row.members) < ROW_MAX), None
        )
        if row is None:
            row = FollowerRow(self, seq, now)
            self.rows.append(row)
        row.add(follower)

    def note_change(self) -> None:
        """Give all rows a turn: now, or at the end of the window. Called when the feed changes."""
        if self.count >= WINDOW_READERS_MIN and not self._is_urgent:
            if self._timer is not None:
                return
            now = self._host.now()
            if now < self._next_at:
                self._timer = self._host.call_at(self._next_at, self._end_window)
                return
            self._next_at = now + self.window_s
        for row in self.rows:
            self._wake(row)

    @property
    def window_s(self) -> float:
        """The shortest time between two broadcasts, s."""
        if self.count < WINDOW_READERS_MIN:
            return 0.0
        return min(WINDOW_S_MAX, self.count * WINDOW_PER_READER_S)

    @property
    def _is_urgent(self) -> bool:
        return self._feed.is_ended or self._feed.count <= AT_ONCE_ENTRIES

    def _end_window(self) -> None:
        self._timer = None
        self._next_at = self._host.now() + self.window_s
        for row in self.rows:
            self._wake(row)

    def broadcast_after(self, seq: int) -> tuple[bytes, int]:
        """Return the bytes to write after entry `seq`, and the `seq` of the last entry in them."""
        chunk, last = self._log.slice(seq)
        if not self._is_chunked or not chunk:
            return chunk, last
        if self._chunk is not chunk:  # rows with the same `seq` get the same object
            self._chunk, self._framed = chunk, b"%x\r\n%b\r\n" % (len(chunk), chunk)
        return self._framed, last

    def has_more(self, row: FollowerRow) -> bool:
        """Whether `row` is still behind. At the end of the log all its followers step out."""
        feed, seq = self._feed, row.seq
        is_behind = seq < feed.ids.count
        if seq == self._log.over_at or (feed.state is FeedState.ENDED and not is_behind):
            self._dissolve(row)
            return False
        return is_behind

    @property
    def is_folding(self) -> bool:
        """Whether the next call of `broadcast_after` folds more entries.

        The log may be folded again from its start, for a reader that came late. The rows get no
        bytes until the fold has reached their place, so they take turns until then.
        """
        log, feed = self._log, self._feed
        return log.over_at < 0 and feed.base <= log.count < feed.ids.count

    def disband(self) -> None:
        """Remove all followers: each reads by itself again, and finds its place anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for row in list(self.rows):
            self._dissolve(row)

    def _dissolve(self, row: FollowerRow) -> None:
        for follower in list(row.members):
            row.remove(follower)

    @property
    def seq_min(self) -> int | None:
        """The `seq` of the row that is furthest behind; None: there are no followers."""
        return min((row.seq for row in self.rows), default=None)

    @property
    def needed_after(self) -> int | None:
        """The `seq` after which the rows, or the fold for them, need the entries; None: no rows."""
        seq = self.seq_min
        return None if seq is None else min(seq, self._log.count)
