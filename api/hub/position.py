"""Where one reader stands in a copy: placed after an entry, or waiting for one to appear.

A cursor is an id; a place is a seq in the copy of one epoch. This module turns the first into the
second, again after each rewrite, and decides when a cursor cannot be continued: `reset`, and
everything from the start. Invariant: a reader is placed only after the very entry it has seen.
Knows no clock (it is given the time), does no I/O.
Source: docs/protocol.md, the row "a cursor that the log cannot continue".
"""

from __future__ import annotations

import enum

from api.hub.feed import Feed, IdIndex
from shared.log.ids import START, EventId

WAIT_S = 2.0  # for an entry above the top to come back, before the reset


class Placing(enum.Enum):
    PLACED = "placed"
    WAITING = "waiting"
    RESET = "reset"  # placed at the start; the reader has to be told


class Position:
    """One reader's place.

    Args:
        cursor: the last id that the reader has seen.
        now: loop time, s.
    """

    __slots__ = ("cursor", "deadline", "epoch", "seq")

    def __init__(self, cursor: EventId, now: float) -> None:
        self.cursor = cursor
        self.deadline = now + WAIT_S
        self.epoch = -1  # not placed yet
        self.seq = 0  # the entries up to this one have been handed out

    def place(self, feed: Feed, now: float) -> Placing:
        """Find the place in `feed`; to be asked before each use."""
        if self.epoch == feed.epoch:
            return Placing.PLACED
        if feed.ids.has(self.cursor):
            self.seq, self.epoch = self.cursor.seq, feed.epoch
            return Placing.PLACED
        # Only a copy that was read to its end can say that an entry is not in the log.
        if not feed.is_whole:
            return Placing.WAITING
        is_beyond = self.cursor.seq > feed.count
        if is_beyond and not feed.is_ended and now < self.deadline:
            return Placing.WAITING
        self.cursor, self.seq, self.epoch = START, 0, feed.epoch
        return Placing.RESET

    def leave(self, former: IdIndex, now: float) -> None:
        """The copy that this place was in is gone: back to what the reader has seen, by id."""
        if self.epoch >= 0:
            self.cursor = former.at(self.seq)
            self.epoch = -1
            self.deadline = now + WAIT_S
