"""What a dialect has made of a request body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from shared.log.request import Request


@dataclass(frozen=True)
class DialectRequest:
    """What a dialect has made of a body; it may derive a class of its own.

    Attributes:
        grace_s: `on_disconnect` where the client does not say it; None: goes on without readers.
    """

    request: Request
    grace_s: float | None = None

    @property
    def is_read(self) -> bool:
        """Whether this very request is answered from the log."""
        return True


DialectRequestT = TypeVar("DialectRequestT", bound=DialectRequest)
