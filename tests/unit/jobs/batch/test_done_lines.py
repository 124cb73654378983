"""A line's generation expires early only after it has left every index of the queue."""

from __future__ import annotations

import pytest

from jobs.batch import done_lines as module
from jobs.batch.done_lines import LINE_KEPT_S, DoneLines
from shared.redis import keys
from tests.support.generation import create, store_on

KEPT_MS = LINE_KEPT_S * 1000
IDS = [f"gen_line{number:06}" for number in range(5)]


@pytest.fixture
async def store(redis):
    store = store_on(redis)
    for each in IDS:
        await create(store, each)
        await redis.pexpire(keys.meta(each), 10**8)
    return store


@pytest.fixture
def done(store):
    return DoneLines(store, store.settings)


async def short(redis):
    """The generations that expire soon."""
    left_ms = {each: await redis.pttl(keys.meta(each)) for each in IDS}
    return [each for each, ms in left_ms.items() if ms <= 2 * KEPT_MS]


@pytest.mark.parametrize(
    "index",
    [keys.running(), keys.waiting("batch"), keys.waiting("interactive"), keys.unsettled()],
)
async def test_a_generation_in_an_index_stays_until_it_leaves_it(done, redis, index):
    await redis.zadd(index, {IDS[0]: 1})
    done.add(IDS[:2])
    await done.let_expire()
    assert await short(redis) == [IDS[1]]

    await redis.zrem(index, IDS[0])
    await done.let_expire()
    assert await short(redis) == IDS[:2]


async def test_unsettled_generations_hide_no_later_ones(done, redis, monkeypatch):
    monkeypatch.setattr(module, "LINES_PER_LOOK", 2)
    await redis.zadd(keys.unsettled(), dict.fromkeys(IDS[:3], 1))
    done.add(IDS)
    for _ in range(3):
        await done.let_expire()

    assert await short(redis) == IDS[3:]


async def test_a_generation_that_moves_to_unsettled_during_the_look_stays(done, redis, monkeypatch):
    await redis.zadd(keys.running(), {IDS[0]: 1})
    outside = done._outside

    async def moves(ids, indexes):
        found = await outside(ids, indexes)
        await redis.zrem(keys.running(), IDS[0])
        await redis.zadd(keys.unsettled(), {IDS[0]: 1})
        return found

    monkeypatch.setattr(done, "_outside", moves)
    done.add(IDS[:1])
    await done.let_expire()
    assert await short(redis) == []


async def test_a_generation_without_settlement_expires_early(done, redis):
    done.add(IDS)
    await done.let_expire()
    assert await short(redis) == IDS
