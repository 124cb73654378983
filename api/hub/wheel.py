"""One timer for everything that is due some seconds from now: a dictionary of second -> things.

Heartbeats of ten thousand readers cost one look per reader and interval, and no timer each. A thing
that is put in comes out once, at most one tick after its time. Knows no clock.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

T = TypeVar("T")


class Wheel(Generic[T]):
    """Things by the tick in which they are due.

    Args:
        tick_s: how late something may come out.
    """

    def __init__(self, tick_s: float) -> None:
        assert tick_s > 0
        self._tick_s = tick_s
        self._slots: dict[int, list[T]] = {}

    def put(self, thing: T, at: float) -> None:
        """Let `thing` come out of `due` once `at` has passed."""
        self._slots.setdefault(math.ceil(at / self._tick_s), []).append(thing)

    def due(self, now: float) -> list[T]:
        """Take out what is due."""
        tick = math.floor(now / self._tick_s)
        ready = [slot for slot in self._slots if slot <= tick]
        return [thing for slot in sorted(ready) for thing in self._slots.pop(slot)]

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))
