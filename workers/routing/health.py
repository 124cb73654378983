"""What a route asks about the health of its backends, and what a route notes."""

from __future__ import annotations

from typing import Protocol

from shared.errors import BackendError


class HealthCall(Protocol):
    """One request to a backend. The caller closes it, once."""

    def first_token(self) -> None:
        """Note that the backend has begun to speak."""
        ...

    def close(
        self, error: BackendError | None = None, *, tokens: int = 0, is_abandoned: bool = False
    ) -> None:
        """Note the end of the request.

        Args:
            error: why the request failed; None: it did not.
            tokens: pieces of text that came.
            is_abandoned: the caller closed the request before the backend had ended.
        """
        ...


class Health(Protocol):
    """The health of backends, by the names of their tables (workers/health/health.py)."""

    async def admit(self, name: str, generation_id: str) -> bool:
        """Whether a request may go to a backend now. If so, the caller calls `start` next.

        Takes the trial of a backend whose cool-down is over, and one of its `slots`.
        """
        ...

    async def take_slot(self, name: str, generation_id: str) -> bool:
        """As `admit`, also for a backend that cools down."""
        ...

    def start(self, name: str, generation_id: str, *, keeps_slot: bool) -> HealthCall:
        """Note that a request goes to a backend.

        Args:
            keeps_slot: False: its slot is given back when the call is closed.
        """
        ...

    def busy(self, name: str) -> int:
        """Return the requests in flight at a backend."""
        ...

    def first_token_s(self, name: str) -> float | None:
        """Return the usual time to the first token; None: not known."""
        ...
