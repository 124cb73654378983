"""Wakes the jobs role: a process of it waits on the list `JOBS_WAKE` (jobs/role.py)."""

from __future__ import annotations

from shared.redis import keys
from shared.redis.client import Client, translated


async def wake_jobs(redis: Client) -> None:
    """Wake one jobs process. Each also looks for due work once a second.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        pipeline = redis.pipeline(transaction=False)
        pipeline.lpush(keys.JOBS_WAKE, b"1")
        pipeline.ltrim(keys.JOBS_WAKE, 0, 0)
        await pipeline.execute()
