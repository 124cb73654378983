"""The times of one attempt, for its log line.

The log line says when the generation was accepted, how long it waited, when the backend answered,
when the first token came, and how the attempt ended. It never contains text of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.log.events import Token
from shared.log.records import Begun


@dataclass(slots=True)
class AttemptTimeline:
    """The times of one attempt, in seconds after `began_s`.

    `began_s` and every `now_s` are readings of the same monotonic clock.
    """

    began_s: float
    connected_s: float | None = None
    first_token_s: float | None = None
    pieces: int = 0
    text_bytes: int = 0

    def note_connected(self, now_s: float) -> None:
        """Note that the backend has answered; only the first call counts."""
        if self.connected_s is None:
            self.connected_s = now_s - self.began_s

    def note_token(self, token: Token, now_s: float) -> None:
        """Count one piece of text, before it is joined with others."""
        self.pieces += 1
        self.text_bytes += len(token.text.encode())
        if self.first_token_s is None:
            self.first_token_s = now_s - self.began_s

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
