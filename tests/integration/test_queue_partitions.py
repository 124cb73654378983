"""Roles as processes agree on the number of partitions, or do not start."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.queue.partitions import agree
from shared.redis import keys
from tests.support.processes import Deployment, run_role
from tests.support.raw_client import RawClient
from tests.support.redis_server import RedisServer
from tests.support.wait import until

DEADLINE_S = 20.0


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


async def test_a_node_that_was_there_before_redis_is_not_ready_and_says_why() -> None:
    server = RedisServer(tcp=True, aof="always")
    with server:
        with server.client() as client:
            client.set(keys.PARTITIONS, "8")
        server.stop()
        deployment = Deployment(api=1, workers=0, server=server, is_waiting_for_workers=False)
        async with deployment, RawClient(deployment.urls[0]) as raw_client:

            async def says_why() -> bool:
                answer = (await raw_client.get("/readyz")).json()
                says = "other roles on this Redis use 8" in " ".join(answer.get("problems", []))
                return says and answer["checks"]["server"] is False

            server.start()
            await until(says_why, DEADLINE_S, "the problem")
