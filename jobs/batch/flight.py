"""What is in flight of one batch, as its holder sees it: who is asked, who is to be asked again.

A line that was taken is here until its result is committed, and nowhere else. Pure: is given
answers and the time, and says what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.batches.lease import InFlightLine
from shared.log.records import ENDED
from shared.queue.accept import NewGeneration
from shared.queue.lanes import Presence, batch_slots_max

WINDOW_MIN, WINDOW_MAX = 8, 512
FLIGHT_BYTES_MAX = 33_554_432  # of lines, whose bodies Redis holds as long as they are here
PAUSE_S_MIN, PAUSE_S_MAX = 0.005, 0.2
ABSENT_S = 10.0  # a generation that is not there for so long is lost


@dataclass(slots=True)
class Aloft:
    """One line.

    Attributes:
        new: what is to be asked; None: it was, or its body must be read again first.
        is_repeat: somebody may have asked it before, under the same id.
        is_done: its result is gathered, and not committed yet.
        ask_at_s: not before this, monotonic.
        absent_since_s: 0, or since when there is no such generation.
    """

    at: InFlightLine
    custom_id: str
    generation_id: str
    new: NewGeneration | None = None
    is_asked: bool = False
    is_repeat: bool = False
    is_done: bool = False
    ask_at_s: float = 0.0
    absent_since_s: float = 0.0


class Flight:
    """The lines in flight, by number."""

    def __init__(self) -> None:
        self.lines: dict[int, Aloft] = {}

    def __len__(self) -> int:
        return len(self.lines)

    def add(self, one: Aloft) -> None:
        self.lines[one.at.line] = one

    def room(self, window: int) -> int:
        """How many lines more may be taken; those that are done take no room."""
        open_ones = self.open()
        held = sum(one.at.length for one in open_ones)
        return max(0, window - len(open_ones)) if held < FLIGHT_BYTES_MAX else 0

    def open(self) -> list[Aloft]:
        """Return those that have no result yet."""
        return [one for one in self.lines.values() if not one.is_done]

    def to_ask(self, now_s: float) -> list[Aloft]:
        return [one for one in self.open() if not one.is_asked and one.ask_at_s <= now_s]

    def asked(self) -> list[Aloft]:
        return [one for one in self.open() if one.is_asked]

    def sort(
        self, ones: Sequence[Aloft], statuses: Sequence[str | None], now_s: float
    ) -> tuple[list[Aloft], list[Aloft]]:
        """Return those that have ended, and those that are gone for good."""
        ended, gone = [], []
        for one, status in zip(ones, statuses, strict=True):
            if status is not None:
                one.absent_since_s = 0.0
            if status in ENDED:
                ended.append(one)
            elif status == "sealed" or self._is_lost(one, status, now_s):
                gone.append(one)
        return ended, gone

    def _is_lost(self, one: Aloft, status: str | None, now_s: float) -> bool:
        """A worker that lives writes again what Redis has lost, so it is waited for."""
        if status is not None:
            return False
        one.absent_since_s = one.absent_since_s or now_s
        return now_s - one.absent_since_s > ABSENT_S

    def leave(self, lines: Iterable[int]) -> list[str]:
        """Take lines out; returns the ids of their generations, where they had one."""
        left = [self.lines.pop(line) for line in lines if line in self.lines]
        return [one.generation_id for one in left if one.generation_id]


def window_of(presences: Sequence[Presence], now_ms: int, recent_ms: float) -> int:
    """How many lines of one batch may be in flight: twice what the workers run of them at once.

    So a worker whose line ends finds the next one waiting, and Redis holds little.
    """
    slots = sum(
        batch_slots_max(presence.slots)
        for presence in presences
        if now_ms - presence.at_ms < recent_ms and not presence.draining
    )
    return min(max(2 * slots, WINDOW_MIN), WINDOW_MAX)


def pause_of(moved: int, flying: int) -> float:
    """How long to wait before the next look, s, after one that found `moved` of `flying` changed.

    Each look asks after all of them, so it should find a good share: the more have moved, the
    sooner it comes. What is waiting in the queue keeps the workers busy meanwhile.
    """
    share = min(1.0, 4 * moved / max(flying, 1))
    return max(PAUSE_S_MIN, PAUSE_S_MAX * (1 - share))
