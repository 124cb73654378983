"""The settlement: what an ended generation took is counted once, whichever step is the last one.

A process that dies between two steps leaves what the tests here leave, and the next look goes on.
"""

from __future__ import annotations

from datetime import date

import pytest

from shared.log.events import Counts, End, Usage, encode
from shared.log.request import Request, encode_request
from shared.queue.endings import cancel, cancel_many
from shared.queue.janitor import Janitor
from shared.queue.lanes import Delivery, LaneEntry, Queue
from shared.queue.leaving import forget
from shared.redis import keys
from shared.usage import settlement as settlement_module
from shared.usage.ledger import day_of
from shared.usage.settlement import Settlement
from tests.support.generation import ID, Holder, create, let_lapse, lose, store_on

OTHER = "gen_otherother"
USED = Counts(12, 7, 19, {"prompt_tokens_details": {"cached_tokens": 4}})


@pytest.fixture
def store(redis):
    return store_on(redis, retention_s=100)


@pytest.fixture
def settlement(store):
    return Settlement(store.redis, store, store.settings)


async def totals(settlement, owner="alice"):
    """The sums of an owner without the time: prompts, input, output, cached, estimated."""
    today = day_of(await settlement.store.now_ms())
    ((rows),) = await settlement.ledger.rows([owner], date(today.year - 1, 1, 1), today)
    columns = list(zip(*(row.figures for row in rows), strict=True))
    return tuple(map(sum, columns))[:5]


async def held_ms(settlement):
    today = day_of(await settlement.store.now_ms())
    ((rows),) = await settlement.ledger.rows(["alice"], today, today)
    return sum(row.figures.held_ms for row in rows)


async def look(settlement):
    return await settlement.look(keys.QUEUE)


async def end(store, usage=USED, generation_id=ID, *texts):
    holder = await Holder.begin(store, "mine", generation_id)
    raws = [encode(End("completed", "stop", usage=usage))]
    await store.append_many([holder.batch(*raws, status="completed")])
    return holder


async def unsettled(store):
    return [raw.decode() for raw in await store.redis.zrange(keys.unsettled(), 0, -1)]


async def test_an_ended_generation_is_counted_and_leaves_the_index(settlement, store):
    await create(store)
    await end(store)
    await forget(store, ID)

    assert await look(settlement) == 1
    assert await totals(settlement) == (1, 12, 7, 4, 0)
    assert await unsettled(store) == []
    assert await look(settlement) == 0


async def test_a_worker_leaves_with_the_generation_in_the_index(settlement, store):
    await create(store)
    queue = Queue(store.redis, "worker")
    await queue.ensure_groups()
    await store.redis.zadd(keys.waiting("interactive"), {ID: 1})
    await end(store)
    delivery = Delivery("interactive", b"1-1", LaneEntry(1, ID, "interactive", "demo"))

    await queue.leave(delivery, ID, store.retention_ms)

    assert await unsettled(store) == [ID]
    assert await store.redis.zcard(keys.waiting("interactive")) == 0


async def test_a_process_that_dies_after_the_end_leaves_the_rest_to_the_janitor(settlement, store):
    await create(store)
    await store.redis.zadd(keys.running(), {ID: 1})
    await end(store)

    await Janitor(store.redis, store, store.settings).sweep()

    assert await totals(settlement) == (1, 12, 7, 4, 0)
    assert await unsettled(store) == []


async def test_a_process_that_dies_after_the_ledger_counts_nothing_twice(settlement, store):
    await create(store)
    await end(store)
    await forget(store, ID)
    await settlement.settle([ID])  # and it dies before the index is told

    await look(settlement)

    assert await totals(settlement) == (1, 12, 7, 4, 0)


async def test_a_generation_that_leaves_again_counts_nothing_twice(settlement, store):
    await create(store)
    await end(store)
    for _ in range(3):
        await forget(store, ID)
        await look(settlement)

    assert await totals(settlement) == (1, 12, 7, 4, 0)


async def test_a_generation_that_leaves_during_a_look_is_looked_at_again(settlement, store):
    await create(store)
    await end(store)
    await forget(store, ID)
    settle = settlement.ledger.settle

    async def settle_late(facts):
        counted = await settle(facts)
        await forget(store, ID)
        return counted

    settlement.ledger.settle = settle_late
    await look(settlement)

    assert await unsettled(store) == [ID]


async def test_a_generation_that_goes_on_is_not_counted(settlement, store):
    await create(store)
    await Holder.begin(store)
    await forget(store, ID)

    assert await look(settlement) == 0
    assert await totals(settlement) == ()
    assert await unsettled(store) == []


async def test_a_generation_that_redis_lost_is_not_counted(settlement, store):
    await create(store)
    await end(store)
    await forget(store, ID)
    await lose(store)

    assert await look(settlement) == 0
    assert await unsettled(store) == []


async def test_an_end_without_counts_is_counted_from_the_log(settlement, store):
    request = encode_request(Request(messages=[{"role": "user", "content": "x" * 40}]))
    await create(store, request=request)
    holder = await Holder.begin(store)
    await holder.finish("one ", "two ", "three")
    await forget(store, ID)

    await look(settlement)

    assert await totals(settlement) == (1, 10, 3, 0, 13)


async def test_tokens_before_a_cancel_are_counted_once(settlement, store):
    await create(store)
    holder = await Holder.begin(store)
    await holder.append(encode(Usage(12, 7, 19)))

    await cancel(store, ID)
    await look(settlement)

    assert await totals(settlement) == (1, 12, 7, 0, 0)


async def test_a_queued_generation_that_is_cancelled_is_a_prompt_without_tokens(settlement, store):
    await create(store)

    await cancel(store, ID)
    await look(settlement)

    assert await totals(settlement) == (1, 0, 0, 0, 0)


async def test_the_cancelled_lines_of_a_batch_are_counted(settlement, store):
    for name in (ID, OTHER):
        await create(store, name)
    await (await Holder.begin(store)).say("one", "two")

    await cancel_many(store, [ID, OTHER])
    await look(settlement)

    assert await totals(settlement) == (2, 0, 2, 0, 2)


async def test_the_log_of_a_batch_is_no_usage(settlement, store):
    await create(store, model="")
    await end(store)
    await forget(store, ID)

    assert await look(settlement) == 0


async def test_the_time_of_every_worker_that_held_a_generation_is_counted(settlement, store):
    await create(store)
    first = await Holder.begin(store)
    await backdate(store, 1_000)
    await first.release()
    second = await Holder.begin(store, "second")
    await backdate(store, 2_000)
    await second.finish()
    await forget(store, ID)
    await look(settlement)

    assert 3_000 <= await held_ms(settlement) < 4_000


async def test_a_dead_worker_counts_until_its_lease_ran_out(settlement, store):
    await create(store)
    await Holder.begin(store)
    await backdate(store, 60_000)
    now_ms = await store.now_ms()
    await store.redis.hset(keys.meta(ID), "lease", now_ms - 50_000)
    second = await Holder.begin(store, "second")
    await second.finish()
    await forget(store, ID)
    await look(settlement)

    assert 9_000 < await held_ms(settlement) < 11_000


async def test_a_cancel_does_not_count_the_time_after_a_lapsed_lease(settlement, store):
    await create(store)
    await Holder.begin(store)
    await let_lapse(store)

    await cancel(store, ID)
    await look(settlement)

    assert await held_ms(settlement) == 0


async def backdate(store, ms):
    """Let the present holder have begun `ms` earlier."""
    held = int(await store.redis.hget(keys.meta(ID), "held"))
    await store.redis.hset(keys.meta(ID), "held", held - ms)


async def test_nothing_is_noted_where_usage_is_not_counted(redis):
    store = store_on(redis, usage_days=0)
    await create(store)
    await store.redis.zadd(keys.waiting("interactive"), {ID: 1})
    await cancel(store, ID)
    await cancel_many(store, [ID])
    await Janitor(store.redis, store, store.settings).sweep()

    assert [key async for key in redis.scan_iter("*unsettled")] == []
    assert [key async for key in redis.scan_iter("*usage*")] == []
    assert await redis.zcard(keys.waiting("interactive")) == 0


async def test_a_generation_whose_shard_is_away_stays_in_the_index(settlement, store, monkeypatch):
    for name in (ID, OTHER):
        await create(store, name)
        await end(store, generation_id=name)
        await forget(store, name)
    away = {keys.meta(ID)}
    monkeypatch.setattr(settlement_module, "serves", lambda redis, *names: away.isdisjoint(names))

    assert await look(settlement) == 1
    assert await unsettled(store) == [ID]
    away.clear()
    assert await look(settlement) == 1
    assert await totals(settlement) == (2, 24, 14, 8, 0)


async def test_an_owner_whose_shard_is_away_delays_no_other(settlement, store, monkeypatch):
    monkeypatch.setattr(settlement_module, "PAGE", 1)
    for name, owner in ((ID, "alice"), (OTHER, "bob")):
        await create(store, name, owner=owner)
        await end(store, generation_id=name)
        await forget(store, name)
    hidden = keys.usage_forgotten("alice")
    monkeypatch.setattr(settlement_module, "serves", lambda redis, *names: hidden not in names)

    assert await look(settlement) == 1
    assert await totals(settlement, "bob") == (1, 12, 7, 4, 0)
    assert await unsettled(store) == [ID]
