"""The rounds of the index janitor go over all masters of a cluster, and pass over a silent one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jobs import index_janitor
from jobs.index_janitor import IndexJanitor
from shared.config.settings import Settings
from shared.log.store import Store
from shared.redis import keys
from shared.redis.client import Client
from shared.redis.shards import shard_count
from tests.support.generation import create
from tests.support.redis_cluster import RedisCluster, watched_client
from tests.support.wait import until

OWNERS = [f"owner-{n}" for n in range(30)]


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[RedisCluster]:
    async with RedisCluster(options={"cluster-node-timeout": "600000"}) as cluster:
        yield cluster


@pytest.fixture
async def redis(cluster: RedisCluster) -> AsyncIterator[Client]:
    async with watched_client(cluster) as client:
        yield client


async def test_absent_generations_are_dropped_from_indexes_on_all_masters(
    cluster: RedisCluster, redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_janitor, "ABSENT_TWICE_S", 0.0)
    store = Store(redis, Settings(redis_url=cluster.url))
    await create(store, "gen_present00")
    for owner in OWNERS:
        await redis.zadd(keys.owner(owner), {"gen_present00": 1, "gen_gone0000": 2})
    masters = {cluster.owner(keys.owner(owner)).port for owner in OWNERS}
    assert len(masters) == 3, "the indexes lie on all masters"

    found = await IndexJanitor(redis).mend()

    assert found["index_entries_dropped"] == len(OWNERS)
    for owner in OWNERS:
        assert await redis.zrange(keys.owner(owner), 0, -1) == [b"gen_present00"]


async def test_a_silent_master_does_not_hold_up_the_indexes_of_the_others(
    cluster: RedisCluster, redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_janitor, "ABSENT_TWICE_S", 0.0)
    gone = "gen_gone0000"
    victim = next(each for each in cluster.servers if each is not cluster.owner(keys.meta(gone)))
    for owner in OWNERS:
        await redis.zadd(keys.owner(owner), {gone: 2})
    spared = [owner for owner in OWNERS if cluster.owner(keys.owner(owner)) is not victim]
    victim.freeze()
    try:
        await until(lambda: shard_count(redis) == (3, 2), 20, "a shard that is away")
        found = await IndexJanitor(redis).mend()
        assert found["index_entries_dropped"] == len(spared)
    finally:
        victim.thaw()
    await until(lambda: shard_count(redis) == (3, 3), 20, "three shards")
    found = await IndexJanitor(redis).mend()
    assert found["index_entries_dropped"] == len(OWNERS) - len(spared)
