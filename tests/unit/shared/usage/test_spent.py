"""What a worker has counted itself: it replaces what the end says, and only for its own attempt."""

from __future__ import annotations

import pytest

from shared.log.events import Counts, End, encode_counts
from shared.queue.endings import cancel
from shared.redis import keys
from shared.usage.settlement import Settlement
from tests.support.generation import ID, Holder, create, store_on
from tests.unit.shared.usage.test_settlement import look, totals

SEEN = Counts(40, 30, 70)


@pytest.fixture
def store(redis):
    return store_on(redis, retention_s=100)


@pytest.fixture
def settlement(store):
    return Settlement(store.redis, store, store.settings)


async def note(store, attempt, counts=SEEN):
    args = [attempt, encode_counts(counts)]
    return await store.scripts.run("spend", [keys.meta(ID)], args)


async def test_the_worker_of_a_cancelled_answer_has_the_last_word(settlement, store):
    await create(store)
    holder = await Holder.begin(store)
    await holder.say("one")
    await cancel(store, ID)
    await look(settlement)
    assert (await totals(settlement))[2] == 1

    assert await note(store, holder.attempt) == 1
    await settlement.settle([ID])

    assert await totals(settlement) == (1, 40, 30, 0, 0)


async def test_an_end_without_counts_takes_those_of_its_worker(settlement, store):
    await create(store)
    holder = await Holder.begin(store)
    await holder.finish("one", "two")

    assert await note(store, holder.attempt) == 1
    await settlement.settle([ID])

    assert await totals(settlement) == (1, 40, 30, 0, 0)


async def test_a_worker_that_was_taken_over_says_nothing(store):
    await create(store)
    first = await Holder.begin(store)
    await first.release()
    second = await Holder.begin(store, "second")
    await cancel(store, ID)

    assert await note(store, first.attempt) == 0
    assert await note(store, second.attempt) == 1


@pytest.mark.parametrize("state", ["absent", "running", "deleted"])
async def test_nothing_is_noted_of_a_generation_without_an_end(store, state):
    attempt = 1
    if state != "absent":
        await create(store)
        attempt = (await Holder.begin(store)).attempt
    if state == "deleted":
        await store.close(ID, End("cancelled", "cancelled"))
        await store.delete(ID)

    assert await note(store, attempt) == 0
    assert not await store.redis.hexists(keys.meta(ID), "spent")
