"""append_fast.lua and append.lua: the same replies, logs and frames in every situation.

append_fast.lua omits the lease, and every check that the length of the log makes unnecessary. Both
run here on a real server, because the fake takes attempt numbers from its clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from shared.log.records import Append
from shared.log.store import Store
from shared.queue.endings import cancel
from shared.redis import keys
from tests.support.generation import ID, Holder, create, lose, lose_tail, store_on, token

Situation = Callable[[Store], Awaitable[Append]]


async def first_of_an_attempt(store: Store) -> Append:
    return (await Holder.begin(store)).batch(token("a"))


async def next_one(store: Store) -> Append:
    holder = await Holder.begin(store)
    await holder.say("a")
    return holder.batch(token("b"), after=2)


async def several(store: Store) -> Append:
    return (await Holder.begin(store)).batch(token("a"), token("b"), token("c"))


async def after_a_takeover(store: Store) -> Append:
    """The entry before the first one is of this attempt, the previous one is not."""
    holder = await Holder.begin(store)
    await holder.say("a", "b")
    await holder.release()
    return (await Holder.begin(store, "theirs")).batch(token("c"))


async def sent_again(store: Store) -> Append:
    holder = await Holder.begin(store)
    await holder.say("a")
    return holder.batch(token("a"))


async def partly_sent_again(store: Store) -> Append:
    holder = await Holder.begin(store)
    await holder.say("a")
    return holder.batch(token("a"), token("b"))


async def behind(store: Store) -> Append:
    holder = await Holder.begin(store)
    await holder.say("a", "b")
    await lose_tail(store, 1)
    return holder.batch(token("c"), after=3)


async def lost(store: Store) -> Append:
    holder = await Holder.begin(store)
    await lose(store)
    return holder.batch(token("a"))


async def fenced(store: Store) -> Append:
    holder = await Holder.begin(store)
    await holder.release()
    await Holder.begin(store, "theirs")
    return holder.batch(token("a"))


async def ended(store: Store) -> Append:
    holder = await Holder.begin(store)
    await cancel(store, ID)
    return holder.batch(token("a"))


SITUATIONS: list[Situation] = [
    first_of_an_attempt, next_one, several, after_a_takeover, sent_again, partly_sent_again,
    behind, lost, fenced, ended,
]  # fmt: skip


async def heard_after(store: Store, batch: Append) -> tuple[Any, Any, list[bytes]]:
    """Append, and return the outcome, the log and the published frames."""
    async with store.redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(keys.live(ID))
        await channel.get_message(timeout=1.0)
        (outcome,) = await store.append_many([batch])
        await store.publish(keys.live(ID), b"mark")
        frames: list[bytes] = []
        while not frames or frames[-1] != b"mark":
            message = await channel.get_message(timeout=1.0)
            frames += [message["data"]] if message else []
    return outcome, await store.redis.xrange(keys.log(ID)), frames


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
async def test_the_fast_and_the_general_append_have_equal_effects(
    real_redis: Any, situation: Situation
) -> None:
    results = []
    for pushes_lease in (True, False):
        await real_redis.flushall()
        store = store_on(real_redis)
        await create(store)
        batch = replace(await situation(store), pushes_lease=pushes_lease)
        results.append(await heard_after(store, batch))
    assert results[0] == results[1]


async def test_the_lease_is_extended_only_on_request(redis: Any) -> None:
    store = store_on(redis)
    await create(store)
    holder = await Holder.begin(store)
    await redis.hset(keys.meta(ID), "lease", "5")
    await store.append_many([replace(holder.batch(token("a")), pushes_lease=False)])
    assert await redis.hget(keys.meta(ID), "lease") == b"5"
    await store.append_many([holder.batch(token("b"), after=2)])
    assert int(await redis.hget(keys.meta(ID), "lease")) > 5
