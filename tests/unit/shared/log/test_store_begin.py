"""Create and begin: who becomes the holder, and under which attempt."""

from __future__ import annotations

import json

from shared.log.events import Start, decode
from shared.log.ids import EventId
from shared.log.records import (
    Absent,
    Ended,
    Held,
    Ok,
    Released,
)
from shared.queue.endings import CANCELLED
from shared.redis import keys
from tests.support.generation import (
    ID,
    Holder,
    create,
    let_lapse,
    log_of,
    store_on,
    token,
    types_of,
)
from tests.unit.shared.log.store_scene import field, set_field

# Create


async def test_a_generation_is_created_once(store):
    created_at_ms = (await store.meta(ID)).created_at_ms

    assert await store.create(ID, {"model": "other"}, may_be_lost=False) == (
        False,
        "queued",
        created_at_ms,
    )
    assert (await store.meta(ID)).model == "demo"


async def test_meta_holds_the_given_fields(store):
    meta = await store.with_request(await store.meta(ID))
    now_ms = await store.now_ms()

    assert (meta.status, meta.owner, meta.session, meta.model) == (
        "queued",
        "alice",
        "chat",
        "demo",
    )
    assert (meta.priority, meta.metadata, meta.request) == (
        "interactive",
        b'{"a":1}',
        b'{"messages":[]}',
    )
    assert (meta.attempt, meta.lease_ms, meta.failures, meta.end) == (0, 0, 0, b"")
    assert meta.waiting_since_ms == meta.created_at_ms
    assert 0 <= now_ms - meta.created_at_ms < 60_000
    assert meta.grace_s is None


async def test_an_absent_generation_has_no_meta(store):
    assert await store.metas([ID, "gen_nobody00"]) == [await store.meta(ID), None]


async def test_a_create_that_may_have_been_lost_marks_it(redis):
    store = store_on(redis)

    await store.create(ID, {"model": "demo"}, may_be_lost=True)

    assert await field(store, "hist") == b"lost"


# Begin


async def test_begin_makes_the_caller_the_holder_and_writes_start(store):
    begun = await store.begin(ID, "mine", "worker-7")

    start_id, raw = begun.start
    assert await log_of(store) == [(start_id, raw)]
    assert decode(raw) == Start(attempt=start_id.attempt, model="demo")
    assert start_id.seq == 1
    meta = await store.meta(ID)
    assert (meta.status, meta.attempt, meta.waiting_since_ms) == ("running", start_id.attempt, 0)
    assert 0 < meta.lease_ms - await store.now_ms() <= store.lease_ms
    assert await field(store, "token") == b"mine"
    assert await field(store, "worker") == b"worker-7"
    assert begun.meta == await store.with_request(meta)
    assert begun.failures == 0


async def test_a_repeated_begin_with_the_same_token_returns_the_same_attempt(store):
    first = await store.begin(ID, "mine", "worker")
    await Holder(store, first).say("a")

    again = await store.begin(ID, "mine", "worker")

    assert again.start == first.start
    assert again.failures == first.failures
    assert await types_of(store) == ["start", "a"]


async def test_begin_returns_held_until_the_lease_expires(store):
    await Holder.begin(store)

    outcome = await store.begin(ID, "another", "worker")

    assert isinstance(outcome, Held)
    assert 0 < outcome.wait_ms <= store.lease_ms


async def test_a_begin_after_an_expired_lease_counts_a_failure(store):
    first = await Holder.begin(store)
    await first.say("a", "b")
    await let_lapse(store)

    second = await Holder.begin(store, "another")

    assert second.attempt > first.attempt
    assert second.begun.failures == 1
    assert second.seq == 4
    assert await types_of(store) == ["start", "a", "b", "start"]


async def test_the_attempt_is_above_that_of_the_newest_entry(store):
    """Meta may be older than the log: a restore of an old snapshot, a lost write."""
    await set_field(store, "attempt", "4")
    await store.redis.xadd(keys.log(ID), {"e": token("x")}, id="7000000000000000-1")

    begun = await store.begin(ID, "mine", "worker")

    assert begun.start[0] == EventId(7_000_000_000_000_001, 2)


async def test_the_attempt_is_above_that_of_meta(store):
    await set_field(store, "attempt", "7000000000000000")

    begun = await store.begin(ID, "mine", "worker")

    assert begun.start[0] == EventId(7_000_000_000_000_001, 1)


async def test_after_a_loss_the_attempt_jumps_to_the_clock(store):
    await set_field(store, "hist", "lost")
    before_ms = await store.now_ms()

    begun = await store.begin(ID, "mine", "worker")

    assert before_ms <= begun.start[0].attempt <= await store.now_ms()
    assert await field(store, "hist") == b"lost", "every later attempt jumps, too"


async def test_attempts_near_the_limit_of_doubles_are_written_in_full(store):
    await set_field(store, "attempt", str(2**53 - 3))

    begun = await store.begin(ID, "mine", "worker")
    holder = Holder(store, begun)

    assert begun.start[0] == EventId(2**53 - 2, 1)
    assert json.loads(begun.start[1])["attempt"] == 2**53 - 2
    assert await holder.say("a") == Ok()
    assert (await log_of(store))[1][0] == EventId(2**53 - 2, 2)
    assert await store.close(ID, CANCELLED) == EventId(2**53 - 1, 3)


async def test_no_number_has_an_exponent(store):
    holder = await Holder.begin(store)
    await holder.say("a")
    await holder.renew()
    await holder.release(has_failed=True)
    await store.close(ID, CANCELLED)

    raw = await store.redis.hgetall(keys.meta(ID))

    for name in (b"attempt", b"failures", b"lease", b"created", b"ended", b"start"):
        assert raw[name].isdigit(), (name, raw[name])


async def test_begin_is_refused_for_an_absent_or_ended_generation(store):
    assert await store.begin("gen_nobody00", "mine", "worker") == Absent()
    assert not await store.redis.exists(keys.meta("gen_nobody00"), keys.log("gen_nobody00"))

    await store.close(ID, CANCELLED)

    assert await store.begin(ID, "mine", "worker") == Ended()
    assert await types_of(store) == ["end"]


async def test_before_quiet_until_an_expired_lease_is_not_taken_over(store):
    first = await Holder.begin(store)
    await let_lapse(store)
    quiet_until_ms = await store.now_ms() + 5_000

    outcome = await store.begin(ID, "another", "worker", quiet_until_ms=quiet_until_ms)

    assert isinstance(outcome, Held)
    assert 0 < outcome.wait_ms <= 5_000
    assert await first.say("a") == Ok()


async def test_before_quiet_until_a_queued_or_released_generation_begins(store):
    quiet_until_ms = await store.now_ms() + 5_000

    first = await Holder.begin(store, quiet_until_ms=quiet_until_ms)
    await first.release()
    second = await Holder.begin(store, "another", quiet_until_ms=quiet_until_ms)

    assert second.seq == 2


async def test_at_quiet_until_an_expired_lease_is_taken_over(store):
    await Holder.begin(store)
    await let_lapse(store)

    await Holder.begin(store, "another", quiet_until_ms=await store.now_ms())


async def test_a_lease_that_expired_before_forgive_until_counts_no_failure(store):
    await Holder.begin(store)
    await let_lapse(store)

    second = await Holder.begin(store, "another", forgive_until_ms=await store.now_ms())

    assert second.begun.failures == 0


async def test_a_lease_that_expired_after_forgive_until_counts_a_failure(store):
    await Holder.begin(store)
    await set_field(store, "lease", "1000")

    second = await Holder.begin(store, "another", forgive_until_ms=999)

    assert second.begun.failures == 1


async def test_a_release_counts_a_failure_only_with_has_failed(store):
    first = await Holder.begin(store)
    assert await first.release() == Released(0)
    second = await Holder.begin(store, "second")
    assert second.begun.failures == 0

    assert await second.release(has_failed=True) == Released(1)

    assert (await Holder.begin(store, "third")).begun.failures == 1


async def test_lost_workers_exhaust_the_attempts(redis):
    store = store_on(redis, attempts_max=2)
    await create(store)
    await Holder.begin(store, "first")
    await let_lapse(store)
    await Holder.begin(store, "second")
    await let_lapse(store)

    outcome = await store.begin(ID, "third", "worker")

    assert outcome == Ended()
    meta = await store.meta(ID)
    end = decode(meta.end)
    assert meta.status == "failed"
    assert end.error.code == "attempts_exhausted"
    assert not end.error.retryable
    assert await types_of(store) == ["start", "start", "end"]
    assert (await log_of(store))[-1][1] == meta.end


async def test_a_model_that_does_not_survive_its_worker_ends_with_the_worker(store):
    first = await Holder.begin(store, survives_worker=False)
    await first.say("a")
    await let_lapse(store)

    outcome = await store.begin(ID, "another", "worker", survives_worker=False)

    assert outcome == Ended()
    end = decode((await store.meta(ID)).end)
    assert (end.status, end.error.code, end.error.retryable) == ("failed", "worker_lost", True)
    assert await types_of(store) == ["start", "a", "end"]


async def test_a_model_that_does_not_survive_its_worker_may_be_released(store):
    """A drain is not a lost worker."""
    first = await Holder.begin(store, survives_worker=False)
    await first.release()

    assert await store.begin(ID, "another", "worker", survives_worker=False) != Ended()
