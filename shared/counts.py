"""What the jobs role has done, counted in Redis, so that any node can show it.

One hash, whose counters only rise. The names are those of docs/operations.md, "Metrics".
"""

from __future__ import annotations

from collections.abc import Mapping

from shared import keys
from shared.redis_client import Client, translated


async def count(redis: Client, found: Mapping[str, int]) -> None:
    """Add to the counters.

    Raises:
        Unavailable.
    """
    if not any(found.values()):
        return
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for name, number in found.items():
            if number:
                pipeline.hincrby(keys.JOBS_COUNTS, name, number)
        await pipeline.execute()


async def read_counts(redis: Client) -> dict[str, int]:
    """Return all counters.

    Raises:
        Unavailable.
    """
    with translated():
        found: dict[bytes, bytes] = await redis.hgetall(keys.JOBS_COUNTS)  # type: ignore[misc]
    return {name.decode(): int(number) for name, number in found.items()}
