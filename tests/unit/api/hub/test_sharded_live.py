"""Sharded live channels on three real masters: they follow slots, and shards fail apart."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from api.hub import shard
from api.hub.sharded_live import ShardedLiveConnection
from shared.config.redis_url import parse_redis_url
from shared.redis import keys
from shared.redis.cluster.client import ClusterClient
from shared.redis.cluster.slots import SLOTS, key_slot
from tests.support.redis_cluster import RedisCluster
from tests.support.wait import until

DEADLINE_S = 10.0
CHANNELS = [keys.live(f"gen_{n}") for n in range(12)]  # on all masters


class Notes:
    """A listener that keeps what it heard."""

    def __init__(self) -> None:
        self.confirmed: Counter[str] = Counter()
        self.messages: list[tuple[str, bytes]] = []

    def subscribed(self, channel: bytes) -> None:
        self.confirmed[channel.decode()] += 1

    def message(self, channel: bytes, payload: bytes) -> None:
        self.messages.append((channel.decode(), payload))

    def disconnected(self) -> None:
        raise AssertionError("the loss of one shard is not the loss of all")


class Live:
    """A sharded live connection on a cluster, and a client that publishes."""

    def __init__(self, cluster: RedisCluster) -> None:
        self.cluster = cluster
        self.notes = Notes()
        self.connection = ShardedLiveConnection(cluster.url, self.notes)
        self.client = ClusterClient(parse_redis_url(cluster.url), answer_s=2.0)

    async def hears(self, channel: str) -> None:
        """Return when a message that is published now arrives."""
        payload = b"message %d" % len(self.notes.messages)
        await until(lambda: self._arrives(channel, payload), DEADLINE_S, f"{channel} delivers")

    async def _arrives(self, channel: str, payload: bytes) -> bool:
        await self.client.execute_command("SPUBLISH", channel, payload)
        return (channel, payload) in self.notes.messages

    async def confirmed(self, times: int, channels: list[str] = CHANNELS) -> None:
        await until(
            lambda: all(self.notes.confirmed[channel] >= times for channel in channels),
            DEADLINE_S,
            f"{times} confirmations of each channel",
        )


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[RedisCluster]:
    async with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
async def live(cluster: RedisCluster) -> AsyncIterator[Live]:
    live = Live(cluster)
    for channel in CHANNELS:
        live.connection.subscribe(channel.encode())
    running = asyncio.create_task(live.connection.run())
    await live.confirmed(1)
    yield live
    running.cancel()
    await asyncio.wait([running])
    await live.client.aclose()


def by_server(live: Live) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for channel in CHANNELS:
        found.setdefault(live.cluster.owner(channel).port, []).append(channel)
    return found


async def test_each_master_has_one_connection_and_delivers_its_channels(live: Live) -> None:
    assert len(by_server(live)) == 3
    assert list(live.connection.shards.values()) == [True] * 3
    for channel in CHANNELS:
        await live.hears(channel)
    for server in live.cluster.servers:
        with server.client() as client:
            assert len(client.client_list(_type="pubsub")) == 1
    assert set(live.notes.confirmed.values()) == {1}


async def test_a_channel_follows_its_slot_and_is_confirmed_at_the_new_master(live: Live) -> None:
    channel = CHANNELS[0]
    source = live.cluster.owner(channel)
    target = next(server for server in live.cluster.servers if server is not source)

    live.cluster.move(channel, target)
    await live.confirmed(2, [channel])
    await live.hears(channel)
    live.cluster.move(channel, source)
    await live.confirmed(3, [channel])
    await live.hears(channel)

    others = [name for name in CHANNELS if key_slot(name.encode()) != key_slot(channel.encode())]
    assert {live.notes.confirmed[name] for name in others} == {1}


async def test_a_lost_connection_concerns_the_channels_of_its_master_only(live: Live) -> None:
    port, lost = next(iter(by_server(live).items()))
    server = next(server for server in live.cluster.servers if server.port == port)
    with server.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    await live.confirmed(2, lost)

    for channel in lost:
        await live.hears(channel)
    assert {live.notes.confirmed[name] for name in CHANNELS if name not in lost} == {1}


async def test_a_channel_that_was_left_delivers_nothing_any_more(live: Live) -> None:
    live.connection.unsubscribe(CHANNELS[0].encode())

    async def has_left() -> bool:
        reply = await live.client.execute_command("SPUBLISH", CHANNELS[0], b"late")
        return bool(reply == 0)

    await until(has_left, DEADLINE_S, "no receiver")


@pytest.mark.parametrize("slots_move", [False, True], ids=["quiet", "slots move all the time"])
async def test_a_frozen_master_is_noticed_and_confirmed_again_when_it_answers(
    live: Live, monkeypatch: pytest.MonkeyPatch, slots_move: bool
) -> None:
    monkeypatch.setattr(shard, "PING_LOOKS", 1)
    monkeypatch.setattr(shard, "DEAF_LOOKS", 3)
    port, lost = next(iter(by_server(live).items()))
    server = next(server for server in live.cluster.servers if server.port == port)
    server.freeze()
    try:
        up = live.connection.shards

        def is_noticed() -> bool:
            if slots_move:
                live.connection.doubt()
            return not live.connection.shards[("127.0.0.1", port)]

        await until(is_noticed, DEADLINE_S, "noticed")
    finally:
        server.thaw()

    await live.confirmed(2, lost)

    assert up == dict.fromkeys(up, True)
    assert {live.notes.confirmed[name] for name in CHANNELS if name not in lost} == {1}


async def test_a_master_that_gets_its_slots_back_gets_its_channels_again(live: Live) -> None:
    port, away = next(iter(by_server(live).items()))
    server = next(server for server in live.cluster.servers if server.port == port)
    n, address = live.cluster.servers.index(server), ("127.0.0.1", port)
    first, last = n * SLOTS // 3, (n + 1) * SLOTS // 3 - 1
    confirmed = live.notes.confirmed[away[0]]
    live.cluster.take_slots(server, first, last)

    def is_gone() -> bool:
        live.connection.doubt()
        return address not in live.connection.shards

    await until(is_gone, DEADLINE_S, "a map without this master")
    live.cluster.give_slots(server, first, last)

    def is_back() -> bool:
        live.connection.doubt()
        return address in live.connection.shards

    await until(is_back, DEADLINE_S, "a map with this master")
    await live.confirmed(confirmed + 1, away)
    for channel in away:
        await live.hears(channel)
