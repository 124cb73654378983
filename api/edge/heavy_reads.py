"""Reads that may be megabytes: few at once for each owner, and few on a node.

A poll reads what it shows, which is small. A snapshot with its log, a response with its input, a
page of long prompts or ten thousand files can be read only whole, and each takes its size from
Redis's memory and from this node's while it is put together. So they wait for a turn: an owner who
asks for a hundred at once waits for himself, and nobody else waits for him. Does not know what is
read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from api.errors import RETRY_AFTER_S, request_error

OWNER_AT_ONCE = 4
NODE_AT_ONCE = 16  # at up to 17 MB each: a prompt, and an answer of TAILRACE_ANSWER_BYTES_MAX
WAIT_S = 3.0  # for a turn; what follows has the rest of `ANSWER_S`


@dataclass(slots=True)
class _Owner:
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OWNER_AT_ONCE))
    users: int = 0  # who has a turn or waits for one


class HeavyReads:
    """The turns of one node. An owner who has none and waits for none takes no memory."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(NODE_AT_ONCE)
        self._owners: dict[str, _Owner] = {}

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Wait for a turn of this owner's, and have it as long as the block runs.

        Raises:
            RequestError: 503 `unavailable`, there was none within `WAIT_S`.
        """
        own = self._owners.setdefault(owner, _Owner())
        own.users += 1
        try:
            # The owner's first: who waits for himself takes no place from the others.
            async with _all_of([own.free, self._free]):
                yield
        finally:
            own.users -= 1
            if not own.users:
                del self._owners[owner]


@asynccontextmanager
async def _all_of(semaphores: Sequence[asyncio.Semaphore]) -> AsyncIterator[None]:
    async with AsyncExitStack() as held:
        try:
            async with asyncio.timeout(WAIT_S):
                for semaphore in semaphores:
                    await held.enter_async_context(semaphore)
        except TimeoutError:
            what = "too many large answers are being read at once: ask again"
            raise request_error("unavailable", what, retry_after_s=RETRY_AFTER_S) from None
        yield
