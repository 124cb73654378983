"""Grace: a generation without readers is cancelled."""

from __future__ import annotations

import pytest

from shared.log.events import decode
from shared.log.records import (
    Begun,
    Ended,
    Ok,
)
from shared.queue.endings import CANCELLED
from shared.redis import keys
from tests.support.generation import (
    ID,
    Holder,
    create,
    store_on,
    types_of,
)

GRACE_MS = 2_000
FRESH_MS = 6_000


@pytest.fixture
async def graced(redis):
    store = store_on(redis)
    await create(store, grace=str(GRACE_MS))
    return store


async def scores(store):
    return dict(await store.redis.zrange(keys.readers(ID), 0, -1, withscores=True))


async def test_meta_has_the_grace(graced):
    assert (await graced.meta(ID)).grace_s == 2.0


async def test_a_missing_readers_key_counts_as_a_reader_to_come(graced):
    before_ms = await graced.now_ms()
    holder = await Holder.begin(graced)

    score = (await scores(graced))[b"-"]

    assert before_ms + FRESH_MS + GRACE_MS <= score <= await graced.now_ms() + FRESH_MS + GRACE_MS
    await graced.redis.delete(keys.readers(ID))
    assert await holder.renew() == Ok()
    assert b"-" in await scores(graced), "also where Redis has lost them"


async def test_attached_readers_count_for_six_seconds_and_the_grace(graced):
    before_ms = await graced.now_ms()

    assert await graced.attach_readers(ID, "node")

    score = (await scores(graced))[b"node"]
    assert before_ms + FRESH_MS + GRACE_MS <= score <= await graced.now_ms() + FRESH_MS + GRACE_MS


async def test_an_attached_reader_replaces_the_reader_to_come(graced):
    """Otherwise a reader that leaves early would count as long as one that never came."""
    await Holder.begin(graced)
    assert b"-" in await scores(graced)

    await graced.attach_readers(ID, "node")

    assert set(await scores(graced)) == {b"node"}


async def test_detached_readers_count_for_the_grace(graced):
    await graced.attach_readers(ID, "node")
    before_ms = await graced.now_ms()

    await graced.detach_readers(ID, "node")

    score = (await scores(graced))[b"node"]
    assert before_ms + GRACE_MS <= score <= await graced.now_ms() + GRACE_MS


async def test_a_renewal_cancels_when_the_grace_is_over(graced):
    holder = await Holder.begin(graced)
    await holder.say("a")
    await set_scores(graced, await graced.now_ms() - 1)

    assert await holder.renew() == Ended()

    assert (await graced.meta(ID)).status == "cancelled"
    assert decode((await graced.meta(ID)).end) == CANCELLED
    assert await types_of(graced) == ["start", "a", "end"]


async def test_a_begin_cancels_when_the_grace_is_over(graced):
    await set_scores(graced, await graced.now_ms() - 1)

    assert await graced.begin(ID, "mine", "worker") == Ended()

    assert (await graced.meta(ID)).status == "cancelled"
    assert await types_of(graced) == ["end"]


async def test_the_latest_reader_of_all_nodes_counts(graced):
    holder = await Holder.begin(graced)
    now_ms = await graced.now_ms()
    await set_scores(graced, now_ms - 1, now_ms + 60_000)

    assert await holder.renew() == Ok()


async def test_without_a_grace_a_generation_needs_no_reader(store):
    holder = await Holder.begin(store)
    await set_scores(store, 1)

    assert await holder.renew() == Ok()
    assert isinstance(await store.begin(ID, "mine", "worker"), Begun)


async def test_attach_returns_false_after_the_end(graced):
    holder = await Holder.begin(graced)
    await set_scores(graced, 1)
    await holder.renew()

    assert not await graced.attach_readers(ID, "node")
    assert not await graced.attach_readers("gen_nobody00", "node")
    assert not await graced.redis.exists(keys.readers("gen_nobody00"))


async def test_a_grace_of_zero_counts_readers_until_they_detach(redis):
    store = store_on(redis)
    await create(store, grace="0")
    holder = await Holder.begin(store)
    assert await holder.renew() == Ok()
    before_ms = await store.now_ms()
    await store.redis.delete(keys.readers(ID))

    await store.detach_readers(ID, "node")

    assert before_ms <= (await scores(store))[b"node"] <= await store.now_ms()


async def set_scores(store, *times_ms):
    await store.redis.delete(keys.readers(ID))
    await store.redis.zadd(keys.readers(ID), {f"node{n}": at for n, at in enumerate(times_ms)})
