"""Tries again while Redis is away, because LobeHub's server and its clients send each thing once.

Source: docs/dialects/lobehub-gateway.md, "Feeding".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from api.deadline import answer_deadline
from shared.errors import Unavailable

REPEAT_S = 0.1  # between two tries

T = TypeVar("T")


async def until_redis_answers(work: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `work`, which is called again after each Unavailable.

    Args:
        work: must write nothing twice if it is called again after it has failed.

    Raises:
        Unavailable: Redis did not answer within `REQUEST_DEADLINE_S`, all tries together.
    """
    async with answer_deadline():
        while True:
            try:
                return await work()
            except Unavailable:
                await asyncio.sleep(REPEAT_S)
