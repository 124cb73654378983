"""What a route asks about the health of its backends, and what a route notes.

`Health` is the interface. `OwnHealth` is the knowledge of one process alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from shared.errors import BackendError

COOL_DOWN_S = 5.0  # after a failure a backend is asked only if no other one is left


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
    """The health of backends, by the names of their tables. Answers come from memory."""

    def allows(self, name: str) -> bool:
        """Whether a request may go to a backend now. If so, the caller calls `start` next."""
        ...

    def start(self, name: str) -> HealthCall: ...

    def busy(self, name: str) -> int:
        """Return the requests in flight at a backend."""
        ...

    def first_token_s(self, name: str) -> float | None:
        """Return the usual time to the first token; None: not known."""
        ...


class OwnHealth:
    """The health of backends as this process alone sees it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.in_flight: dict[str, int] = {}
        self.cooling_until_s: dict[str, float] = {}
        self.first_token: dict[str, float] = {}

    def allows(self, name: str) -> bool:
        return self.cooling_until_s.get(name, 0.0) <= self.clock()

    def start(self, name: str) -> OwnCall:
        self.in_flight[name] = self.busy(name) + 1
        return OwnCall(self, name)

    def busy(self, name: str) -> int:
        return self.in_flight.get(name, 0)

    def first_token_s(self, name: str) -> float | None:
        return self.first_token.get(name)


class OwnCall:
    """See `HealthCall`."""

    def __init__(self, health: OwnHealth, name: str) -> None:
        self._health, self._name = health, name
        self._began_s = health.clock()

    def first_token(self) -> None:
        self._health.first_token[self._name] = self._health.clock() - self._began_s
        self._health.cooling_until_s.pop(self._name, None)

    def close(
        self, error: BackendError | None = None, *, tokens: int = 0, is_abandoned: bool = False
    ) -> None:
        health = self._health
        health.in_flight[self._name] -= 1
        if error is not None and (error.retryable or error.upstream is None):
            health.cooling_until_s[self._name] = health.clock() + COOL_DOWN_S
