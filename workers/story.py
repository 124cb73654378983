"""The moments of one attempt, noted for the timeline of its generation while they happen.

Noting costs an append to a list; shared/timeline/writer.py writes the moments in the background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from shared.log.events import End
from shared.log.records import Begun
from shared.timeline.moment import Moment
from workers.parts import WorkerParts

GAP_S = 2.0  # a longer silence between two pieces of an answer is a moment of its own
GAPS_MAX = 20  # moments of this kind in one attempt
HANDED_OVER = "handed over"
LEASE_RAN_OUT = "lease ran out"


def _drop(moment: Moment, at_ms: int) -> None:
    """Note nothing: the attempt has not begun."""


@dataclass(slots=True)
class AttemptStory:
    """The moments of one attempt.

    Attributes:
        note: takes a moment of this attempt, and when it was by Redis's clock, ms; 0: now.
        released_ms: when the generation was given back, Redis's clock; 0: it was not.
        again_s: the pause before the next attempt; None: no pause was decided.
    """

    note: Callable[[Moment, int], None] = _drop
    released_ms: int = 0
    again_s: float | None = None
    _gaps: int = 0
    _has_reasoned: bool = False

    @classmethod
    def of(cls, begun: Begun, parts: WorkerParts) -> AttemptStory:
        """Return the story of an attempt that begins now, with its first moments noted."""
        fields, generation_id = begun.fields, begun.meta.generation_id
        worker, attempt = parts.worker, begun.start[0].attempt

        def note(moment: Moment, at_ms: int) -> None:
            whole = msgspec.structs.replace(moment, worker=worker, attempt=attempt)
            parts.timeline.note(generation_id, whole, at_ms=at_ms)

        if not parts.timeline.is_on:
            return cls()
        at_ms = begun.meta.held_since_ms
        # Empty after a release: the worker before has noted itself how its attempt ended.
        before, _, taken_from = fields.get(b"taken_from", b"").decode().partition(" ")
        if taken_from:
            lost = Moment(
                "attempt_ended", worker=taken_from, attempt=int(before), ending=LEASE_RAN_OUT
            )
            parts.timeline.note(generation_id, lost, at_ms=at_ms)
        note(Moment("begun", waited_s=int(fields.get(b"waited", 0)) / 1000), at_ms)
        if begun.meta.begins > 1:
            note(Moment("takeover", taken_from=taken_from), at_ms)
        return cls(note)

    def connected(self, backend: str) -> None:
        """Note that a backend has answered."""
        self.note(Moment("connected", backend=backend), 0)

    def reasoned(self) -> None:
        """Note a piece of reasoning; only the first one counts."""
        if not self._has_reasoned:
            self._has_reasoned = True
            self.note(Moment("first_reasoning"), 0)

    def paused(self, seconds: float) -> None:
        """Note a silence of more than `GAP_S`; only the first `GAPS_MAX` count."""
        if self._gaps < GAPS_MAX:
            self._gaps += 1
            self.note(Moment("gap", seconds=round(seconds, 3)), 0)

    def left(self, ending: str, code: str, seconds: float, pieces: int) -> None:
        """Note how the attempt ended, and where the generation waits for the next attempt."""
        moment = Moment(
            "attempt_ended", ending=ending, code=code, seconds=round(seconds, 3), pieces=pieces
        )
        self.note(moment, self.released_ms)
        if self.again_s is not None:
            self.note(Moment("released", lane="later", again_s=self.again_s), self.released_ms)
        elif ending == HANDED_OVER:
            self.note(Moment("released", lane="resume"), self.released_ms)


def split_ending(ending: str, end: End | None) -> tuple[str, str]:
    """Return how an attempt ended, and the code of its error if there is one.

    Args:
        ending: as in the log line `generation left`.
        end: what the attempt has written as the end; None: no end.
    """
    if end is not None and end.error is not None and ending == end.error.code:
        return end.status, ending
    word, _, code = ending.partition(": ")
    return word, code
