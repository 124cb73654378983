"""One timer for all items that are due some seconds from now.

    slots:   tick 4003 ── {a, b}        an item due at time t is in slot ceil(t / tick_s)
             tick 4004 ── {c}           `pop_due` empties all slots up to the present tick
             tick 4063 ── {d, e}

The heartbeats of ten thousand readers cost one look-up per reader and interval, and no timer each.
Invariant: `pop_due` returns each item once, never early, and at most one tick late if it is called
once per tick. Remove an item that is no longer needed: the wheel keeps it alive until it is due.
Has no clock.
"""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class TimerWheel(Generic[T]):
    """Items by the tick in which they are due.

    Args:
        tick_s: length of a slot, s.
    """

    def __init__(self, tick_s: float) -> None:
        assert tick_s > 0
        self._tick_s = tick_s
        self._slots: dict[int, dict[T, None]] = {}
        self._slot_of: dict[T, int] = {}

    def put(self, item: T, at: float) -> None:
        """Make `item` due at time `at`, s; replaces an earlier time of the same item."""
        self.remove(item)
        slot = self._slot_of[item] = math.ceil(at / self._tick_s)
        self._slots.setdefault(slot, {})[item] = None

    def remove(self, item: Any) -> None:
        """Remove `item`; do nothing if the wheel does not have it."""
        slot = self._slot_of.pop(item, None)
        if slot is not None:
            items = self._slots[slot]
            del items[item]
            if not items:
                del self._slots[slot]

    def pop_due(self, now: float) -> list[T]:
        """Remove and return the items that are due at time `now`, s, earliest slot first."""
        tick = math.floor(now / self._tick_s)
        ready = sorted(slot for slot in self._slots if slot <= tick)
        items = [item for slot in ready for item in self._slots.pop(slot)]
        for item in items:
            del self._slot_of[item]
        return items

    def __len__(self) -> int:
        return len(self._slot_of)
