"""The cluster's pipeline on three real masters: routing, moves, scripts, a lost master."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from redis import exceptions

from shared.config.redis_url import parse_redis_url
from shared.errors import Unavailable
from shared.redis.cluster.pipeline import ClusterPipeline
from shared.redis.cluster.slots import key_slot
from shared.redis.cluster.topology import Topology
from shared.redis.cluster.watch import ShardWatch
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer, free_port
from tests.support.wait import until

SOURCE = b"return redis.call('INCRBY', KEYS[1], ARGV[1])"
BOTH = b"redis.call('SET', KEYS[1], ARGV[1]) return redis.call('INCR', KEYS[2])"
DIGESTS = {hashlib.sha1(source).hexdigest(): source for source in (SOURCE, BOTH)}
ADD, ADD_TO_BOTH = DIGESTS


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[RedisCluster]:
    async with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
async def pipeline(cluster: RedisCluster) -> AsyncIterator[ClusterPipeline]:
    url = parse_redis_url(cluster.url)
    pipeline = ClusterPipeline(url, answer_s=5.0, source_of=DIGESTS.get)
    yield pipeline
    await pipeline.aclose()


def owner(cluster: RedisCluster, pipeline: ClusterPipeline, key: str) -> RedisServer:
    address = pipeline.slot_map.master_of(key_slot(key.encode()))
    return next(server for server in cluster.servers if address == ("127.0.0.1", server.port))


async def test_calls_of_many_slots_are_answered_in_order(pipeline: ClusterPipeline):
    names = [f"order:{n}" for n in range(60)]
    calls = [(ADD, ([name], [n])) for n, name in enumerate(names)]

    assert await pipeline.evaluate(calls) == list(range(60))
    found = await pipeline.run([["GET", name] for name in names] + [["PING"]])
    assert found == [*(b"%d" % n for n in range(60)), b"PONG"]
    assert len(pipeline._nodes) == 3, "one packed connection per master"


async def test_a_moved_slot_is_followed_and_the_map_is_read_once_for_all(cluster, pipeline):
    key = "{moved}:a"
    await pipeline.run([["SET", key, "1"]])
    source = owner(cluster, pipeline, key)
    target = next(server for server in cluster.servers if server is not source)
    slot, version = key_slot(key.encode()), pipeline.slot_map.version
    cluster.begin_move(slot, source, target)
    cluster.move_keys([key], source, target)
    cluster.end_move(slot, target)

    found = await asyncio.gather(*(pipeline.evaluate([(ADD, ([key], [1]))]) for _ in range(20)))

    assert sorted(found) == [[n] for n in range(2, 22)]
    assert owner(cluster, pipeline, key) is target
    assert pipeline.slot_map.version <= version + 2, "not once for each of the twenty"


async def test_while_a_slot_moves_calls_are_asked_for_and_wait_for_all_keys(cluster, pipeline):
    one, two = "{half}:a", "{half}:b"
    await pipeline.run([["SET", one, "1"], ["SET", two, "1"]])
    source = owner(cluster, pipeline, one)
    target = next(server for server in cluster.servers if server is not source)
    slot = key_slot(one.encode())
    cluster.begin_move(slot, source, target)
    cluster.move_keys([one], source, target)

    assert await pipeline.evaluate([(ADD, ([one], [1]))]) == [2], "ASK, and the script loaded there"
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(pipeline.evaluate([(ADD_TO_BOTH, ([one, two], [7]))]))
        other = await pipeline.evaluate([(ADD, (["elsewhere"], [1]))])
        assert other == [1] and not waiting.done(), "TRYAGAIN holds up no other call"
        cluster.move_keys([two], source, target)
    cluster.end_move(slot, target)

    assert waiting.result() == [2]
    assert await pipeline.run([["GET", one]]) == [b"7"]


async def test_a_server_that_has_lost_its_scripts_gets_them_again(cluster, pipeline):
    assert await pipeline.evaluate([(ADD, (["scripts"], [1]))]) == [1]
    for server in cluster.servers:
        with server.client() as client:
            client.script_flush()

    assert await pipeline.evaluate([(ADD, (["scripts"], [1]))]) == [2]


async def test_without_any_node_there_is_one_error():
    url = parse_redis_url(f"redis+cluster://127.0.0.1:{free_port()}")
    pipeline = ClusterPipeline(url, answer_s=1.0)
    with pytest.raises(Unavailable, match="no node of the cluster"):
        await pipeline.run([["PING"]])
    await pipeline.aclose()


async def test_a_slot_that_had_no_master_is_served_when_it_has_one(cluster, pipeline):
    key = "{hole}:a"
    await pipeline.run([["SET", key, "1"]])
    slot, server = key_slot(key.encode()), owner(cluster, pipeline, key)
    cluster.take_slots(server, slot, slot)

    async def is_absent() -> bool:
        with pytest.raises(Unavailable):
            await pipeline.run([["GET", key]])
        return pipeline.slot_map.master_of(slot) is None

    await until(is_absent, 10.0, "a map in which the slot has no master")
    cluster.give_slots(server, slot, slot)

    async def answers() -> bool:
        try:
            return await pipeline.run([["SET", key, "2"]]) == [b"OK"]
        except Unavailable:
            return False

    await until(answers, 10.0, "the slot is served")


async def test_the_watch_finds_the_master_of_a_slot_that_nobody_calls(cluster, pipeline):
    await pipeline.run([["PING"]])
    topology, server = pipeline.topology, owner(cluster, pipeline, "{hole}:a")
    slot = key_slot(b"{hole}:a")
    cluster.take_slots(server, slot, slot)

    async def is_absent() -> bool:
        await topology.read(topology.slot_map.version)
        return topology.slot_map.master_of(slot) is None

    await until(is_absent, 10.0, "a map in which the slot has no master")
    watching = asyncio.create_task(ShardWatch(topology).run())
    cluster.give_slots(server, slot, slot)

    address = "127.0.0.1", server.port
    await until(lambda: topology.slot_map.master_of(slot) == address, 10.0, "the map has it")
    watching.cancel()
    await asyncio.wait([watching])


async def test_a_server_whose_map_has_a_hole_is_not_asked_again_before_the_others(cluster):
    """As after CLUSTER FORGET, when one server does not know another one."""
    topology = Topology(parse_redis_url(cluster.url))
    forgetful, lost = cluster.servers[0], cluster.servers[2]
    with forgetful.client() as client:
        client.execute_command("CLUSTER", "FORGET", cluster.id_of(lost))
    await topology.read(0)
    assert not topology.slot_map.is_whole

    await topology.read(topology.slot_map.version)

    assert topology.slot_map.is_whole


async def test_a_lost_master_is_an_error_of_its_own_calls_only(cluster, pipeline):
    """Last in the file: the cluster has no replica."""
    names = [f"lost:{n}" for n in range(30)]
    await pipeline.run([["SET", name, "1"] for name in names])
    victim = owner(cluster, pipeline, names[0])
    gone = {name for name in names if owner(cluster, pipeline, name) is victim}
    victim.kill()

    replies = await pipeline.run([["GET", name] for name in names])

    for name, reply in zip(names, replies, strict=True):
        if name in gone:
            assert isinstance(reply, exceptions.ConnectionError)
        else:
            assert reply == b"1"
