"""Who has something to write, in turn, without holding the loop.

A sink writes by itself, one slice in each turn. A row, in which all are given the same, only says
what it has to write, and what rows have leaves together: a system call throws what Python needs out
of the processor's caches, so that making everything first and writing it then is a fifth cheaper.

Invariant: each sink and each row stands in line at most once, one `run` takes at most about
`slice_s` of loop time, and what has more to write goes to the back: nobody's long catch-up delays
another's next token by more than one slice per reader. What arrives while the loop is busy leaves
together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sized
from typing import Any, Protocol

SLICE_S = 0.0015
WRITES_PER_TURN = 64  # at about 6 µs each; a row may bring more than one

Write = Callable[[bytes], None]
Broadcast = tuple[tuple[Write, ...], bytes]  # what all of these are to be given


class Sink(Protocol):
    """Something that bytes are written to; its `send` may block, its `pump` never does."""

    is_queued: bool

    def pump(self, now: float) -> bool:
        """Write what is due at loop time `now`; True when there is more that could be written."""
        ...


class Broadcaster(Protocol):
    """Something that says what is to be written, and to whom."""

    is_queued: bool

    @property
    def members(self) -> Sized: ...

    def take(self, now: float, due: list[Broadcast]) -> bool:
        """Add what is due at loop time `now` to `due`, as written; True: there is more."""
        ...


class Pump:
    """The lines of sinks and of rows.

    Args:
        clock: loop time, s.
        call_soon: runs a callback in the loop's next iteration.
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
        """Let `sink` write in its turn."""
        if not sink.is_queued:
            sink.is_queued = True
            self._sinks.append(sink)
            self._schedule()

    def wake_row(self, row: Broadcaster) -> None:
        """Let what `row` has to say be written in its turn."""
        if not row.is_queued:
            row.is_queued = True
            self._rows.append(row)
            self._schedule()

    def run(self) -> None:
        """Write for one slice of loop time, and come back if anybody is left."""
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
            if row.take(now, due):
                self.wake_row(row)
        for writes, data in due:
            for write in writes:
                try:
                    write(data)
                except Exception:  # what a server raises of one connection is its own affair
                    continue  # it is gone, and its reader will be told; until then it has its place

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self.run)
