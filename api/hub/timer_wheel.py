"""One timer for everything that is due some seconds from now: a dictionary of second -> things.

Heartbeats of ten thousand readers cost one look per reader and interval, and no timer each. A thing
that is put in comes out once, at most one tick after its time, unless it is removed before. What
has ended should be, since it would live on until then with all that it holds. Knows no clock.
"""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Wheel(Generic[T]):
    """Things by the tick in which they are due.

    Args:
        tick_s: how late something may come out.
    """

    def __init__(self, tick_s: float) -> None:
        assert tick_s > 0
        self._tick_s = tick_s
        self._slots: dict[int, dict[T, None]] = {}
        self._places: dict[T, int] = {}  # in which slot each one is

    def put(self, thing: T, at: float) -> None:
        """Let `thing` come out of `due` once `at` has passed, and not before, if it is here."""
        self.remove(thing)
        slot = self._places[thing] = math.ceil(at / self._tick_s)
        self._slots.setdefault(slot, {})[thing] = None

    def remove(self, thing: Any) -> None:
        """Forget `thing`, if it is here."""
        slot = self._places.pop(thing, None)
        if slot is not None:
            things = self._slots[slot]
            del things[thing]
            if not things:
                del self._slots[slot]

    def due(self, now: float) -> list[T]:
        """Take out what is due."""
        tick = math.floor(now / self._tick_s)
        ready = sorted(slot for slot in self._slots if slot <= tick)
        things = [thing for slot in ready for thing in self._slots.pop(slot)]
        for thing in things:
            del self._places[thing]
        return things

    def __len__(self) -> int:
        return len(self._places)
