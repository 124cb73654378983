"""Counts who reads which generation on this node: readers that came and left, for the timelines.

Many readers, or one that polls, would be many moments. So changes of one generation are collected,
and told together: at first after a second, then less and less often. Pure; `Hub` calls `join` and
`leave`, its upkeep calls `tell` once a second.

Invariant: a generation that has ended gets no new readers here: reading old answers costs no write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PAUSE_S = 1.0  # between two tellings of one generation; doubles up to the maximum
PAUSE_MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class AudienceChange:
    """What changed in the readers of a generation on this node.

    Attributes:
        age_s: since the first of these changes.
        readers: how many remain.
    """

    generation_id: str
    joined: int
    left: int
    readers: int
    age_s: float


@dataclass(slots=True)
class _Seats:
    """The readers of one generation. Times are those of the hub's clock, s.

    Attributes:
        leaves_to_ignore: calls of `leave` that follow although their reader stays.
    """

    taken: int = 0
    leaves_to_ignore: int = 0
    joined: int = 0
    left: int = 0
    changed_at: float = 0.0
    told_at: float = float("-inf")
    pause_s: float = PAUSE_S
    is_over: bool = False  # the last reader has left after the end: nothing more will change

    def note(self, now: float) -> None:
        if not (self.joined or self.left):
            self.changed_at = now


class Audience:
    """The readers of a node.

    Args:
        clock: seconds.

    Attributes:
        listener: gets the changes; None: nothing is collected.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.listener: Callable[[AudienceChange], None] | None = None
        self._clock = clock
        self._seats: dict[str, _Seats] = {}

    def join(self, generation_id: str, *, has_ended: bool) -> None:
        """Note a reader that came."""
        if self.listener is None or has_ended:
            return
        seats = self._seats.setdefault(generation_id, _Seats())
        seats.note(self._clock())
        seats.taken += 1
        seats.joined += 1

    def stay(self, generation_id: str) -> None:
        """Note that a reader goes on although it is about to `leave` once."""
        if (seats := self._seats.get(generation_id)) is not None and seats.taken:
            seats.leaves_to_ignore += 1

    def leave(self, generation_id: str, *, has_ended: bool) -> None:
        """Note a reader that left.

        A reader that came after the end was not counted. If such a reader leaves while an earlier
        reader is still there, the earlier reader counts as gone from now on.
        """
        seats = self._seats.get(generation_id)
        if seats is not None and seats.leaves_to_ignore:
            seats.leaves_to_ignore -= 1
        elif seats is not None and seats.taken:
            seats.note(self._clock())
            seats.taken -= 1
            seats.left += 1
            seats.is_over = has_ended and not seats.taken

    def tell(self, *, is_last: bool = False) -> None:
        """Give the listener the changes that are due.

        Args:
            is_last: the node stops: all changes are due.
        """
        now = self._clock()
        for generation_id, seats in list(self._seats.items()):
            if not (is_last or seats.is_over) and now < seats.told_at + seats.pause_s:
                continue
            if self.listener is not None and (seats.joined or seats.left):
                change = AudienceChange(
                    generation_id, seats.joined, seats.left, seats.taken, now - seats.changed_at
                )
                self.listener(change)
                seats.joined = seats.left = 0
                if seats.told_at > float("-inf"):
                    seats.pause_s = min(2 * seats.pause_s, PAUSE_MAX_S)
                seats.told_at = now
            elif not seats.taken:
                del self._seats[generation_id]  # nothing to tell for one pause
