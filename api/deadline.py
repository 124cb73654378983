"""The time limit of a request that only asks Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.errors import Unavailable

# Clients are promised an answer within 5 s; 1 s is left for reading the request and for sending.
REQUEST_DEADLINE_S = 4.0


@asynccontextmanager
async def answer_deadline(since_s: float | None = None) -> AsyncIterator[None]:
    """Limit the block to `REQUEST_DEADLINE_S`.

    Args:
        since_s: loop time at which the limit begins, for a request that has already waited for
            something else. None: now.

    Raises:
        Unavailable: the block took longer.
    """
    begun_s = asyncio.get_running_loop().time() if since_s is None else since_s
    try:
        async with asyncio.timeout_at(begun_s + REQUEST_DEADLINE_S):
            yield
    except TimeoutError as exc:
        raise Unavailable("Redis did not answer in time") from exc
