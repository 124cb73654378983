"""The client of a cluster on three real masters: redis-py's interface, with commands by slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.config.redis_url import parse_redis_url
from shared.errors import Unavailable
from shared.redis.client import translated
from shared.redis.cluster.client import ClusterClient
from shared.redis.cluster.slots import key_slot
from tests.support.redis_cluster import RedisCluster
from tests.support.wait import until

NAMES = [f"{{client {n}}}:a" for n in range(30)]  # on all masters


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[RedisCluster]:
    async with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
async def client(cluster: RedisCluster) -> AsyncIterator[ClusterClient]:
    for server in cluster.servers:
        with server.client() as one:
            one.flushall()
    client = ClusterClient(parse_redis_url(cluster.url), answer_s=2.0)
    yield client
    await client.aclose()


async def test_a_pipeline_spans_slots_and_its_replies_have_redis_pys_forms(client):
    pipeline = client.pipeline(transaction=False)
    for n, name in enumerate(NAMES):
        pipeline.hset(name, mapping={"n": n})
    pipeline.time()
    *added, now = await pipeline.execute()
    for name in NAMES:
        pipeline.hgetall(name)  # a pipeline may be used again

    assert added == [1] * len(NAMES) and len(now) == 2
    assert await pipeline.execute() == [{b"n": b"%d" % n} for n in range(len(NAMES))]


async def test_an_error_reply_is_raised_or_stands_in_its_place(client):
    await client.set("text", "a")
    pipeline = client.pipeline(transaction=False)
    pipeline.get("text").hget("text", "field").get("other")
    found = await pipeline.execute(raise_on_error=False)

    assert found[0] == b"a" and "WRONGTYPE" in str(found[1]) and found[2] is None
    with pytest.raises(Exception, match="WRONGTYPE"):
        await client.hget("text", "field")


async def test_a_transaction_happens_as_a_whole_on_the_keys_of_one_slot(client):
    pipeline = client.pipeline()
    pipeline.incr("{one}:a").incr("{one}:b").incr("{one}:a")
    assert await pipeline.execute() == [1, 1, 2]

    pipeline.incr("{one}:a").incr("{two}:a")
    with pytest.raises(AssertionError, match="2 slots"):
        await pipeline.execute()


async def test_a_transaction_in_a_moving_slot_is_refused_and_writes_nothing(client, cluster):
    here, there = "{moving}:a", "{moving}:b"
    await client.mset({here: 1, there: 1})
    source, slot = cluster.owner(here), key_slot(here.encode())
    target = next(server for server in cluster.servers if server is not source)
    cluster.begin_move(slot, source, target)
    cluster.move_keys([there], source, target)
    pipeline = client.pipeline()
    pipeline.incr(here).incr(there)

    with pytest.raises(Unavailable), translated():
        await pipeline.execute()
    assert [await client.get(here), await client.get(there)] == [b"1", b"1"], "ASK is followed"

    cluster.move_keys([here], source, target)
    cluster.end_move(slot, target)
    pipeline.incr(here).incr(there)
    assert await pipeline.execute() == [2, 2]


async def test_scan_sees_the_keys_of_all_masters_once(client):
    for name in NAMES:
        await client.set(name, "1")
    found, cursor = [], 0
    while True:
        cursor, names = await client.scan(cursor, match="{client*", count=3)
        found += names
        if not cursor:
            break

    assert sorted(found) == sorted(name.encode() for name in NAMES)


async def test_a_blocking_command_delays_no_other_and_may_be_cancelled(client):
    waiting = asyncio.create_task(client.blpop(["{list}"], timeout=30))
    cancelled = asyncio.create_task(client.blpop(["{other list}"], timeout=30))
    await client.ping()
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    await client.rpush("{list}", "a")

    assert await waiting == (b"{list}", b"a")
    assert cancelled.cancelled()
    assert await client.blpop(["{list}"], timeout=0.01) is None


async def test_a_plain_message_reaches_a_subscriber_at_any_master(client):
    await client.ping()
    channels = client.pubsub(ignore_subscribe_messages=True)
    await channels.subscribe("news")
    await channels.get_message(timeout=1)  # the confirmation

    async def receives() -> bool:
        await client.publish("news", "hello")
        message = await channels.get_message(timeout=0.5)
        return message is not None and message["data"] == b"hello"

    await until(receives, 10, "the message")
    await channels.aclose()


async def test_the_clock_is_read_while_any_master_answers(client, cluster):
    """Last in the file: the cluster has no replica."""
    await client.ping()
    victim = min(cluster.servers, key=lambda server: server.port)  # the first in the map
    mine = next(name for name in NAMES if cluster.owner(name) is victim)
    other = next(name for name in NAMES if cluster.owner(name) is not victim)
    victim.kill()

    with pytest.raises(Unavailable), translated():
        await client.get(mine)
    for _ in range(5):
        assert len(await client.time()) == 2
    assert await client.set(other, "1")
