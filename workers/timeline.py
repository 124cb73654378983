"""The times of one attempt, for its log line.

The log line says when the generation was accepted, how long it waited, when the backend answered,
when the first token came, and how the attempt ended. It never contains text of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from shared.log.events import Token
from shared.log.records import Begun
from workers.figures import WorkerFigures
from workers.parts import WorkerParts


@dataclass(slots=True)
class AttemptTimeline:
    """The times of one attempt, in seconds after `began_s`.

    `began_s` and every `now_s` are readings of the same monotonic clock.

    Attributes:
        figures: what this worker counts over all attempts.
        waited_s: from the acceptance to the begin, if no earlier attempt has written anything;
            None: the first token of this attempt is not the first one of the answer.
        output_s: when the backend last gave anything, by the same clock; None: it gave nothing.
        longest_gap_s: the longest pause between two outputs since `take_gap`.
    """

    began_s: float
    figures: WorkerFigures = field(default_factory=WorkerFigures)
    waited_s: float | None = None
    output_s: float | None = None
    longest_gap_s: float = 0.0
    connected_s: float | None = None
    first_token_s: float | None = None
    pieces: int = 0
    text_bytes: int = 0

    @classmethod
    def of(cls, begun: Begun, parts: WorkerParts) -> Self:
        """Return the timeline of an attempt that begins now."""
        is_first = begun.start[0].seq == 1
        waited_s = _waited_s(begun, parts.store.lease_ms) if is_first else None
        return cls(parts.clock(), parts.figures, waited_s)

    def note_connected(self, now_s: float) -> None:
        """Note that the backend has answered; only the first call counts."""
        if self.connected_s is None:
            self.connected_s = now_s - self.began_s

    def note_token(self, token: Token, now_s: float) -> None:
        """Count one piece of text, before it is joined with others."""
        self.pieces += 1
        self.figures.tokens += 1
        self.text_bytes += len(token.text.encode())
        if self.first_token_s is None:
            self.first_token_s = now_s - self.began_s
            if self.waited_s is not None:
                self.figures.note_first_token(self.waited_s + self.first_token_s)

    def note_output(self, now_s: float) -> None:
        """Note that the backend gave something: text, reasoning or a part of a call."""
        if self.output_s is not None and now_s - self.output_s > self.longest_gap_s:
            self.longest_gap_s = now_s - self.output_s
        self.output_s = now_s

    def take_gap(self, now_s: float) -> float | None:
        """Return the longest pause since the last call, also one that lasts; None: no output yet.

        A pause that lasts over several calls counts in each of them, with its length so far.
        """
        if self.output_s is None:
            return None
        longest_s = max(self.longest_gap_s, now_s - self.output_s)
        self.longest_gap_s = 0.0
        return longest_s

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
            "queued_s": _waited_s(begun, lease_ms),
            "connected_s": _rounded(self.connected_s),
            "first_token_s": _rounded(self.first_token_s),
            "took_s": _rounded(now_s - self.began_s),
            "pieces": self.pieces,
            "text_bytes": self.text_bytes,
        }


def _waited_s(begun: Begun, lease_ms: int) -> float:
    return (begun.meta.lease_ms - lease_ms - begun.meta.created_at_ms) / 1000


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
