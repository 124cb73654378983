"""Where one reader stands in a feed.

A client names a place by a cursor: the id of the last event that it has seen. The hub names a place
by `seq`, which is valid in one epoch of one feed (api/hub/feed.py). `Position` converts a cursor to
a `seq`, and does so again after each rewrite of the log:

                      ┌── the cursor's entry is in the feed ──▶ PLACED: read after `seq`
    cursor ──place()──┤
                      ├── not decided yet ────────────────────▶ WAITING: call `place` again later
                      └── the log cannot continue the cursor ─▶ RESET: send `reset`, then all
                                                                entries from the start

Not decided yet means: the feed is not read to its end, or the cursor is above the top of an
unfinished log. The second case lasts `CURSOR_WAIT_S` at most, because a worker may be restoring the
entry.

Invariant: a reader is placed only after the entry whose whole id is its cursor, or at the start.
Has no clock (callers pass the time), does no I/O.
Source: docs/protocol.md, the row "a cursor that the log cannot continue".
"""

from __future__ import annotations

import enum

from api.hub.feed import Feed
from api.hub.id_index import IdIndex
from shared.log.ids import START, EventId

CURSOR_WAIT_S = 2.0  # how long a cursor above the top waits for its entry to come back


class Placement(enum.Enum):
    """The result of `Position.place`."""

    PLACED = "placed"
    WAITING = "waiting"
    RESET = "reset"  # placed at the start; the caller has to send `reset` first


class Position:
    """The place of one reader.

    Args:
        cursor: id of the last event that the reader has seen; START: none.
        now: loop time, s.

    Attributes:
        cursor: as given; after a rewrite the id of the last entry that the reader was given.
        seq: the reader has been given the entries up to this one. Valid in `epoch` only, and stale
            while the reader follows in a row (api/hub/broadcast.py): then use the row's `seq`.
        epoch: the feed's epoch in which `seq` counts; -1: not placed.
        deadline: loop time, s, at which a cursor above the top is given up.
    """

    __slots__ = ("cursor", "deadline", "epoch", "seq")

    def __init__(self, cursor: EventId, now: float) -> None:
        self.cursor = cursor
        self.deadline = now + CURSOR_WAIT_S
        self.epoch = -1
        self.seq = 0

    def place(self, feed: Feed, now: float) -> Placement:
        """Find the place in `feed`. Call this before each use of `seq`.

        Args:
            now: loop time, s.
        """
        if self.epoch == feed.epoch:
            return Placement.PLACED
        if feed.ids.has(self.cursor):
            self.seq, self.epoch = self.cursor.seq, feed.epoch
            return Placement.PLACED
        # Only a feed that was read to its end proves that an entry is not in the log.
        if not feed.is_up_to_date:
            return Placement.WAITING
        is_beyond = self.cursor.seq > feed.count
        if is_beyond and not feed.is_ended and now < self.deadline:
            return Placement.WAITING
        self.cursor, self.seq, self.epoch = START, 0, feed.epoch
        return Placement.RESET

    def unplace(self, former: IdIndex, now: float) -> None:
        """Convert the place back to a cursor, because the feed was dropped.

        Args:
            former: the ids of the dropped epoch.
            now: loop time, s; the wait for a cursor above the top begins again.
        """
        if self.epoch >= 0:
            self.cursor = former.at(self.seq)
            self.epoch = -1
            self.deadline = now + CURSOR_WAIT_S
