"""The newest rare events of one process with their generations, for the console. Pure.

A process counts each event in a counter of its own. Here only the newest ones are kept, so that an
operator finds the generations of an event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

KEPT = 20  # of one process


class Happening(NamedTuple):
    """An event: the name of its counter, and the generation."""

    what: str
    generation_id: str


@dataclass(slots=True)
class Happenings:
    """The events of one process.

    Attributes:
        count: events since the process started, also those that are not kept any more.
    """

    count: int = 0
    _kept: deque[Happening] = field(default_factory=lambda: deque(maxlen=KEPT))

    def note(self, what: str, generation_id: str) -> None:
        """Note an event."""
        self.count += 1
        self._kept.append(Happening(what, generation_id))

    def newest(self) -> list[Happening]:
        """Return the events that are kept, the oldest first."""
        return list(self._kept)


def newer(kept: Sequence[Happening], count: int, count_before: int) -> Sequence[Happening]:
    """Return those of a report's events that have happened since an earlier report.

    Args:
        kept, count: of the later report.
        count_before: of the earlier report of the same process; 0: there is none.
    """
    new = min(len(kept), max(0, count - count_before))
    return kept[len(kept) - new :]
