"""The ids of all entries of a copy, in the memory of a few runs.

In a log `seq` has no gaps, and the attempt changes only when another worker takes over. So a run of
ids is its first `seq` and its attempt:

    ids         1-1  1-2  1-3  2-4  2-5        count = 5, attempt = 2
    _firsts      1              4
    _attempts    1              2

Invariant: ids rise strictly. Does no I/O.
"""

from __future__ import annotations

import bisect

from shared.log.ids import START, EventId

_new_id = tuple.__new__  # a NamedTuple's own constructor is a Python function: half as fast


class IdIndex:
    """The ids of one copy. The owner appends an id with `note_attempt`, and raises `count`.

    Attributes:
        count: number of entries, which is the `seq` of the last one.
        attempt: attempt of the last entry; 0: there is no entry.
    """

    __slots__ = ("_attempts", "_firsts", "attempt", "count")

    def __init__(self) -> None:
        self.count = 0
        self.attempt = 0
        self._firsts: list[int] = []
        self._attempts: list[int] = []

    def note_attempt(self, event_id: EventId) -> None:
        """Start a run if the next entry, `event_id`, has another attempt than the last one."""
        assert event_id.seq == self.count + 1
        if self.attempt != event_id.attempt:
            self.attempt = event_id.attempt
            self._firsts.append(event_id.seq)
            self._attempts.append(event_id.attempt)

    @property
    def top(self) -> EventId:
        """The id of the last entry; START: there is no entry."""
        return _new_id(EventId, (self.attempt, self.count))

    def at(self, seq: int) -> EventId:
        """Return the id of entry `seq`, 0 to `count`; START for 0."""
        if seq == 0:
            return START
        assert 1 <= seq <= self.count
        if seq >= self._firsts[-1]:
            return EventId(self.attempt, seq)
        return EventId(self._attempts[bisect.bisect_right(self._firsts, seq) - 1], seq)

    def has(self, event_id: EventId) -> bool:
        """Whether the copy has an entry with this whole id; always True for START."""
        return event_id.seq <= self.count and self.at(event_id.seq) == event_id

    @property
    def seq_before_jump(self) -> int:
        """The `seq` of the last entry before the first jump of attempts; without a jump, `count`.

        Attempts rise by one. The next attempt jumps if Redis may have lost entries: after a
        restart, a failover, a move of the slot to another server, or a known loss. So the entries
        before the first jump never had another text; the entries after it may have had one.
        """
        previous = 0
        for first, attempt in zip(self._firsts, self._attempts, strict=True):
            if attempt > previous + 1:
                return first - 1
            previous = attempt
        return self.count
