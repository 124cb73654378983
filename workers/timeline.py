"""The times of one attempt, for its log line, for figures, and for the story of its generation.

The log line says when the generation was accepted, how long it waited, when the backend answered,
when the first token came, and how the attempt ended. It never contains text of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from shared.log.events import End, Reasoning, Reset, Start, Token
from shared.log.records import Begun
from shared.metrics.answers import NO_METRICS, AnswerMetrics
from shared.timeline.moment import Moment
from workers.backends import BackendItem
from workers.figures import WorkerFigures
from workers.health.call import Call
from workers.parts import WorkerParts
from workers.story import GAP_S, AttemptStory, split_ending


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
        story: the moments of the attempt.
        backend: the name of the backend that answers; empty: no backend of a route has spoken yet.
        metrics: what this worker's own port shows.
        call: of the backend, for its health; None: not yet, or a route notes its calls itself.
    """

    began_s: float
    figures: WorkerFigures = field(default_factory=WorkerFigures)
    waited_s: float | None = None
    output_s: float | None = None
    longest_gap_s: float = 0.0
    story: AttemptStory = field(default_factory=AttemptStory)
    backend: str = ""
    model: str = ""
    metrics: AnswerMetrics = NO_METRICS
    call: Call | None = None
    connected_s: float | None = None
    first_token_s: float | None = None
    pieces: int = 0
    text_bytes: int = 0

    @classmethod
    def of(cls, begun: Begun, parts: WorkerParts, backend: str = "") -> Self:
        """Return the timeline of an attempt that begins now."""
        is_first = begun.start[0].seq == 1
        if not is_first:
            parts.count("takeovers", begun.meta.generation_id)
        waited_s = _waited_s(begun, parts.store.lease_ms) if is_first else None
        own_wait_s = int(begun.fields.get(b"waited", 0)) / 1000
        parts.metrics.begun(begun.meta.model, begun.meta.priority, own_wait_s)
        parts.figures.note_wait(begun.meta.model, own_wait_s)
        return cls(
            parts.clock(), parts.figures, waited_s, model=begun.meta.model,
            story=AttemptStory.of(begun, parts), backend=backend, metrics=parts.metrics,
        )  # fmt: skip

    def note_connected(self, now_s: float) -> None:
        """Note that the backend has answered; only the first call counts."""
        if self.connected_s is None:
            self.connected_s = now_s - self.began_s
            if self.backend:
                self.story.connected(self.backend)

    def note_item(self, item: BackendItem, now_s: float) -> None:
        """Note that the backend gave an item of the answer, before it is joined with others."""
        self.note_output(now_s)
        if isinstance(item, Token):
            self.note_token(item, now_s)
        elif isinstance(item, Reasoning):
            self.story.reasoned()
        elif isinstance(item, Start):  # of a backend of a route
            if item.backend:  # without: a stage has spoken, and no backend yet
                self.backend = item.backend
                self.story.connected(item.backend)
        elif isinstance(item, Reset):
            self.story.note(Moment("reset"), 0)

    def note_token(self, token: Token, now_s: float) -> None:
        """Count one piece of text, before it is joined with others."""
        self.pieces += 1
        self.figures.tokens += 1
        self.text_bytes += len(token.text.encode())
        if self.first_token_s is None:
            self.first_token_s = now_s - self.began_s
            self.story.note(Moment("first_token"), 0)
            if self.waited_s is not None:
                self.figures.note_first_token(self.waited_s + self.first_token_s)
                self.metrics.first_token(self.model, self.waited_s + self.first_token_s)

    def note_output(self, now_s: float) -> None:
        """Note that the backend gave an item of any kind, not only text."""
        if self.output_s is not None:
            gap_s = now_s - self.output_s
            if gap_s > self.longest_gap_s:
                self.longest_gap_s = gap_s
            if gap_s > GAP_S:
                self.story.paused(gap_s)
        elif self.call is not None:
            self.call.first_token()
        self.output_s = now_s

    def take_gap(self) -> float | None:
        """Return the longest pause that has ended since the last call; None: none has."""
        longest_s, self.longest_gap_s = self.longest_gap_s, 0.0
        return longest_s or None

    def silence_s(self, now_s: float) -> float:
        """Return for how long the backend has given nothing, s; 0: it has given nothing at all."""
        return 0.0 if self.output_s is None else now_s - self.output_s

    def leave(
        self, begun: Begun, parts: WorkerParts, ending: str, end: End | None
    ) -> dict[str, Any]:
        """Count and note the end of the attempt; return the fields of its log line.

        Args:
            ending: how it ended, as in the log line.
            end: what it has written as the end; None: no end.
        """
        parts.counters["generations"] += 1
        parts.counters["pieces"] += self.pieces
        now_s = parts.clock()
        took_s = now_s - self.began_s
        word, code = split_ending(ending, end)
        self.story.left(word, code, took_s, self.pieces)
        self.figures.note_run(self.model, took_s)
        self.metrics.left(self.model, ending=word, code=code, seconds=took_s)
        if end is not None and end.usage is not None:
            self.metrics.counted(self.model, end.usage)
        return self.log_fields(begun, parts.store.lease_ms, now_s)

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
