"""Append, renew and release: what a holder may write, and when it is refused."""

from __future__ import annotations

from shared.log.ids import START, EventId
from shared.log.records import (
    Begun,
    Behind,
    Ended,
    Fenced,
    Lost,
    Ok,
)
from shared.queue.endings import CANCELLED
from shared.redis import keys
from tests.support.generation import (
    END,
    ID,
    Holder,
    create,
    let_lapse,
    log_of,
    lose,
    lose_tail,
    token,
    types_of,
)
from tests.unit.shared.log.store_scene import field, set_field


async def test_append_writes_in_order_and_extends_the_lease(store):
    holder = await Holder.begin(store)
    await let_lapse(store)

    assert await holder.say("a", "b") == Ok()

    a = holder.attempt
    assert await log_of(store) == [
        holder.begun.start,
        (EventId(a, 2), token("a")),
        (EventId(a, 3), token("b")),
    ]
    assert (await store.meta(ID)).lease_ms > await store.now_ms()


async def test_a_resend_is_skipped(store):
    holder = await Holder.begin(store)
    await holder.say("a", "b")
    before = await log_of(store)

    assert await holder.say("a", "b") == Ok()

    assert await log_of(store) == before


async def test_a_resend_writes_only_the_missing_entries(store):
    holder = await Holder.begin(store)
    await holder.say("a", "b")

    assert await holder.say("a", "b", "c", "d") == Ok()

    assert await types_of(store) == ["start", "a", "b", "c", "d"]
    assert [event_id.seq for event_id, _ in await log_of(store)] == [1, 2, 3, 4, 5]


async def test_a_resend_does_not_replace_entries(store):
    holder = await Holder.begin(store)
    await holder.say("a")

    await holder.say("other", "b")

    assert await types_of(store) == ["start", "a", "b"]


async def test_append_returns_behind_if_the_tail_is_lost(store):
    holder = await Holder.begin(store)
    await holder.say("a", "b", "c")
    await lose_tail(store, keep=2)

    outcome = await holder.say("d", after=4)

    assert outcome == Behind(EventId(holder.attempt, 2))
    assert await types_of(store) == ["start", "a"]
    assert await holder.say("b", "c", "d", after=2) == Ok()
    assert await types_of(store) == ["start", "a", "b", "c", "d"]


async def test_append_returns_behind_if_the_whole_log_is_lost(store):
    holder = await Holder.begin(store)
    await lose_tail(store, keep=0)

    assert await holder.say("a") == Behind(START)


async def test_append_returns_lost_if_log_and_meta_are_lost(store):
    holder = await Holder.begin(store)
    await holder.say("a")
    await lose(store)

    assert await holder.say("b", after=2) == Lost(START)
    assert await holder.renew() == Lost(START)
    assert await holder.release() == Lost(START)
    assert not await store.redis.exists(keys.meta(ID), keys.log(ID))


async def test_append_returns_lost_if_redis_has_an_older_attempt(store):
    """Redis returned to a state before this attempt."""
    first = await Holder.begin(store, "first")
    await first.say("a")
    old = await store.redis.hgetall(keys.meta(ID))
    await let_lapse(store)
    second = await Holder.begin(store, "second")
    await lose_tail(store, keep=2)
    await store.redis.hset(keys.meta(ID), mapping=old)

    top = EventId(first.attempt, 2)
    assert await second.say("b") == Lost(top)
    assert await second.renew() == Lost(top)
    assert await second.release() == Lost(top)


async def test_the_holder_before_a_takeover_is_fenced(store):
    first = await Holder.begin(store, "first")
    await let_lapse(store)
    await Holder.begin(store, "second")
    before = await log_of(store)

    assert await first.say("a") == Fenced()
    assert await first.finish() == Fenced()
    assert await first.renew() == Fenced()
    assert await first.release() == Fenced()
    assert await first.restore(START) == Fenced()
    assert await log_of(store) == before
    assert await field(store, "token") == b"second"


async def test_another_token_fences_a_holder_of_the_same_attempt(store):
    """If two holders had the same attempt, only one could write."""
    holder = await Holder.begin(store)
    await set_field(store, "token", "somebody else")

    assert await holder.say("a") == Fenced()
    assert await holder.renew() == Fenced()
    assert await holder.release() == Fenced()
    assert await holder.restore(holder.begun.start[0]) == Fenced()


async def test_append_many_returns_the_outcomes_in_order(store):
    ids = [ID, "gen_second00", "gen_third000", "gen_fourth00"]
    for generation_id in ids[1:]:
        await create(store, generation_id)
    holders = [await Holder.begin(store, "mine", generation_id) for generation_id in ids]
    await store.close(ids[1], CANCELLED)
    await lose(store, ids[3])
    finish = holders[2].batch(END, status="completed")

    outcomes = await store.append_many(
        [holders[0].batch(token("a")), holders[1].batch(token("b")), finish]
        + [holders[3].batch(token("d"))]
    )

    assert outcomes == [Ok(), Ended(), Ok(), Lost(START)]
    assert await types_of(store, ids[0]) == ["start", "a"]
    assert await types_of(store, ids[2]) == ["start", "end"]


async def test_append_many_accepts_an_empty_list(store):
    assert await store.append_many([]) == []


async def test_renew_many_returns_the_outcomes_in_order(store):
    await create(store, "gen_second00")
    mine = await Holder.begin(store)
    other = await Holder.begin(store, "mine", "gen_second00")
    await store.close(ID, CANCELLED)

    outcomes = await store.renew_many(
        [
            (ID, "mine", mine.attempt, False),
            ("gen_second00", "mine", other.attempt, False),
        ]
    )

    assert outcomes == [Ended(), Ok()]


async def test_a_renewal_extends_the_lease(store):
    holder = await Holder.begin(store)
    await let_lapse(store)

    assert await holder.renew() == Ok()

    assert 0 < (await store.meta(ID)).lease_ms - await store.now_ms() <= store.lease_ms


async def test_after_a_release_another_worker_can_begin_at_once(store):
    holder = await Holder.begin(store)

    await holder.release()

    meta = await store.meta(ID)
    assert (meta.status, meta.lease_ms) == ("running", 0)
    assert meta.waiting_since_ms >= meta.created_at_ms
    assert isinstance(await store.begin(ID, "another", "worker"), Begun)
