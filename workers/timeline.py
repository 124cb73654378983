"""When what happened to one attempt, and the one log line that tells its story.

The line answers: when was it accepted, how long did it wait, when had the backend answered, when
came the first token, how did it end. Never a word of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.log.events import Token
from shared.log.records import Begun


@dataclass(slots=True)
class Timeline:
    """Seconds since `began_s`, on the clock that every call is given."""

    began_s: float
    connected_s: float | None = None
    first_token_s: float | None = None
    pieces: int = 0
    text_bytes: int = 0

    def note_connected(self, now_s: float) -> None:
        if self.connected_s is None:
            self.connected_s = now_s - self.began_s

    def note_token(self, token: Token, now_s: float) -> None:
        self.pieces += 1
        self.text_bytes += len(token.text.encode())
        if self.first_token_s is None:
            self.first_token_s = now_s - self.began_s

    def story(self, begun: Begun, lease_ms: int, now_s: float) -> dict[str, Any]:
        """Return the fields of the line; `lease_ms` is what the begin set the lease to."""
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
