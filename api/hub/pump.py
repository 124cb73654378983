"""Who has something to write, in turn, without holding the loop.

Invariant: each sink stands in the queue at most once, one `run` takes at most about `slice_s` of
loop time, and a sink with more to write goes to the back: nobody's long catch-up delays another's
next token by more than one slice per reader. What arrives while the loop is busy leaves together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

SLICE_S = 0.0015


class Sink(Protocol):
    """Something that bytes are written to; its `send` may block, its `pump` never does."""

    is_queued: bool

    def pump(self, now: float) -> bool:
        """Write what is due at loop time `now`; True when there is more that could be written."""
        ...


class Pump:
    """The queue of sinks.

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
        self._queue: deque[Sink] = deque()
        self._is_scheduled = False

    def wake(self, sink: Sink) -> None:
        """Let `sink` write in its turn."""
        if not sink.is_queued:
            sink.is_queued = True
            self._queue.append(sink)
            self._schedule()

    def run(self) -> None:
        """Write for one slice of loop time, and come back if anybody is left."""
        self._is_scheduled = False
        queue = self._queue
        now = self._clock()
        deadline = now + self._slice_s
        while queue and now < deadline:
            sink = queue.popleft()
            sink.is_queued = False
            if sink.pump(now):
                self.wake(sink)
            now = self._clock()
        if queue:
            self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self.run)
