"""When a lapsed lease may be taken over on a shard that has been away."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from shared.log.ids import new_generation_id
from shared.redis import keys
from shared.redis.shards import shard_of
from tests.support.known_shards import MASTERS, known_shards
from workers.parts import Takeover
from workers.shard_takeover import is_shard_away, takeover_on_shard

NOW_MS = 1_000_000
LEASE_S = 3.0
A, B, _ = MASTERS


class FakeStore:
    def __init__(self, redis):
        self.redis = redis

    async def now_ms(self):
        return NOW_MS


def parts(redis, rule=Takeover()):  # noqa: B008 - it is frozen
    return SimpleNamespace(
        store=FakeStore(redis), settings=SimpleNamespace(lease_s=LEASE_S), takeover=lambda: rule
    )


def id_on(client, address):
    ids = (new_generation_id() for _ in range(1_000))
    return next(each for each in ids if shard_of(client, keys.meta(each)) == address)


async def test_for_one_lease_after_a_shard_is_back_nobody_takes_over_there():
    client = known_shards(A)
    back_s = asyncio.get_running_loop().time() - 1.0
    client.topology.states.note_answer(A, 0.001, back_s)

    rule = await takeover_on_shard(parts(client), id_on(client, A))

    left_ms = rule.quiet_until_ms - NOW_MS
    assert 0 < left_ms <= 2_000
    assert rule.forgive_until_ms == rule.quiet_until_ms, "a lapse meanwhile is no failure"


async def test_the_other_shards_are_not_concerned():
    client = known_shards(A)
    client.topology.states.note_answer(A, 0.001, asyncio.get_running_loop().time())

    assert await takeover_on_shard(parts(client), id_on(client, B)) == Takeover()


async def test_after_a_lease_the_rule_of_the_worker_holds_again():
    client, rule = known_shards(A), Takeover(5, 5)
    back_s = asyncio.get_running_loop().time() - LEASE_S
    client.topology.states.note_answer(A, 0.001, back_s)

    assert await takeover_on_shard(parts(client, rule), id_on(client, A)) is rule


async def test_a_stricter_rule_of_the_worker_stays():
    client, rule = known_shards(A), Takeover(NOW_MS * 2, 0)
    client.topology.states.note_answer(A, 0.001, asyncio.get_running_loop().time())

    found = await takeover_on_shard(parts(client, rule), id_on(client, A))

    assert found.quiet_until_ms == NOW_MS * 2


async def test_a_generation_is_away_with_its_shard():
    client = known_shards(A)

    assert is_shard_away(parts(client), id_on(client, A))
    assert not is_shard_away(parts(client), id_on(client, B))
