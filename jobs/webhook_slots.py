"""The attempts under way in one process: how many, whose, and for whom places are kept free. Pure.

A receiver that does not answer holds a place for as long as an attempt lasts. So one owner has a
part of the places at most, and of these, and of all, a part is kept for attempts of which more is
to be hoped: first attempts, and first attempts at a host that has answered this owner lately.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum

RUNNING_MAX = 48  # attempts under way in one process
OWNER_MAX = RUNNING_MAX // 4
KNOWN_S = 3_600.0  # how long it is remembered how an attempt went
KNOWN_MAX = 10_000  # owners and hosts; the oldest are forgotten first


class Hope(IntEnum):
    """What an attempt may come to; each may have the places of those before it, too."""

    LITTLE = 0  # a repeat, or the last attempt there has failed: at most half of the places
    SOME = 1  # nothing is known: at most three quarters
    MUCH = 2  # the last attempt there has gone well: all


_SHARES = {Hope.LITTLE: 0.5, Hope.SOME: 0.75, Hope.MUCH: 1.0}


class Slots:
    """The places of one process."""

    def __init__(self) -> None:
        # By level: the attempts of which so much is to be hoped, or less.
        self._running: dict[Hope, Counter[str]] = {hope: Counter() for hope in Hope}

    def take(self, owner: str, hope: Hope) -> bool:
        """Take a place; False: none is free for this owner and hope."""
        levels = [level for level in Hope if level >= hope]
        for level in levels:
            running, share = self._running[level], _SHARES[level]
            if running.total() >= RUNNING_MAX * share or running[owner] >= OWNER_MAX * share:
                return False
        for level in levels:
            self._running[level][owner] += 1
        return True

    def free(self, owner: str, hope: Hope) -> None:
        """Give a place back that was taken with the same words."""
        for level in Hope:
            if level >= hope:
                counter = self._running[level]
                counter[owner] -= 1
                if not counter[owner]:
                    del counter[owner]


class Experience:
    """How this process's last attempt at each place went.

    A place is an owner and a host: one owner's failures say nothing of another's deliveries to the
    same host, or he could spoil them.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Hope]] = {}

    def of(self, place: str, now_s: float) -> Hope:
        """Return what to hope of a first attempt."""
        until_s, hope = self._known.get(place, (0.0, Hope.SOME))
        return hope if until_s > now_s else Hope.SOME

    def note(self, place: str, now_s: float, *, is_well: bool) -> None:
        """Remember how an attempt went."""
        self._known.pop(place, None)
        self._known[place] = (now_s + KNOWN_S, Hope.MUCH if is_well else Hope.LITTLE)
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]
