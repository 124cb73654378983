"""The one end of a generation: finish, close, cancel and seal."""

from __future__ import annotations

from shared.log.ids import START, EventId
from shared.log.records import (
    Absent,
    Ended,
    Held,
    Ok,
    failed,
)
from shared.queue.endings import CANCELLED, cancel
from shared.redis import keys
from tests.support.generation import (
    END,
    ID,
    Holder,
    log_of,
    lose,
    types_of,
)
from tests.unit.shared.log.store_scene import RETENTION_MS, next_message, set_field

# The end


async def test_finish_sets_status_end_and_expiry_in_one_step(store):
    holder = await Holder.begin(store)
    await store.attach_readers(ID, "node")

    assert await holder.finish("a") == Ok()

    meta = await store.meta(ID)
    assert await types_of(store) == ["start", "a", "end"]
    assert (meta.status, meta.end, meta.lease_ms, meta.waiting_since_ms) == ("completed", END, 0, 0)
    assert 0 <= await store.now_ms() - meta.ended_at_ms < 60_000
    assert 0 < await store.redis.pttl(keys.log(ID)) <= RETENTION_MS
    assert RETENTION_MS < await store.redis.pttl(keys.meta(ID)) <= 2 * RETENTION_MS
    assert 0 < await store.redis.pttl(keys.readers(ID)), "expires by itself"


async def test_nothing_expires_before_the_end(store):
    holder = await Holder.begin(store)
    await holder.say("a")
    await holder.renew()

    assert await store.redis.pttl(keys.log(ID)) == -1
    assert await store.redis.pttl(keys.meta(ID)) == -1


async def test_a_resent_finish_returns_ended(store):
    holder = await Holder.begin(store)
    await holder.finish("a")
    before = await log_of(store)

    assert await holder.finish("a") == Ended()
    assert await log_of(store) == before


async def test_a_partly_written_finish_adds_the_rest(store):
    holder = await Holder.begin(store)
    await holder.say("a")

    assert await holder.finish("a", "b") == Ok()

    assert await types_of(store) == ["start", "a", "b", "end"]


async def test_the_first_end_wins(store):
    holder = await Holder.begin(store)

    cancelled = await store.close(ID, CANCELLED)
    assert await holder.finish("a") == Ended()
    assert await store.close(ID, failed("x", "y", retryable=False)) == Ended()

    meta = await store.meta(ID)
    assert meta.status == "cancelled"
    assert await types_of(store) == ["start", "end"]
    assert cancelled == EventId(cancelled.attempt, 2)
    assert cancelled.attempt > holder.attempt, "under an attempt number of its own"
    assert meta.attempt == cancelled.attempt


async def test_a_cancel_after_the_end_changes_nothing(store):
    holder = await Holder.begin(store)
    await holder.finish("a")
    before = await log_of(store)

    meta = await cancel(store, ID)

    assert meta.status == "completed"
    assert await log_of(store) == before


async def test_a_closed_queued_generation_has_only_its_end(store):
    outcome = await store.close(ID, CANCELLED)

    assert await log_of(store) == [(outcome, (await store.meta(ID)).end)]
    assert outcome.seq == 1
    assert await types_of(store) == ["end"]
    assert 0 < await store.redis.pttl(keys.log(ID)) <= RETENTION_MS
    assert RETENTION_MS < await store.redis.pttl(keys.meta(ID)) <= 2 * RETENTION_MS


async def test_an_absent_generation_cannot_be_closed(store):
    assert await store.close("gen_nobody00", CANCELLED) == Absent()
    assert await cancel(store, "gen_nobody00") is None


async def test_close_with_idle_ms_keeps_a_held_or_recent_generation(store):
    assert await store.close(ID, CANCELLED, idle_ms=5_000) == Held(0)
    await set_field(store, "waiting", str(await store.now_ms() - 4_000))
    assert await store.close(ID, CANCELLED, idle_ms=5_000) == Held(0)
    holder = await Holder.begin(store)
    assert await store.close(ID, CANCELLED, idle_ms=5_000) == Held(0)
    assert await store.close(ID, CANCELLED, idle_ms=0) == Held(0), "its lease lives"

    assert await holder.say("a") == Ok()


async def test_close_with_idle_ms_ends_a_generation_that_waited_for_longer(store):
    await set_field(store, "waiting", str(await store.now_ms() - 5_001))

    assert isinstance(await store.close(ID, CANCELLED, idle_ms=5_000), EventId)


async def test_close_with_idle_ms_counts_from_the_end_of_an_expired_lease(store):
    await Holder.begin(store)
    await set_field(store, "lease", str(await store.now_ms() - 4_000))
    assert await store.close(ID, CANCELLED, idle_ms=5_000) == Held(0)

    await set_field(store, "lease", str(await store.now_ms() - 5_001))

    assert isinstance(await store.close(ID, CANCELLED, idle_ms=5_000), EventId)


async def test_a_cancel_removes_it_from_the_indexes_and_notifies_the_workers(store):
    await store.redis.zadd(keys.waiting("interactive"), {ID: 1})
    await store.redis.zadd(keys.running(), {ID: 1, "gen_other000": 1})
    async with store.redis.pubsub(ignore_subscribe_messages=True) as heard:
        await heard.subscribe(keys.CANCEL)

        meta = await cancel(store, ID)

        assert (await next_message(heard)) == ID.encode()
    assert meta.status == "cancelled"
    assert await store.redis.zcard(keys.waiting("interactive")) == 0
    assert await store.redis.zrange(keys.running(), 0, -1) == [b"gen_other000"]


# Seal


async def test_a_seal_refuses_everything(store):
    holder = await Holder.begin(store)
    await holder.say("a")
    log = await log_of(store)
    await lose(store)

    assert await store.seal(ID) == "sealed"
    assert await store.seal(ID) == "sealed"

    assert await store.begin(ID, "another", "worker") == Ended()
    assert await store.begin(ID, "mine", "worker") == Ended()
    assert await holder.say("b") == Ended()
    assert await holder.finish() == Ended()
    assert await holder.renew() == Ended()
    assert await holder.release() == Ended()
    assert await holder.restore(START, *log) == Ended()
    assert await store.close(ID, CANCELLED) == Ended()
    assert not await store.attach_readers(ID, "node")
    assert (await store.create(ID, {"model": "demo"}, may_be_lost=True))[:2] == (False, "sealed")
    assert await log_of(store) == []
    assert (await store.meta(ID)).status == "sealed"
    assert not (await store.meta(ID)).is_ended
    assert 0 < await store.redis.pttl(keys.meta(ID)) <= RETENTION_MS


async def test_only_an_absent_generation_can_be_sealed(store):
    assert await store.seal(ID) == "queued"
    await Holder.begin(store)
    assert await store.seal(ID) == "running"
    await store.close(ID, CANCELLED)
    assert await store.seal(ID) == "cancelled"

    assert await types_of(store) == ["start", "end"]


async def test_a_seal_deletes_the_rest_of_the_log(store):
    await Holder.begin(store)
    await store.redis.delete(keys.meta(ID))

    await store.seal(ID)

    assert not await store.redis.exists(keys.log(ID))
