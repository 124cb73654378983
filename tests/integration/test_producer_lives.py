"""Producers and feeders that write for longer than the keys of a usual generation live.

The tests set the age of a generation and the rest of a key's life, so that no test waits for hours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.redis import keys
from tests.support.local_node import LocalNode, post_json, serve_here
from tests.support.redis_server import RedisServer


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url)


@pytest.fixture
async def node(settings: Settings, real_redis: Redis) -> AsyncIterator[LocalNode]:
    async with serve_here(settings) as local_node:
        yield local_node


@pytest.fixture
async def web(node: LocalNode) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(node.url, timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


async def test_a_repeat_finds_a_producer_that_runs_for_longer_than_its_keys_live(
    web, node, settings
) -> None:
    begin = ("/v1/generations", {"producer": True, "model": "report"})
    key, redis = {"idempotency-key": "long-report"}, node.node.redis
    _, begun = await post_json(web, *begin, **key)
    meta = keys.meta(begun["id"])
    name = await redis.hget(meta, "idem")
    left_ms = await redis.pttl(name)
    await redis.hincrby(meta, "created", -round(1000 * settings.generation_s_max))
    await redis.pexpire(name, left_ms - round(1000 * settings.generation_s_max))
    events = {"seq": begun["next_seq"], "events": [{"type": "token", "text": "Hi"}]}
    token = {"x-producer-token": begun["producer_token"]}
    await post_json(web, f"/v1/generations/{begun['id']}/events", events, **token)

    assert await redis.pttl(name) >= left_ms - 1000
    status, again = await post_json(web, *begin, **key)
    assert (status, again["id"]) == (200, begun["id"])


async def test_a_feeder_finds_an_operation_that_runs_for_longer_than_its_name_is_kept(
    web, node, settings
) -> None:
    path, redis = "/lobe-gateway/api/operations", node.node.redis
    operation = {"operationId": "op-long"}
    await post_json(web, f"{path}/init", {**operation, "userId": "alice"})
    (name,) = [
        await redis.hget(key, "fed")
        async for key in redis.scan_iter("tr:{gen_*}:meta")
        if await redis.hexists(key, "fed")
    ]
    generation_id = (await redis.get(name)).split()[0].decode()
    life_ms = round(1000 * settings.generation_s_max)
    await redis.hincrby(keys.meta(generation_id), "created", -life_ms)
    await redis.pexpire(name, 60_000)
    chunk = {"type": "stream_chunk", "data": {"chunkType": "text", "content": "Hi"}}
    status, answer = await post_json(web, f"{path}/push-event", {**operation, "event": chunk})

    assert status == 200, answer
    assert await redis.pttl(name) > life_ms
