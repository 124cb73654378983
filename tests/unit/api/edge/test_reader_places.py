"""The places of an owner's readers over all nodes: on the fake and on a real server."""

from __future__ import annotations

import asyncio

import pytest

from api.edge import reader_places
from api.edge.metrics import Metrics
from api.edge.reader_places import LIFE_MS, ReaderPlace, ReaderPlaces
from api.errors import TooManyConnections
from shared.errors import Unavailable
from shared.redis import keys
from tests.support.generation import store_on
from tests.support.wait import until


@pytest.fixture
def nodes(redis):
    """Three nodes on one Redis."""
    metrics = Metrics()
    return [ReaderPlaces(f"n{n}", store_on(redis), metrics.limit_refusals) for n in range(3)]


async def is_refused(places, most=4, reader=""):
    try:
        await places.take("alice", most, reader)
    except TooManyConnections as exc:
        assert exc.retry_after_s == 5
        return exc.refusal_count or True
    return False


async def expire(redis, node, owner="alice"):
    """As if a node had been silent for longer than its numbers count."""
    key = keys.owner_places(owner)
    readers, until_ms = (await redis.hget(key, node)).decode().split()
    await redis.hset(key, node, f"{readers} {int(until_ms) - LIFE_MS - 1}")


async def test_the_readers_of_all_nodes_count_together(nodes):
    one, two, three = nodes
    for places in (one, two, three, one):
        assert not await is_refused(places)

    assert await is_refused(two)
    assert [places.count("alice") for places in nodes] == [2, 1, 1]
    await three.take("bob", 1)


async def test_a_reader_that_leaves_frees_its_place_on_every_node(nodes):
    one, two, _ = nodes
    for _ in range(4):
        await one.take("alice", 4)
    assert await is_refused(two)

    one.give_back("alice")
    await one.write()

    assert not await is_refused(two)


async def test_a_node_that_dies_gives_its_places_back(nodes, redis):
    one, two, _ = nodes
    for _ in range(4):
        await one.take("alice", 4)
    assert await is_refused(two)

    await expire(redis, "n0")

    assert not await is_refused(two)
    assert await redis.hkeys(keys.owner_places("alice")) == [b"n1"]


async def test_numbers_that_redis_lost_are_written_again(nodes, redis):
    one, two, _ = nodes
    for _ in range(4):
        await one.take("alice", 4)
    await redis.flushall()

    await one.write(everything=True)

    assert await is_refused(two)


async def test_an_owner_is_renewed_beside_an_owner_whose_readers_come_and_go(
    nodes, redis, monkeypatch
):
    monkeypatch.setattr(reader_places, "RENEW_S", 0.3)
    one = nodes[0]
    await one.take("alice", 4)
    await redis.delete(keys.owner_places("alice"))

    async def is_renewed() -> bool:
        await one.take("bob", 1)
        one.give_back("bob")
        return bool(await redis.exists(keys.owner_places("alice")))

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(one.run())
        await until(is_renewed, 5, "the places of alice in Redis")
        writing.cancel()


async def test_an_owner_without_readers_leaves_nothing_behind(nodes, redis):
    one = nodes[0]
    await one.take("alice", 4)

    one.give_back("alice")
    await one.write()

    assert not one._owners
    assert not await redis.exists(keys.owner_places("alice"))


async def test_without_redis_readers_are_let_in_and_counted_later(nodes):
    one, two, _ = nodes
    run = one._store.scripts.run

    async def away(*_):
        raise Unavailable("away")

    one._store.scripts.run = away
    await one.take("alice", 1)
    one._store.scripts.run = run
    await one.write(everything=True)

    assert await is_refused(two, most=1)


async def test_a_reader_that_gives_up_while_it_asks_keeps_no_place(nodes):
    one = nodes[0]

    async def slow(*_):
        raise asyncio.CancelledError

    one._store.scripts.run = slow
    with pytest.raises(asyncio.CancelledError):
        await one.take("alice", 1)

    assert one.count("alice") == 0


async def test_the_count_of_a_readers_refusals_begins_again_after_three(nodes):
    one, two, _ = nodes
    await one.take("alice", 1)

    told = [await is_refused(places, 1, "tab") for places in (one, two, one, two)]

    assert told == [1, 2, 3, 1]
    assert await is_refused(one, 1, "other tab") == 1


async def test_a_place_counts_once_however_often_it_is_taken_and_given_back(nodes):
    place = ReaderPlace(nodes[0], "alice", 2)
    await place.take()
    await place.take()
    assert nodes[0].count("alice") == 1

    place.close()
    place.give_back()

    assert nodes[0].count("alice") == 0


async def test_a_kept_place_outlives_the_handler(nodes):
    place = ReaderPlace(nodes[0], "alice", 2)
    await place.take()
    place.keep()

    place.close()
    assert nodes[0].count("alice") == 1

    place.give_back()
    assert nodes[0].count("alice") == 0


async def test_far_from_the_limit_readers_need_no_call_and_the_limit_holds(nodes):
    one, two, _ = nodes
    calls = []
    run = one._store.scripts.run

    async def noted(*call):
        calls.append(call)
        return await run(*call)

    one._store.scripts.run = noted
    for _ in range(10):
        await one.take("alice", 160)
    assert len(calls) == 2, "nine places at once, and then the tenth"

    taken = 10
    while not await is_refused(two, 160):
        taken += 1
    while not await is_refused(one, 160):
        taken += 1

    assert taken == 160


async def test_places_ahead_are_given_up_near_the_limit(nodes, redis):
    one, two, _ = nodes
    await one.take("alice", 32)
    assert (await redis.hget(keys.owner_places("alice"), "n0")).split()[0] == b"3"
    for _ in range(29):
        await two.take("alice", 32)
    assert await is_refused(two, 32)

    await one.write(everything=True)

    assert not await is_refused(two, 32) and not await is_refused(two, 32)
    assert await is_refused(two, 32)


async def test_places_ahead_that_redis_may_have_forgotten_are_not_used(nodes, monkeypatch):
    one, two, _ = nodes
    await one.take("alice", 160)
    one._owners["alice"].until_s = 0.0
    await one._store.redis.flushall()
    for _ in range(160):
        await two.take("alice", 160)

    assert await is_refused(one, 160)


async def test_no_reader_takes_a_place_that_an_answer_under_way_takes_back(nodes):
    one, two, _ = nodes
    await one.take("alice", 32)
    for _ in range(29):
        await two.take("alice", 32)
    many = one._store.scripts.run_many
    refused = []

    async def slow(*call):
        replies = await many(*call)
        for _ in range(2):  # another node takes the places that were taken back
            await two.take("alice", 32)
        refused.append(await is_refused(one, 32))
        return replies

    one._store.scripts.run_many = slow
    await one.write(everything=True)

    assert refused == [True]
    assert one.count("alice") + two.count("alice") == 32
