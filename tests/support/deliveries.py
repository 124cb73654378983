"""The records of a reader: the connections that it opened, and the events that it got.

Plain data and the two folds over it, the text and the cursor. Pure. Does not import the system
under test: it reads the wire's own words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection was made to read from `cursor` on."""

    node: str
    transport: str
    cursor: str
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event as it came over the wire; `fields` without `id` and `type`."""

    event_id: str
    type: str
    fields: dict[str, Any]
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Closed:
    """A connection is over: how is `clean`, `broken`, `status NNN`, `code NNNN` or `refused`."""

    how: str
    at: float = 0.0


Step = Opened | Delivery | Closed


@dataclass(slots=True)
class Reading:
    """All that one reader saw of one generation, over as many connections as it took.

    Waits ask for `end` and `count` again and again, so both look only at the steps that are new.
    """

    reader: str
    steps: list[Step] = field(default_factory=list)
    _end: Delivery | None = field(default=None, init=False, repr=False, compare=False)
    _count: int = field(default=0, init=False, repr=False, compare=False)
    _searched: int = field(default=0, init=False, repr=False, compare=False)

    @property
    def deliveries(self) -> list[Delivery]:
        return [step for step in self.steps if isinstance(step, Delivery)]

    @property
    def cursor(self) -> str:
        """What a careful reader sends when it comes back; empty: it has seen nothing."""
        last = next((s for s in reversed(self.steps) if isinstance(s, Delivery)), None)
        return "" if last is None or last.event_id == "0-0" else last.event_id

    @property
    def end(self) -> Delivery | None:
        """The first `end`."""
        self._search()
        return self._end

    @property
    def count(self) -> int:
        """How many events came."""
        self._search()
        return self._count

    def _search(self) -> None:
        """Look at the steps that were added since the last search; none is ever taken away."""
        for step in self.steps[self._searched :]:
            self._searched += 1
            if isinstance(step, Delivery):
                self._count += 1
                if self._end is None and step.type == "end":
                    self._end = step

    @property
    def text(self) -> str:
        return fold_text(self.deliveries)

    @property
    def resets(self) -> int:
        return sum(d.type == "reset" for d in self.deliveries)

    def longest_gap_s(self, after: float = 0.0) -> float:
        """Longest time without an event, from `after` on, between two deliveries."""
        times = [d.at for d in self.deliveries if d.at >= after]
        return max((b - a for a, b in zip(times, times[1:], strict=False)), default=0.0)


@dataclass(slots=True)
class Record:
    """The readings of one generation, and the text that the test expects."""

    generation_id: str
    accepted_at: float = 0.0
    expected_text: str | None = None
    readings: list[Reading] = field(default_factory=list)
    log: list[Delivery] | None = None
    snapshot: dict[str, Any] | None = None


def read_log(entries: Sequence[tuple[bytes, bytes]]) -> list[Delivery]:
    """Decode a dump of a log: (entry id, the event's JSON)."""
    deliveries = []
    for entry_id, raw in entries:
        fields = json.loads(raw)
        deliveries.append(Delivery(entry_id.decode(), fields.pop("type"), fields))
    return deliveries


def fold_text(deliveries: Sequence[Delivery]) -> str:
    """The answer: the texts since the last reset, joined."""
    pieces: list[str] = []
    for delivery in deliveries:
        if delivery.type == "reset":
            pieces.clear()
        elif delivery.type == "token":
            pieces.append(delivery.fields.get("text", ""))
    return "".join(pieces)


def parse_id(event_id: str) -> tuple[int, int]:
    """Read `attempt-seq`; strict, as the protocol has it.

    Raises:
        ValueError: not two canonical decimal numbers.
    """
    attempt, dash, seq = event_id.partition("-")
    if not dash or not (
        attempt.isascii() and attempt.isdigit() and seq.isascii() and seq.isdigit()
    ):
        raise ValueError(event_id)
    if f"{int(attempt)}-{int(seq)}" != event_id or (int(attempt) == 0) != (int(seq) == 0):
        raise ValueError(event_id)
    return int(attempt), int(seq)
