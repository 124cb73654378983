"""Transfers under way on a node: so many at once, none without end, all over when it drains.

Knows nothing of files or forms.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.errors import draining, request_error
from shared.errors import Unavailable

UPLOADS_AT_ONCE = 16  # each keeps a few MB on their way to the store
DOWNLOADS_AT_ONCE = 256  # each keeps a piece and an open object
WAIT_S = 30.0  # the others wait that long for their turn
LONGEST_S = 3_600.0


class Turns:
    """Who may send or be sent something long now."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._running: set[asyncio.Timeout] = set()
        self._is_over = asyncio.Event()
        self._is_draining = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it as long as the block runs.

        Raises:
            Unavailable: too many have one.
            RequestError: 408 it lasted too long, 503 the node drains and can wait no longer.
        """
        try:
            async with asyncio.timeout(WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable("too many transfers at once") from None
        limit = asyncio.timeout(LONGEST_S)
        try:
            if self._is_draining:
                raise draining()
            async with limit:
                self._running.add(limit)
                yield
        except TimeoutError:
            if self._is_draining:
                raise draining() from None
            what = f"this was not complete after {LONGEST_S:.0f} s"
            raise request_error("request_timeout", what) from None
        finally:
            self._running.discard(limit)
            self._free.release()
            if not self._running:
                self._is_over.set()

    async def drain(self, within_s: float) -> None:
        """Return when none runs any more; those that take longer are refused."""
        self._is_draining = True
        until_s = asyncio.get_running_loop().time() + within_s
        for limit in self._running:
            limit.reschedule(until_s)
        while self._running:
            self._is_over.clear()
            await self._is_over.wait()
