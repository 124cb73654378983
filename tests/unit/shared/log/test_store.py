"""The write protocol, rule by rule, through the scripts on the fake and on a real server.

The fake cannot read Redis's history, which counts as "may have forgotten": there, attempts are
milliseconds from the first on. What needs the real thing is in test_store_server.py.
"""

from __future__ import annotations

import json

import pytest

from shared.config.settings import Settings
from shared.errors import Expired, Unavailable
from shared.log.events import End, Failure, Start, decode
from shared.log.ids import START, EventId
from shared.log.records import (
    Absent,
    Append,
    Begun,
    Behind,
    Ended,
    Fenced,
    Held,
    Lost,
    Moved,
    Ok,
    Released,
    failed,
)
from shared.log.store import Store
from shared.queue.endings import CANCELLED, cancel
from shared.queue.lanes import requeue
from shared.redis import keys
from shared.redis.client import connect
from tests.support.generation import (
    END,
    ID,
    Holder,
    create,
    let_lapse,
    log_of,
    lose,
    lose_tail,
    store_on,
    token,
    types_of,
)

R_MS = 60_000


@pytest.fixture
async def store(redis):
    """A store with one queued generation."""
    store = store_on(redis, retention_s=R_MS / 1000)
    await create(store)
    return store


async def field(store, name):
    return await store.redis.hget(keys.meta(ID), name)


async def set_field(store, name, value):
    await store.redis.hset(keys.meta(ID), name, value)


# Create


async def test_a_generation_is_created_once(store):
    created_at_ms = (await store.meta(ID)).created_at_ms

    assert await store.create(ID, {"model": "other"}, may_be_lost=False) == (
        False,
        "queued",
        created_at_ms,
    )
    assert (await store.meta(ID)).model == "demo"


async def test_meta_is_what_was_given(store):
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


async def test_what_is_not_there_has_no_meta(store):
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


async def test_begin_repeated_with_the_same_token_answers_the_same_attempt(store):
    first = await store.begin(ID, "mine", "worker")
    await Holder(store, first).say("a")

    again = await store.begin(ID, "mine", "worker")

    assert again.start == first.start
    assert again.failures == first.failures
    assert await types_of(store) == ["start", "a"]


async def test_begin_is_answered_held_while_the_lease_lives(store):
    await Holder.begin(store)

    outcome = await store.begin(ID, "another", "worker")

    assert isinstance(outcome, Held)
    assert 0 < outcome.wait_ms <= store.lease_ms


async def test_a_lapsed_lease_is_taken_over_and_counts_as_a_failure(store):
    first = await Holder.begin(store)
    await first.say("a", "b")
    await let_lapse(store)

    second = await Holder.begin(store, "another")

    assert second.attempt > first.attempt
    assert second.begun.failures == 1
    assert second.seq == 4
    assert await types_of(store) == ["start", "a", "b", "start"]


async def test_the_attempt_is_above_the_logs_top_too(store):
    """Meta may be older than the log: a restore of an old snapshot, a lost write."""
    await set_field(store, "attempt", "4")
    await store.redis.xadd(keys.log(ID), {"e": token("x")}, id="7000000000000000-1")

    begun = await store.begin(ID, "mine", "worker")

    assert begun.start[0] == EventId(7_000_000_000_000_001, 2)


async def test_the_attempt_is_above_metas(store):
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


async def test_nothing_begins_on_what_is_not_there_or_has_ended(store):
    assert await store.begin("gen_nobody00", "mine", "worker") == Absent()
    assert not await store.redis.exists(keys.meta("gen_nobody00"), keys.log("gen_nobody00"))

    await store.close(ID, CANCELLED)

    assert await store.begin(ID, "mine", "worker") == Ended()
    assert await types_of(store) == ["end"]


async def test_quiet_what_has_lapsed_is_left_to_its_holder(store):
    first = await Holder.begin(store)
    await let_lapse(store)
    quiet_until_ms = await store.now_ms() + 5_000

    outcome = await store.begin(ID, "another", "worker", quiet_until_ms=quiet_until_ms)

    assert isinstance(outcome, Held)
    assert 0 < outcome.wait_ms <= 5_000
    assert await first.say("a") == Ok()


async def test_quiet_does_not_keep_from_what_is_queued_or_given_back(store):
    quiet_until_ms = await store.now_ms() + 5_000

    first = await Holder.begin(store, quiet_until_ms=quiet_until_ms)
    await first.release()
    second = await Holder.begin(store, "another", quiet_until_ms=quiet_until_ms)

    assert second.seq == 2


async def test_quiet_ends(store):
    await Holder.begin(store)
    await let_lapse(store)

    await Holder.begin(store, "another", quiet_until_ms=await store.now_ms())


async def test_a_lease_that_lapsed_in_an_outage_is_nobodys_failure(store):
    await Holder.begin(store)
    await let_lapse(store)

    second = await Holder.begin(store, "another", forgive_until_ms=await store.now_ms())

    assert second.begun.failures == 0


async def test_a_lease_that_lapsed_after_the_outage_counts(store):
    await Holder.begin(store)
    await set_field(store, "lease", "1000")

    second = await Holder.begin(store, "another", forgive_until_ms=999)

    assert second.begun.failures == 1


async def test_a_release_is_a_failure_only_where_it_says_so(store):
    first = await Holder.begin(store)
    assert await first.release() == Released(0)
    second = await Holder.begin(store, "second")
    assert second.begun.failures == 0

    assert await second.release(has_failed=True) == Released(1)

    assert (await Holder.begin(store, "third")).begun.failures == 1


async def test_attempts_are_exhausted_after_so_many_lost_workers(redis):
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


async def test_a_model_that_cannot_go_on_ends_with_its_worker(store):
    first = await Holder.begin(store, survives_worker=False)
    await first.say("a")
    await let_lapse(store)

    outcome = await store.begin(ID, "another", "worker", survives_worker=False)

    assert outcome == Ended()
    end = decode((await store.meta(ID)).end)
    assert (end.status, end.error.code, end.error.retryable) == ("failed", "worker_lost", True)
    assert await types_of(store) == ["start", "a", "end"]


async def test_such_a_model_may_be_given_back(store):
    """A drain is not a lost worker."""
    first = await Holder.begin(store, survives_worker=False)
    await first.release()

    assert await store.begin(ID, "another", "worker", survives_worker=False) != Ended()


# Append


async def test_append_writes_in_order_and_pushes_the_lease_on(store):
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


async def test_of_a_resend_only_what_is_missing_is_written(store):
    holder = await Holder.begin(store)
    await holder.say("a", "b")

    assert await holder.say("a", "b", "c", "d") == Ok()

    assert await types_of(store) == ["start", "a", "b", "c", "d"]
    assert [event_id.seq for event_id, _ in await log_of(store)] == [1, 2, 3, 4, 5]


async def test_a_resend_does_not_replace_what_stands(store):
    holder = await Holder.begin(store)
    await holder.say("a")

    await holder.say("other", "b")

    assert await types_of(store) == ["start", "a", "b"]


async def test_append_is_answered_behind_where_the_tail_was_lost(store):
    holder = await Holder.begin(store)
    await holder.say("a", "b", "c")
    await lose_tail(store, keep=2)

    outcome = await holder.say("d", after=4)

    assert outcome == Behind(EventId(holder.attempt, 2))
    assert await types_of(store) == ["start", "a"]
    assert await holder.say("b", "c", "d", after=2) == Ok()
    assert await types_of(store) == ["start", "a", "b", "c", "d"]


async def test_append_is_answered_behind_where_the_whole_log_was_lost(store):
    holder = await Holder.begin(store)
    await lose_tail(store, keep=0)

    assert await holder.say("a") == Behind(START)


async def test_append_is_answered_lost_where_nothing_is_left(store):
    holder = await Holder.begin(store)
    await holder.say("a")
    await lose(store)

    assert await holder.say("b", after=2) == Lost(START)
    assert await holder.renew() == Lost(START)
    assert await holder.release() == Lost(START)
    assert not await store.redis.exists(keys.meta(ID), keys.log(ID))


async def test_append_is_answered_lost_where_an_older_attempt_is_there(store):
    """Redis went back to before this attempt began."""
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


async def test_a_holder_that_was_taken_over_is_fenced(store):
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


async def test_the_token_is_the_fence_not_the_number(store):
    """Two holders under one number cannot be; if they were, one could write."""
    holder = await Holder.begin(store)
    await set_field(store, "token", "somebody else")

    assert await holder.say("a") == Fenced()
    assert await holder.renew() == Fenced()
    assert await holder.release() == Fenced()
    assert await holder.restore(holder.begun.start[0]) == Fenced()


async def test_many_generations_are_written_in_one_call_and_answered_in_order(store):
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


async def test_no_batches_are_no_calls(store):
    assert await store.append_many([]) == []


async def test_renewals_are_answered_in_order(store):
    await create(store, "gen_second00")
    mine = await Holder.begin(store)
    other = await Holder.begin(store, "mine", "gen_second00")
    await store.close(ID, CANCELLED)

    outcomes = await store.renew_many(
        [(ID, "mine", mine.attempt), ("gen_second00", "mine", other.attempt)]
    )

    assert outcomes == [Ended(), Ok()]


async def test_renewal_pushes_the_lease_on(store):
    holder = await Holder.begin(store)
    await let_lapse(store)

    assert await holder.renew() == Ok()

    assert 0 < (await store.meta(ID)).lease_ms - await store.now_ms() <= store.lease_ms


async def test_a_release_sets_it_free_at_once(store):
    holder = await Holder.begin(store)

    await holder.release()

    meta = await store.meta(ID)
    assert (meta.status, meta.lease_ms) == ("running", 0)
    assert meta.waiting_since_ms >= meta.created_at_ms
    assert isinstance(await store.begin(ID, "another", "worker"), Begun)


# The end


async def test_finish_sets_everything_in_one_step(store):
    holder = await Holder.begin(store)
    await store.attach_readers(ID, "node")

    assert await holder.finish("a") == Ok()

    meta = await store.meta(ID)
    assert await types_of(store) == ["start", "a", "end"]
    assert (meta.status, meta.end, meta.lease_ms, meta.waiting_since_ms) == ("completed", END, 0, 0)
    assert 0 <= await store.now_ms() - meta.ended_at_ms < 60_000
    assert 0 < await store.redis.pttl(keys.log(ID)) <= R_MS
    assert R_MS < await store.redis.pttl(keys.meta(ID)) <= 2 * R_MS
    assert 0 < await store.redis.pttl(keys.readers(ID)) <= R_MS


async def test_nothing_runs_out_before_the_end(store):
    holder = await Holder.begin(store)
    await holder.say("a")
    await holder.renew()

    assert await store.redis.pttl(keys.log(ID)) == -1
    assert await store.redis.pttl(keys.meta(ID)) == -1


async def test_a_finish_resent_is_answered_ended(store):
    holder = await Holder.begin(store)
    await holder.finish("a")
    before = await log_of(store)

    assert await holder.finish("a") == Ended()
    assert await log_of(store) == before


async def test_a_finish_of_which_a_part_stands_adds_the_rest(store):
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


async def test_a_queued_generation_that_is_closed_has_its_end_as_its_only_event(store):
    outcome = await store.close(ID, CANCELLED)

    assert await log_of(store) == [(outcome, (await store.meta(ID)).end)]
    assert outcome.seq == 1
    assert await types_of(store) == ["end"]
    assert 0 < await store.redis.pttl(keys.log(ID)) <= R_MS
    assert R_MS < await store.redis.pttl(keys.meta(ID)) <= 2 * R_MS


async def test_nothing_can_be_closed_that_is_not_there(store):
    assert await store.close("gen_nobody00", CANCELLED) == Absent()
    assert await cancel(store, "gen_nobody00") is None


async def test_close_with_idle_leaves_what_is_held_or_has_not_waited_long_enough(store):
    assert await store.close(ID, CANCELLED, idle_ms=5_000) == Held(0)
    await set_field(store, "waiting", str(await store.now_ms() - 4_000))
    assert await store.close(ID, CANCELLED, idle_ms=5_000) == Held(0)
    holder = await Holder.begin(store)
    assert await store.close(ID, CANCELLED, idle_ms=5_000) == Held(0)
    assert await store.close(ID, CANCELLED, idle_ms=0) == Held(0), "its lease lives"

    assert await holder.say("a") == Ok()


async def test_close_with_idle_ends_what_nobody_has_held_for_so_long(store):
    await set_field(store, "waiting", str(await store.now_ms() - 5_001))

    assert isinstance(await store.close(ID, CANCELLED, idle_ms=5_000), EventId)


async def test_close_with_idle_counts_from_the_lease_that_ran_out(store):
    await Holder.begin(store)
    await set_field(store, "lease", str(await store.now_ms() - 4_000))
    assert await store.close(ID, CANCELLED, idle_ms=5_000) == Held(0)

    await set_field(store, "lease", str(await store.now_ms() - 5_001))

    assert isinstance(await store.close(ID, CANCELLED, idle_ms=5_000), EventId)


async def test_a_cancel_takes_it_out_of_the_indexes_and_tells_the_workers(store):
    await store.redis.zadd(keys.waiting("interactive"), {ID: 1})
    await store.redis.zadd(keys.RUNNING, {ID: 1, "gen_other000": 1})
    async with store.redis.pubsub(ignore_subscribe_messages=True) as heard:
        await heard.subscribe(keys.CANCEL)

        meta = await cancel(store, ID)

        assert (await next_message(heard)) == ID.encode()
    assert meta.status == "cancelled"
    assert await store.redis.zcard(keys.waiting("interactive")) == 0
    assert await store.redis.zrange(keys.RUNNING, 0, -1) == [b"gen_other000"]


# Restore


async def test_restore_brings_back_a_lost_tail(store):
    holder = await Holder.begin(store)
    await holder.say("a", "b", "c")
    log = await log_of(store)
    await lose_tail(store, keep=2)

    assert await holder.restore(log[1][0], *log[2:], with_fields=False) == Ok()

    assert await log_of(store) == log
    assert await field(store, "hist") == b"lost"
    assert (await store.meta(ID)).lease_ms > await store.now_ms()


async def test_restore_brings_back_all_with_the_fields(store):
    holder = await Holder.begin(store)
    await holder.say("a")
    log, meta = await log_of(store), await store.meta(ID)
    await lose(store)

    assert await holder.restore(START, *log) == Ok()

    assert await log_of(store) == log
    again = await store.meta(ID)
    for name in ("status", "owner", "session", "model", "request", "created_at_ms", "attempt"):
        assert getattr(again, name) == getattr(meta, name), name
    assert again.waiting_since_ms == 0
    assert await holder.say("b", after=2) == Ok()


async def test_restore_in_chunks(store):
    holder = await Holder.begin(store)
    await holder.say(*"abcdef")
    log = await log_of(store)
    await lose(store)

    assert await holder.restore(START, *log[:3]) == Ok()
    assert await holder.restore(log[2][0], *log[3:], with_fields=False) == Ok()

    assert await log_of(store) == log
    assert (await store.meta(ID)).owner == "alice"


async def test_restore_does_not_overwrite_meta_that_is_there(store):
    holder = await Holder.begin(store)
    log = await log_of(store)
    await lose_tail(store, keep=0)
    await set_field(store, "session", "another")

    assert await holder.restore(START, *log) == Ok()

    assert (await store.meta(ID)).session == "another"


async def test_restore_onto_another_top_is_answered_with_that(store):
    holder = await Holder.begin(store)
    await holder.say("a", "b")
    log = await log_of(store)
    await lose_tail(store, keep=2)
    before = await log_of(store)

    assert await holder.restore(START, *log) == Moved(log[1][0])
    assert await holder.restore(log[2][0]) == Moved(log[1][0])
    assert await log_of(store) == before


@pytest.mark.parametrize("above", [0, 1])
async def test_restore_is_fenced_by_an_attempt_not_below_its_own(store, above):
    holder = await Holder.begin(store)
    await holder.say("a")
    log = await log_of(store)
    await lose_tail(store, keep=1)
    await set_field(store, "token", "another")
    await set_field(store, "attempt", str(holder.attempt + above))

    assert await holder.restore(log[0][0], *log[1:]) == Fenced()
    assert await types_of(store) == ["start"]


async def test_restore_takes_over_from_an_older_attempt(store):
    """Somebody may have begun on what Redis went back to, under a number below."""
    holder = await Holder.begin(store)
    await set_field(store, "attempt", str(holder.attempt - 1))
    await set_field(store, "token", "older")

    assert await holder.restore(holder.begun.start[0]) == Ok()

    assert await field(store, "token") == b"mine"
    assert (await store.meta(ID)).attempt == holder.attempt


async def test_restore_never_writes_after_the_end_or_a_seal(store):
    holder = await Holder.begin(store)
    log = await log_of(store)
    await store.close(ID, CANCELLED)
    assert await holder.restore((await log_of(store))[-1][0], *log) == Ended()

    await lose(store)
    assert await store.seal(ID) == "sealed"

    assert await holder.restore(START, *log) == Ended()
    assert await log_of(store) == []


async def test_after_a_restore_the_next_attempt_jumps(store):
    holder = await Holder.begin(store)
    log = await log_of(store)
    await lose(store)
    await holder.restore(START, *log)
    await holder.release()
    before_ms = await store.now_ms()

    begun = await store.begin(ID, "another", "worker")

    assert begun.start[0].attempt >= before_ms


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
    assert 0 < await store.redis.pttl(keys.meta(ID)) <= R_MS


async def test_a_seal_is_only_for_what_is_absent(store):
    assert await store.seal(ID) == "queued"
    await Holder.begin(store)
    assert await store.seal(ID) == "running"
    await store.close(ID, CANCELLED)
    assert await store.seal(ID) == "cancelled"

    assert await types_of(store) == ["start", "end"]


async def test_a_seal_takes_the_rest_of_the_log_away(store):
    await Holder.begin(store)
    await store.redis.delete(keys.meta(ID))

    await store.seal(ID)

    assert not await store.redis.exists(keys.log(ID))


# Grace

GRACE_MS = 2_000
FRESH_MS = 6_000


@pytest.fixture
async def graced(redis):
    store = store_on(redis)
    await create(store, grace=str(GRACE_MS))
    return store


async def scores(store):
    return dict(await store.redis.zrange(keys.readers(ID), 0, -1, withscores=True))


async def test_the_grace_is_known(graced):
    assert (await graced.meta(ID)).grace_s == 2.0


async def test_missing_readers_are_never_taken_for_nobody(graced):
    before_ms = await graced.now_ms()
    holder = await Holder.begin(graced)

    score = (await scores(graced))[b"-"]

    assert before_ms + FRESH_MS + GRACE_MS <= score <= await graced.now_ms() + FRESH_MS + GRACE_MS
    await graced.redis.delete(keys.readers(ID))
    assert await holder.renew() == Ok()
    assert b"-" in await scores(graced), "also where Redis has lost them"


async def test_readers_that_come_count_for_six_seconds_and_the_grace(graced):
    before_ms = await graced.now_ms()

    assert await graced.attach_readers(ID, "node")

    score = (await scores(graced))[b"node"]
    assert before_ms + FRESH_MS + GRACE_MS <= score <= await graced.now_ms() + FRESH_MS + GRACE_MS


async def test_who_came_takes_the_place_of_who_was_awaited(graced):
    """Otherwise a reader that leaves soon is waited for as long as one that never came."""
    await Holder.begin(graced)
    assert b"-" in await scores(graced)

    await graced.attach_readers(ID, "node")

    assert set(await scores(graced)) == {b"node"}


async def test_readers_that_leave_count_for_the_grace(graced):
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


async def test_the_last_of_all_nodes_decides(graced):
    holder = await Holder.begin(graced)
    now_ms = await graced.now_ms()
    await set_scores(graced, now_ms - 1, now_ms + 60_000)

    assert await holder.renew() == Ok()


async def test_without_a_grace_nobody_need_read(store):
    holder = await Holder.begin(store)
    await set_scores(store, 1)

    assert await holder.renew() == Ok()
    assert isinstance(await store.begin(ID, "mine", "worker"), Begun)


async def test_readers_that_come_too_late_are_told(graced):
    holder = await Holder.begin(graced)
    await set_scores(graced, 1)
    await holder.renew()

    assert not await graced.attach_readers(ID, "node")
    assert not await graced.attach_readers("gen_nobody00", "node")
    assert not await graced.redis.exists(keys.readers("gen_nobody00"))


async def test_no_grace_at_all_cancels_once_the_readers_have_left(redis):
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


# What is published


@pytest.fixture
async def live(store):
    async with store.redis.pubsub(ignore_subscribe_messages=True) as heard:
        await heard.subscribe(keys.live(ID))
        await heard.get_message(timeout=1.0)
        yield heard


async def next_message(heard):
    for _ in range(3):
        message = await heard.get_message(timeout=1.0)
        if message is not None:
            return message["data"]
    raise AssertionError("nothing was published")


async def silence(store, heard):
    """Nothing was published: what is published now is what comes next."""
    await store.publish(keys.live(ID), b"mark")
    assert await next_message(heard) == b"mark"


async def test_a_frame_names_the_entry_before_its_first_and_has_the_bytes_of_the_log(store, live):
    holder = await Holder.begin(store)
    a = holder.attempt
    assert await next_message(live) == f"0-0\n{a}-1 ".encode() + holder.begun.start[1]

    await holder.say("b", "c")
    assert await next_message(live) == (
        f"{a}-1\n{a}-2 ".encode() + token("b") + f"\n{a}-3 ".encode() + token("c")
    )

    await holder.finish("d", after=3)
    assert await next_message(live) == (
        f"{a}-3\n{a}-4 ".encode() + token("d") + f"\n{a}-5 ".encode() + END
    )


async def test_of_a_partial_resend_only_the_new_is_published(store, live):
    holder = await Holder.begin(store)
    await holder.say("b")
    await next_message(live)
    await next_message(live)
    a = holder.attempt

    await holder.say("b", "c")

    assert await next_message(live) == f"{a}-2\n{a}-3 ".encode() + token("c")
    await holder.say("b", "c")
    await silence(store, live)


async def test_a_takeovers_frame_follows_the_entry_of_the_attempt_before(store, live):
    first = await Holder.begin(store, "first")
    await let_lapse(store)
    second = await Holder.begin(store, "second")

    await next_message(live)
    start_id, raw = second.begun.start

    assert await next_message(live) == f"{first.attempt}-1\n{start_id} ".encode() + raw


async def test_a_begin_repeated_publishes_nothing(store, live):
    await Holder.begin(store)
    await next_message(live)

    await Holder.begin(store)

    await silence(store, live)


async def test_a_close_publishes_its_end(store, live):
    holder = await Holder.begin(store)
    await next_message(live)

    end_id = await store.close(ID, CANCELLED)

    expected = f"{holder.attempt}-1\n{end_id} ".encode() + (await store.meta(ID)).end
    assert await next_message(live) == expected


async def test_a_heal_publishes_only_the_top(store, live):
    holder = await Holder.begin(store)
    await holder.say("a", "b")
    log = await log_of(store)
    await lose(store)
    await next_message(live)
    await next_message(live)

    await holder.restore(START, *log)

    assert await next_message(live) == f"top {log[-1][0]}".encode()
    await silence(store, live)


async def test_refusals_publish_nothing(store, live):
    first = await Holder.begin(store, "first")
    await next_message(live)
    await first.release()

    await first.say("a")
    await first.renew()
    await store.begin("gen_nobody00", "mine", "worker")
    await store.seal(ID)

    await silence(store, live)


# Reading


async def test_pages_begin_with_what_was_asked_for(store):
    holder = await Holder.begin(store)
    await holder.say(*"abcdef")
    log = await log_of(store)

    assert await store.page(ID, START, 3) == log[:3]
    assert await store.page(ID, log[2][0], 3) == log[2:5], "inclusive"
    assert await store.page(ID, log[-1][0], 3) == log[-1:]
    assert await store.page(ID, EventId(holder.attempt, 99), 3) == []
    assert await store.page("gen_nobody00", START, 3) == []


async def test_cursors_of_nineteen_digits_are_only_compared(store):
    holder = await Holder.begin(store)
    await holder.say("a")
    huge = 9_999_999_999_999_999_999

    assert await store.page(ID, EventId(huge, huge), 10) == []
    assert await store.page(ID, EventId(holder.attempt, huge), 10) == []
    assert await store.page(ID, EventId(1, huge), 10) in ([], await log_of(store))


async def test_tops_of_many_in_one_call(store):
    await create(store, "gen_second00")
    holder = await Holder.begin(store)
    await holder.say("a")

    mine, queued, nobody = await store.tops([ID, "gen_second00", "gen_nobody00"])

    assert (mine.status, mine.id) == ("running", EventId(holder.attempt, 2))
    assert mine.lease_ms > mine.now_ms
    assert mine.waiting_since_ms == 0
    assert (queued.status, queued.id, queued.lease_ms) == ("queued", None, 0)
    assert 0 < queued.waiting_since_ms <= queued.now_ms
    assert (nobody.status, nobody.id) == (None, None)


async def test_the_end_is_read_as_it_was_written(store):
    end = End("failed", "error", error=Failure("upstream_error", "broken \n \u2028 ü", True))

    await store.close(ID, end)

    assert decode((await store.meta(ID)).end) == end


# Errors


async def test_when_redis_cannot_be_reached_everything_is_unavailable():
    settings = Settings(redis_url="unix:///nowhere/at/all")
    store = Store(connect(settings), settings)
    calls = [
        lambda: store.meta(ID),
        lambda: store.metas([ID]),
        lambda: store.page(ID, START, 1),
        lambda: store.tops([ID]),
        lambda: store.now_ms(),
        lambda: store.create(ID, {}, may_be_lost=False),
        lambda: store.begin(ID, "t", "w"),
        lambda: store.append_many([Append(ID, "t", 1, 0, [b"{}"])]),
        lambda: store.renew_many([(ID, "t", 1)]),
        lambda: store.restore(ID, "t", 1, START, {}, []),
        lambda: store.release(ID, "t", 1, has_failed=False),
        lambda: store.close(ID, CANCELLED),
        lambda: cancel(store, ID),
        lambda: store.seal(ID),
        lambda: store.attach_readers(ID, "n"),
        lambda: store.detach_readers(ID, "n"),
        lambda: requeue(store, ID, "batch"),
        lambda: store.publish("c", b""),
    ]
    for call in calls:
        with pytest.raises(Unavailable):
            await call()


async def test_a_cancel_of_what_has_expired_says_so(store):
    await cancel(store, ID)
    await store.redis.delete(keys.log(ID))  # its retention is over; meta stays as long again

    with pytest.raises(Expired):
        await cancel(store, ID)
