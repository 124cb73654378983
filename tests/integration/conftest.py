from __future__ import annotations

import pytest
from redis.asyncio import Redis

from tests.support.redis_server import RedisServer


@pytest.fixture
async def redis_url(redis_server: RedisServer) -> str:
    """The URL of a real server that is empty."""
    client = Redis.from_url(redis_server.url, protocol=2)
    await client.flushall()
    await client.aclose()
    return redis_server.url
