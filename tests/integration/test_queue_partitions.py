"""Roles as processes agree on the number of partitions, or do not start."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.queue.partitions import agree
from tests.support.processes import run_role
from tests.support.redis_server import RedisServer


@pytest.mark.parametrize("role", ["api", "worker", "jobs"])
async def test_a_role_with_another_number_of_partitions_ends_with_one_line(
    redis_server: RedisServer, real_redis: Redis, role: str
) -> None:
    url = redis_server.url
    await agree(real_redis, Settings(redis_url=url))
    settings = {
        "TAILRACE_REDIS_URL": url, "TAILRACE_PORT": "0", "TAILRACE_QUEUE_PARTITIONS": "8",
    }  # fmt: skip

    code, said = await run_role(role, settings)

    assert code == 2
    (line,) = said.splitlines()
    assert "TAILRACE_QUEUE_PARTITIONS is 8, and the other roles on this Redis use 1" in line
