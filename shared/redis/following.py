"""Follows what Redis URLs name while a role runs: masters of Sentinel, and shards of a cluster."""

from __future__ import annotations

import asyncio

from shared.config.settings import Settings
from shared.redis.cluster.watch import watch_shards
from shared.redis.sentinel.watch import watch_masters


async def follow_redis(settings: Settings) -> None:
    """Follow until cancelled. Returns at once if the settings name single servers only."""
    async with asyncio.TaskGroup() as group:
        group.create_task(watch_masters(settings), name="sentinels")
        group.create_task(watch_shards(settings), name="shards")
