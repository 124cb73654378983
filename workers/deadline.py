"""The deadline of a generation, as the worker that holds it sees it.

Meta has the time at which the generation was created, by Redis's clock, and how long it may take.
So the deadline stays the same over all attempts. Redis's time at the begin follows from the lease
that `begin` has set, without another request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.log.events import Counts, End
from shared.log.records import Begun
from shared.queue.time_limits import deadline_passed
from workers.parts import WorkerParts


class Deadline:
    """The deadline of one attempt.

    Args:
        begun_s: when the attempt began, by the clock of `parts`.
    """

    def __init__(self, parts: WorkerParts, begun: Begun, begun_s: float) -> None:
        self._clock = parts.clock
        limit_ms = begun.fields.get(b"deadline")
        self._limit_s = None if limit_ms is None else int(limit_ms) / 1000
        begun_ms = begun.meta.lease_ms - parts.store.lease_ms
        self._created_s = begun_s - (begun_ms - begun.meta.created_at_ms) / 1000

    @contextmanager
    def watch(self, on_passed: Callable[[], None]) -> Iterator[None]:
        """Call `on_passed` when the deadline passes within the block."""
        if self._limit_s is None:
            yield
            return
        left_s = self._created_s + self._limit_s - self._clock()
        timer = asyncio.get_running_loop().call_later(max(0.0, left_s), on_passed)
        try:
            yield
        finally:
            timer.cancel()

    def end(self, usage: Counts | None) -> End:
        """Return the `end` of a generation whose deadline has passed."""
        assert self._limit_s is not None
        return deadline_passed(self._limit_s, usage)
