"""Which shards answer, and where new generations go."""

from __future__ import annotations

from redis.asyncio import Redis

from shared.log.ids import new_generation_id
from shared.queue import placement
from shared.queue.partitions import Partitions
from shared.queue.placement import draw_id, is_placed
from shared.redis import keys
from shared.redis.shards import back_since_s, is_partly_away, serves, shard_count, shard_of
from tests.support.known_shards import MASTERS, known_shards

PARTITIONS = Partitions(8, is_even=True)
A, B, C = MASTERS


def key_on(client, address):
    names = (keys.meta(new_generation_id()) for _ in range(1_000))
    return next(name for name in names if shard_of(client, name) == address)


async def test_a_key_is_served_unless_its_shard_is_away():
    client = known_shards(B)

    assert serves(client, key_on(client, A), key_on(client, C))
    assert not serves(client, key_on(client, A), key_on(client, B))
    assert is_partly_away(client)
    assert shard_count(client) == (3, 2)


async def test_a_single_server_always_counts_as_one_that_answers():
    client = Redis()

    assert serves(client, "any") and not is_partly_away(client)
    assert shard_count(client) is None and shard_of(client, "any") is None
    assert back_since_s(client, "any") is None


async def test_no_shard_is_partly_away_if_all_or_none_are():
    assert not is_partly_away(known_shards())
    assert not is_partly_away(known_shards(*MASTERS))


async def test_a_server_that_was_lost_a_moment_ago_serves_nothing_until_it_answers():
    client = known_shards()
    slot_map = client.topology.slot_map

    slot_map.note_lost(A)
    assert not serves(client, key_on(client, A)) and is_partly_away(client)

    slot_map.note_answer(A)
    assert serves(client, key_on(client, A))


async def test_a_slot_without_a_master_is_not_served():
    client = known_shards()
    name = key_on(client, A)
    client.topology.slot_map.read([[8_192, 16_383, [b"c", 1]]], C)

    assert not serves(client, name)


async def test_new_ids_lie_on_shards_that_answer_with_their_partitions():
    client = known_shards(B, C)

    for _ in range(20):
        generation_id = draw_id(client, PARTITIONS)
        assert is_placed(client, PARTITIONS, generation_id)
        assert shard_of(client, keys.meta(generation_id)) == A
        assert shard_of(client, keys.lane("batch", PARTITIONS.of(generation_id))) == A


async def test_an_id_is_returned_although_no_shard_answers():
    assert draw_id(known_shards(*MASTERS), PARTITIONS).startswith("gen_")


async def test_the_first_id_is_taken_on_a_single_server(monkeypatch):
    drawn = []
    monkeypatch.setattr(placement, "new_generation_id", lambda: drawn.append(1) or "gen_1")

    assert draw_id(Redis(), PARTITIONS) == "gen_1"
    assert len(drawn) == 1
