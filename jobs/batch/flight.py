"""The lines of one batch in flight: which to ask, which are asked, which to ask again.

Invariant: a taken line is in the flight until its result is committed. Pure: the caller gives
statuses and the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.batches.lease import InFlightLine
from shared.log.records import ENDED, RESTORE_WITHIN_S
from shared.queue.accept import NewGeneration
from shared.queue.lanes import batch_slots_max
from shared.queue.presence import Presence

WINDOW_MIN, WINDOW_MAX = 8, 512  # lines of one batch in flight
FLIGHT_BYTES_MAX = 33_554_432  # of these lines, whose bodies Redis holds meanwhile
PAUSE_S_MIN, PAUSE_S_MAX = 0.005, 0.2  # between two status checks


@dataclass(slots=True)
class FlightLine:
    """One line in flight.

    Attributes:
        new: the prompt; None: accepted already, or the body must be read again first.
        is_asked: the prompt is accepted as a generation.
        is_repeat: an earlier holder may have asked it under the same id.
        is_done: its result is gathered but not committed.
        ask_at_s: ask it not before this time, monotonic seconds.
        absent_since_s: since when its generation is absent, monotonic seconds; 0: it is not.
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
        self.lines: dict[int, FlightLine] = {}

    def __len__(self) -> int:
        return len(self.lines)

    def add(self, item: FlightLine) -> None:
        """Add a taken line."""
        self.lines[item.at.line] = item

    def room(self, window: int) -> int:
        """Return how many more lines may be taken; lines with a result do not count."""
        open_items = self.open()
        held = sum(item.at.length for item in open_items)
        return max(0, window - len(open_items)) if held < FLIGHT_BYTES_MAX else 0

    def open(self) -> list[FlightLine]:
        """Return the lines without a result."""
        return [item for item in self.lines.values() if not item.is_done]

    def to_ask(self, now_s: float) -> list[FlightLine]:
        """Return the lines to ask now."""
        return [item for item in self.open() if not item.is_asked and item.ask_at_s <= now_s]

    def asked(self) -> list[FlightLine]:
        """Return the asked lines without a result."""
        return [item for item in self.open() if item.is_asked]

    def sort(
        self, items: Sequence[FlightLine], statuses: Sequence[str | None], now_s: float
    ) -> tuple[list[FlightLine], list[FlightLine]]:
        """Return the lines whose generation has ended, and those whose generation is lost."""
        ended, gone = [], []
        for item, status in zip(items, statuses, strict=True):
            if status is not None:
                item.absent_since_s = 0.0
            if status in ENDED:
                ended.append(item)
            elif status == "sealed" or self._is_lost(item, status, now_s):
                gone.append(item)
        return ended, gone

    def _is_lost(self, item: FlightLine, status: str | None, now_s: float) -> bool:
        """Whether the generation is absent for longer than a worker needs to restore it."""
        if status is not None:
            return False
        item.absent_since_s = item.absent_since_s or now_s
        return now_s - item.absent_since_s > RESTORE_WITHIN_S

    def leave(self, lines: Iterable[int]) -> list[str]:
        """Remove lines, and return the ids of their generations, without lines that have none."""
        left = [self.lines.pop(line) for line in lines if line in self.lines]
        return [item.generation_id for item in left if item.generation_id]


def window_of(presences: Sequence[Presence], now_ms: int, recent_ms: float) -> int:
    """Return how many lines of one batch may be in flight: twice the workers' slots for lines.

    Then a worker whose line ends finds another one waiting, and Redis holds few bodies.

    Args:
        recent_ms: older presences do not count.
    """
    slots = sum(
        batch_slots_max(presence.slots)
        for presence in presences
        if now_ms - presence.at_ms < recent_ms and not presence.draining
    )
    return min(max(2 * slots, WINDOW_MIN), WINDOW_MAX)


def pause_of(moved: int, flying: int) -> float:
    """Return the pause before the next status check, s, after `moved` of `flying` lines changed.

    A check reads the status of every line, so it should find many changes: the more lines changed,
    the shorter the pause. Lines in the queue keep the workers busy meanwhile.
    """
    share = min(1.0, 4 * moved / max(flying, 1))
    return max(PAUSE_S_MIN, PAUSE_S_MAX * (1 - share))
