"""The times of one attempt, for its log line and for the timeline of the generation.

The log line says when the generation was accepted, how long it waited, when the backend answered,
when the first token came, and how the attempt ended. The timeline gets the same as moments, while
they happen. Neither contains text of the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.log.events import End, Reasoning, Reset, Token, ToolCall
from shared.log.records import Begun
from shared.timeline.moment import Moment
from workers.backends import BackendItem
from workers.parts import WorkerParts

GAP_S = 2.0  # a longer silence between two pieces of an answer is a moment of its own
HANDED_OVER = "handed over"
GAPS_MAX = 20  # moments of this kind in one attempt


def _drop(moment: Moment, at_ms: int = 0) -> None:
    """Note nothing: the attempt has not begun."""


@dataclass(slots=True)
class AttemptTimeline:
    """The times of one attempt, in seconds after `began_s`.

    `began_s` and every `now_s` are readings of the same monotonic clock.

    Attributes:
        backend: the name of the backend that answers, for the moment `connected`.
        note: takes a moment of this attempt, and when it was by Redis's clock, ms; 0: now.
        released_ms: when the generation was given back, Redis's clock; 0: it was not.
        again_s: the pause before the next attempt; None: no pause was decided.
    """

    began_s: float
    backend: str = ""
    note: Callable[[Moment, int], None] = _drop
    connected_s: float | None = None
    first_token_s: float | None = None
    pieces: int = 0
    text_bytes: int = 0
    gaps: int = 0
    again_s: float | None = None
    released_ms: int = 0
    _last_s: float | None = None  # when the last piece of the answer came
    _has_reasoned: bool = False

    @classmethod
    def begin(cls, parts: WorkerParts, begun: Begun, backend: str) -> AttemptTimeline:
        """Return the timeline of an attempt that has begun just now, and note its begin."""
        fields, generation_id = begun.fields, begun.meta.generation_id
        worker, attempt = parts.worker, begun.start[0].attempt

        def note(moment: Moment, at_ms: int = 0) -> None:
            whole = msgspec.structs.replace(moment, worker=worker, attempt=attempt)
            parts.timeline.note(generation_id, whole, at_ms=at_ms)

        at_ms = begun.meta.held_since_ms
        note(Moment("begun", waited_s=int(fields.get(b"waited", 0)) / 1000), at_ms)
        if begun.start[0].seq > 1:
            # Empty after a release: the worker before has noted itself how its attempt ended.
            _, _, taken_from = fields.get(b"taken_from", b"").decode().partition(" ")
            note(Moment("takeover", taken_from=taken_from), at_ms)
        return cls(parts.clock(), backend, note)

    def note_connected(self, now_s: float) -> None:
        """Note that the backend has answered; only the first call counts."""
        if self.connected_s is None:
            self.connected_s = now_s - self.began_s
            self.note(Moment("connected", backend=self.backend), 0)

    def note_item(self, item: BackendItem, now_s: float) -> None:
        """Count one item of the answer, before it is joined with others."""
        if isinstance(item, Token):
            self._note_piece(now_s)
            self.pieces += 1
            self.text_bytes += len(item.text.encode())
            if self.first_token_s is None:
                self.first_token_s = now_s - self.began_s
                self.note(Moment("first_token"), 0)
        elif isinstance(item, Reasoning | ToolCall):
            self._note_piece(now_s)
            if not self._has_reasoned and isinstance(item, Reasoning):
                self._has_reasoned = True
                self.note(Moment("first_reasoning"), 0)
        elif isinstance(item, Reset):
            self.note(Moment("reset"), 0)

    def _note_piece(self, now_s: float) -> None:
        last_s, self._last_s = self._last_s, now_s
        if last_s is not None and now_s - last_s > GAP_S and self.gaps < GAPS_MAX:
            self.gaps += 1
            self.note(Moment("gap", seconds=_rounded(now_s - last_s)), 0)

    def note_left(self, ending: str, now_s: float, end: End | None) -> None:
        """Note how the attempt ended, and where the generation waits for the next attempt.

        Args:
            ending: as in the log line.
            end: what this attempt has written as the end; None: no end.
        """
        word, _, code = ending.partition(": ")
        if end is not None and end.error is not None and ending == end.error.code:
            word, code = end.status, ending
        seconds = _rounded(now_s - self.began_s)
        self.note(
            Moment("attempt_ended", ending=word, code=code, seconds=seconds, pieces=self.pieces),
            self.released_ms,
        )
        if self.again_s is not None:
            self.note(Moment("released", lane="later", again_s=self.again_s), self.released_ms)
        elif ending == HANDED_OVER:
            self.note(Moment("released", lane="resume"), self.released_ms)

    def log_fields(self, begun: Begun, lease_ms: int, now_s: float) -> dict[str, Any]:
        """Return the fields of the log line.

        Args:
            lease_ms: the length of a lease. The begin set the end of the lease to its own time
                plus this length, so the difference is when the attempt began by Redis's clock.
        """
        meta = begun.meta
        return {
            "generation_id": meta.generation_id,
            "attempt": begun.start[0].attempt,
            "failures": begun.failures,
            "accepted_at_ms": meta.created_at_ms,
            "queued_s": (meta.lease_ms - lease_ms - meta.created_at_ms) / 1000,
            "connected_s": _rounded(self.connected_s),
            "first_token_s": _rounded(self.first_token_s),
            "took_s": _rounded(now_s - self.began_s),
            "pieces": self.pieces,
            "text_bytes": self.text_bytes,
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
