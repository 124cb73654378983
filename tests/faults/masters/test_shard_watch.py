"""The calls of other shards do not wait for a master that is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.config.redis_url import parse_redis_url
from shared.redis.client import Client
from shared.redis.cluster.pipeline import ClusterPipeline
from shared.redis.cluster.slots import key_slot
from shared.redis.shards import serves, shard_count
from tests.support.redis_cluster import RedisCluster, watched_client
from tests.support.redis_server import RedisServer
from tests.support.wait import until

GAP_S = 2.0  # the longest wait of a call for another shard


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[RedisCluster]:
    async with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
async def redis(cluster: RedisCluster) -> AsyncIterator[Client]:
    async with watched_client(cluster) as client:
        yield client


def key_on(client: Client, server: RedisServer) -> str:
    slot_map = client.topology.slot_map  # type: ignore[attr-defined]
    names = (f"key{n}" for n in range(1_000))
    address = ("127.0.0.1", server.port)
    return next(name for name in names if slot_map.master_of(key_slot(name.encode())) == address)


async def test_calls_that_share_a_pipeline_with_a_call_for_a_frozen_master_are_answered_in_time(
    cluster: RedisCluster, redis: Client
) -> None:
    frozen, other = key_on(redis, cluster.servers[0]), key_on(redis, cluster.servers[1])
    pipeline = ClusterPipeline(parse_redis_url(cluster.url), answer_s=60.0)
    await pipeline.run([["SET", frozen, "1"], ["SET", other, "1"]])
    cluster.servers[0].freeze()
    try:
        async with asyncio.timeout(GAP_S):
            lost, found = await pipeline.run([["GET", frozen], ["GET", other]])
        assert isinstance(lost, Exception) and found == b"1"
        assert not serves(redis, frozen) and serves(redis, other)
        assert shard_count(redis) == (3, 2)
        async with asyncio.timeout(0.5):
            lost, found = await pipeline.run([["GET", frozen], ["GET", other]])
        assert isinstance(lost, Exception) and found == b"1", "at once from now on"
    finally:
        cluster.servers[0].thaw()
    await until(lambda: serves(redis, frozen), 10.0, "the shard is back")
    assert await pipeline.run([["GET", frozen]]) == [b"1"]
    await pipeline.aclose()
