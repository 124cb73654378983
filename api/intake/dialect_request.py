"""The part of a request body that a dialect has parsed. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from shared.log.records import Meta
from shared.log.request import Request


@dataclass(frozen=True)
class DialectRequest:
    """The result of a dialect's parser; a dialect may derive its own class.

    Attributes:
        request: what the backend gets.
        grace_s: used if the body has no `on_disconnect`: seconds that the generation goes on
            without readers; None: without limit.
        idempotency_key: used if the request has no header `Idempotency-Key`; empty: no key.
        repeated: the generation that the request repeats, as the dialect has found it; used if the
            request has no header `Idempotency-Key`.
    """

    request: Request
    grace_s: float | None = None
    idempotency_key: str = ""
    repeated: Meta | None = None

    @property
    def is_answered_from_log(self) -> bool:
        """Return whether the response to this request is read from the log."""
        return True


DialectRequestT = TypeVar("DialectRequestT", bound=DialectRequest)
