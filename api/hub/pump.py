"""Gives sinks and rows their turns to write, without holding the event loop.

    wake(sink) ──▶ [sink, sink, …] ──popleft──▶ sink.pump(now): writes one slice of its own
    wake_row(row) ▶ [row, row, …] ──popleft──▶ row.take(now, due): adds what to write to `due`
                                                   │ up to about WRITES_PER_TURN writes
                                                   ▼
                                               all writes of `due`, one after the other

    A turn is one batch of rows, then one sink. A sink or row that has more to write goes to the
    back of its queue. After `slice_s` the pump stops and schedules its next run with `call_soon`.

Rows first collect their bytes, and the writes follow in one go: a system call evicts Python's data
from the processor's caches, so that this order is a fifth cheaper than alternating.

Invariants: each sink and each row is in its queue at most once. One run takes about `slice_s` of
loop time at most. So the long catch-up of one reader delays the next token of another reader by at
most one slice per reader. Events that arrive while the loop is busy leave together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sized
from typing import Any, Protocol

SLICE_S = 0.0015  # loop time of one run
WRITES_PER_TURN = 64  # about 6 µs each; the last row of a turn may bring more

Write = Callable[[bytes], None]
Broadcast = tuple[tuple[Write, ...], bytes]  # call each of the writes with the bytes


class Sink(Protocol):
    """An object that writes its own bytes, in its turn.

    Attributes:
        is_queued: the sink waits for a turn. Only the pump sets it.
    """

    is_queued: bool

    def pump(self, now: float) -> bool:
        """Write one slice and do not wait; True: there is more to write.

        Args:
            now: loop time, s.
        """
        ...


class Broadcaster(Protocol):
    """An object that says which bytes to write to which readers.

    `FollowerRow` in api/hub/broadcast.py is one.

    Attributes:
        is_queued: the broadcaster waits for a turn. Only the pump sets it.
        members: the readers; their number is the number of writes.
    """

    is_queued: bool

    @property
    def members(self) -> Sized: ...

    def take(self, now: float, due: list[Broadcast]) -> bool:
        """Append the next broadcast to `due`, and count it as written; True: there is more.

        Args:
            now: loop time, s.
        """
        ...


class Pump:
    """The queues of sinks and of rows.

    Args:
        clock: loop time, s.
        call_soon: runs a callback in the next iteration of the event loop.
        slice_s: loop time of one run, s.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], Any],
        *,
        slice_s: float = SLICE_S,
    ) -> None:
        self._clock = clock
        self._call_soon = call_soon
        self._slice_s = slice_s
        self._sinks: deque[Sink] = deque()
        self._rows: deque[Broadcaster] = deque()
        self._is_scheduled = False

    def wake(self, sink: Sink) -> None:
        """Give `sink` a turn; do nothing if it waits for one already."""
        if not sink.is_queued:
            sink.is_queued = True
            self._sinks.append(sink)
            self._schedule()

    def wake_row(self, row: Broadcaster) -> None:
        """Give `row` a turn; do nothing if it waits for one already."""
        if not row.is_queued:
            row.is_queued = True
            self._rows.append(row)
            self._schedule()

    def run(self) -> None:
        """Give turns for `slice_s`, and schedule another run if anything is left in a queue."""
        self._is_scheduled = False
        sinks, rows = self._sinks, self._rows
        now = self._clock()
        deadline = now + self._slice_s
        while (rows or sinks) and now < deadline:
            if rows:
                self._write_rows(now)
            if sinks:
                sink = sinks.popleft()
                sink.is_queued = False
                if sink.pump(now):
                    self.wake(sink)
            now = self._clock()
        if rows or sinks:
            self._schedule()

    def _write_rows(self, now: float) -> None:
        rows, room = self._rows, WRITES_PER_TURN
        due: list[Broadcast] = []
        while rows and room > 0:
            row = rows.popleft()
            row.is_queued = False
            room -= len(row.members)
            given = len(due)
            if row.take(now, due):
                self.wake_row(row)
                if len(due) == given:
                    break  # it has folded a slice of its log: a batch must not fold a whole log
        for writes, data in due:
            for write in writes:
                try:
                    write(data)
                except Exception:  # a server may raise anything for one connection
                    continue  # the server reports the loss to the reader, which then leaves its row

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self.run)
