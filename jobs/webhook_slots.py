"""Limits the running attempts of one process, by owner and by the chance of success. Pure.

A receiver that does not answer occupies a slot for a whole attempt. So one owner may have only a
part of the slots. Both of all slots and of an owner's slots, a part is reserved for attempts that
are more likely to succeed: first attempts, and first attempts at a host that has recently answered
this owner.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum

RUNNING_MAX = 48  # attempts of one process
OWNER_MAX = RUNNING_MAX // 4  # attempts of one owner in one process
RESULT_KNOWN_S = 3_600.0  # how long the result of an attempt is remembered
KNOWN_MAX = 10_000  # places whose last result is remembered; the oldest are forgotten first


class Hope(IntEnum):
    """The hope that an attempt succeeds. Higher levels may also use the slots of lower levels."""

    LITTLE = 0  # a repeat, or the last attempt at this place failed: at most half of the slots
    SOME = 1  # no known result: at most three quarters
    MUCH = 2  # the last attempt at this place succeeded: all


_SHARES = {Hope.LITTLE: 0.5, Hope.SOME: 0.75, Hope.MUCH: 1.0}


class WebhookSlots:
    """The slots of one process."""

    def __init__(self) -> None:
        # By level: the attempts of this level or a lower one, by owner.
        self._running: dict[Hope, Counter[str]] = {hope: Counter() for hope in Hope}

    def take(self, owner: str, hope: Hope) -> bool:
        """Take a slot; False: no slot is free for this owner and hope."""
        levels = [level for level in Hope if level >= hope]
        for level in levels:
            running, share = self._running[level], _SHARES[level]
            if running.total() >= RUNNING_MAX * share or running[owner] >= OWNER_MAX * share:
                return False
        for level in levels:
            self._running[level][owner] += 1
        return True

    def free(self, owner: str, hope: Hope) -> None:
        """Give back a slot that was taken with the same arguments."""
        for level in Hope:
            if level >= hope:
                counter = self._running[level]
                counter[owner] -= 1
                if not counter[owner]:
                    del counter[owner]


class Experience:
    """The result of the last attempt of this process at each place.

    A place is an owner and a host. Otherwise one owner could worsen the deliveries of another owner
    to the same host by failures.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Hope]] = {}

    def of(self, place: str, now_s: float) -> Hope:
        """Return the hope of a first attempt at a place."""
        until_s, hope = self._known.get(place, (0.0, Hope.SOME))
        return hope if until_s > now_s else Hope.SOME

    def note(self, place: str, now_s: float, *, is_well: bool) -> None:
        """Remember the result of an attempt."""
        self._known.pop(place, None)
        self._known[place] = (now_s + RESULT_KNOWN_S, Hope.MUCH if is_well else Hope.LITTLE)
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]
