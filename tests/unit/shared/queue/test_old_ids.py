"""Old ids in the lists of owners and sessions: only those of absent generations go."""

from __future__ import annotations

import pytest

from shared.log.lifetimes import listed_ms
from shared.queue import old_ids
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.old_ids import LOOK_EVERY_S, OldIds, find_old
from shared.queue.overview import owner_ids, session_ids
from shared.redis import keys
from tests.support.generation import store_on

NEW = NewGeneration(owner="alice", model="demo", session="chat", request=b'{"messages":[]}')
LISTS = (keys.session("alice", "chat"), keys.owner("alice"))


@pytest.fixture
def acceptor(redis, monkeypatch):
    monkeypatch.setattr(old_ids, "OLD_MAX", 1)
    store = store_on(redis)
    return Acceptor(redis, store, store.settings)


async def test_lists_expire_and_drop_old_ids_of_absent_generations(acceptor):
    for name in LISTS:
        await acceptor.redis.zadd(name, {"ancient": 1})

    accepted = await acceptor.accept(NEW)

    assert await session_ids(acceptor.redis, "alice", "chat", 9) == [accepted.generation_id]
    for name in LISTS:
        assert await acceptor.redis.zrange(name, 0, -1) == [accepted.generation_id.encode()]
        assert await acceptor.redis.pttl(name) > listed_ms(acceptor.settings) - 60_000


async def test_an_unfinished_generation_stays_in_its_lists_however_old(acceptor):
    old = (await acceptor.accept(NEW)).generation_id
    for name in LISTS:
        await acceptor.redis.zadd(name, {old: 1})

    new = (await acceptor.accept(NEW)).generation_id

    assert await owner_ids(acceptor.redis, "alice", 9) == [new, old]
    assert await session_ids(acceptor.redis, "alice", "chat", 9) == [new, old]


async def test_a_list_is_looked_at_once_in_a_while(redis, monkeypatch):
    old = OldIds(store_on(redis))
    await redis.zadd("list", {"a": 1})
    await old.drop("list", 9)
    await redis.zadd("list", {"b": 1})

    await old.drop("list", 9)

    assert LOOK_EVERY_S >= 60
    assert await redis.zrange("list", 0, -1) == [b"b"]


async def test_a_look_that_leaves_more_to_remove_is_repeated_at_the_next_call(
    redis, acceptor, monkeypatch
):
    monkeypatch.setattr(old_ids, "LOOK_MAX", 3)
    monkeypatch.setattr(old_ids, "OLD_MAX", 2)
    unfinished = (await acceptor.accept(NEW)).generation_id
    await redis.zadd("list", {unfinished: 0} | {f"gone{n}": 1 for n in range(5)})
    old = OldIds(acceptor.store)

    left = []
    for _ in range(4):
        await old.drop("list", 9)
        left.append(await redis.zcard("list"))

    assert left == [4, 2, 1, 1]


async def test_few_old_ids_cost_no_look(redis, monkeypatch):
    monkeypatch.setattr(old_ids, "OLD_MAX", 3)
    await redis.zadd("list", {"a": 1, "b": 2, "new": 10})
    assert await redis.execute_command(*find_old("list", 9)) == []

    await redis.zadd("list", {"c": 3})
    assert await redis.execute_command(*find_old("list", 9)) != []
