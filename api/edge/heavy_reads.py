"""Limits the large reads that are under way at once: for each owner, and on a node.

A poll reads only the small fields that it shows. A snapshot with its log, a response with its
input, a page of long prompts or ten thousand files must be read completely. While the answer is
built, its size counts in Redis's memory and in this node's memory. So a large read waits for a
turn. An owner with a hundred requests waits for the owner's own reads; other owners do not wait for
them. Does not know the content of a read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from api.errors import RETRY_AFTER_S, request_error

OWNER_READS_MAX = 4
# At up to 50 MB each: a prompt of TAILRACE_BODY_BYTES_MAX, and an answer of
# TAILRACE_ANSWER_BYTES_MAX.
NODE_READS_MAX = 8
READ_TURN_WAIT_S = 3.0  # the rest of a request's 4 s (api/deadline.py) is left for the read


@dataclass(slots=True)
class _Owner:
    semaphore: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OWNER_READS_MAX))
    users: int = 0  # reads that have a turn or wait for a turn


class HeavyReadLimit:
    """The turns of one node. An owner without a running or waiting read takes no memory."""

    def __init__(self) -> None:
        self._semaphore = asyncio.Semaphore(NODE_READS_MAX)
        self._owners: dict[str, _Owner] = {}

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Wait for a turn of this owner, and keep it for the duration of the block.

        Raises:
            RequestError: 503 `unavailable`, no turn within `READ_TURN_WAIT_S`.
        """
        entry = self._owners.setdefault(owner, _Owner())
        entry.users += 1
        try:
            # The owner's semaphore first: a read that waits for it takes no turn of the node.
            async with _all_of([entry.semaphore, self._semaphore]):
                yield
        finally:
            entry.users -= 1
            if not entry.users:
                del self._owners[owner]


@asynccontextmanager
async def _all_of(semaphores: Sequence[asyncio.Semaphore]) -> AsyncIterator[None]:
    """Hold all semaphores, acquired in order.

    Raises:
        RequestError: 503 `unavailable`, they were not free within `READ_TURN_WAIT_S`.
    """
    async with AsyncExitStack() as acquired:
        try:
            async with asyncio.timeout(READ_TURN_WAIT_S):
                for semaphore in semaphores:
                    await acquired.enter_async_context(semaphore)
        except TimeoutError:
            message = "too many large answers are being read at once: ask again"
            raise request_error("unavailable", message, retry_after_s=RETRY_AFTER_S) from None
        yield
