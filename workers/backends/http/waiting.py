"""A connection on which one task waits for bytes, with a deadline for each wait.

All waits of a connection share one timer: it is not moved when the deadline moves later, and is set
again when it fires too early. A new timer for each token would cost as much as reading the token.
Knows no wire.
"""

from __future__ import annotations

import asyncio
import math


class WaitingProtocol(asyncio.Protocol):
    """The waits of one connection; a subclass reads the bytes and calls `_wake` and `_fail`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = math.inf  # of the current wait

    async def _wait(self, deadline: float) -> None:
        if self._error is not None:
            raise self._error
        self._deadline = deadline
        if self._timer is None or self._timer.when() > deadline:
            self._stop_timer()
            self._timer = self._loop.call_at(deadline, self._on_timer)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter, self._deadline = None, math.inf

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop.time() >= self._deadline:
            self._fail(TimeoutError())
        elif self._deadline < math.inf:
            self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: Exception) -> None:
        """Make the next wait raise `error`. Bytes that have arrived can still be read first."""
        self._error = self._error or error
        self._wake()
