"""The write protocol on a real server: its history, memory and script cache."""

from __future__ import annotations

import pytest

from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log.ids import START, EventId
from shared.log.records import Begun, Held, Ok
from shared.log.store import Store
from shared.queue.endings import CANCELLED, cancel
from shared.queue.lanes import put_back
from shared.redis import keys
from shared.redis.connections import connect
from tests.support.generation import (
    END,
    ID,
    Holder,
    create,
    let_lapse,
    log_of,
    lose,
    store_on,
    token,
    types_of,
)
from tests.support.redis_server import RedisServer

JUMPED = 10**12  # milliseconds since 1970, not 1, 2, 3


@pytest.fixture(scope="module")
def forgetful_server():
    with RedisServer(options={"enable-debug-command": "yes"}) as server:
        yield server


@pytest.fixture
async def store(forgetful_server):
    settings = Settings(redis_url=forgetful_server.url)
    redis = connect(settings)
    await redis.flushall()
    await redis.script_flush()
    store = Store(redis, settings)
    await create(store)
    yield store
    await redis.aclose()


async def change_history(store):
    await store.redis.execute_command("DEBUG", "CHANGE-REPL-ID")


# Attempts and the history of Redis


async def test_attempts_count_from_one(store):
    for n in (1, 2, 3):
        holder = await Holder.begin(store, f"token {n}")
        assert holder.begun.start[0] == EventId(n, n)
        await holder.release()


async def test_an_end_from_outside_takes_the_next_number(store):
    await Holder.begin(store)

    assert await store.close(ID, CANCELLED) == EventId(2, 2)


async def test_a_queued_generations_end_is_its_first_event(store):
    assert await store.close(ID, CANCELLED) == EventId(1, 1)


async def test_after_a_change_of_history_the_attempt_jumps_to_the_clock(store):
    holder = await Holder.begin(store)
    await holder.release()
    await change_history(store)
    before_ms = await store.now_ms()

    second = await Holder.begin(store, "second")

    assert before_ms <= second.attempt <= await store.now_ms()
    await second.release()
    assert (await Holder.begin(store, "third")).attempt == second.attempt + 1, "seen once"


async def test_the_first_attempt_jumps_too_if_history_changed_since_the_create(store):
    await change_history(store)

    assert (await Holder.begin(store)).attempt > JUMPED


async def test_a_close_after_a_change_of_history_jumps(store):
    await Holder.begin(store)
    await change_history(store)

    assert (await store.close(ID, CANCELLED)).attempt > JUMPED


async def test_after_a_create_that_may_have_been_lost_every_attempt_jumps(store):
    await store.create("gen_second00", {"model": "demo"}, may_be_lost=True)

    first = await Holder.begin(store, "first", "gen_second00")
    await first.release()
    before_ms = await store.now_ms()
    second = await Holder.begin(store, "second", "gen_second00")

    assert first.attempt > JUMPED
    assert second.attempt >= max(before_ms, first.attempt + 1)


async def test_after_a_restore_the_next_attempt_jumps(store):
    holder = await Holder.begin(store)
    log = await log_of(store)
    await lose(store)
    await holder.restore(START, *log)
    await holder.release()

    assert holder.attempt == 1
    assert (await Holder.begin(store, "second")).attempt > JUMPED


async def test_after_a_change_of_history_a_takeover_waits_one_lease_more(store):
    """The holder may have to restore first."""
    first = await Holder.begin(store)
    await store.redis.hset(keys.meta(ID), "lease", str(await store.now_ms() - 10))
    await change_history(store)

    outcome = await store.begin(ID, "second", "worker")

    assert isinstance(outcome, Held)
    assert 0 < outcome.wait_ms <= store.lease_ms
    assert await first.say("a") == Ok(), "its token stands: it goes on"


async def test_one_lease_later_a_takeover_succeeds_and_counts_no_failure(store):
    await Holder.begin(store)
    lapsed_ms = await store.now_ms() - store.lease_ms - 10
    await store.redis.hset(keys.meta(ID), "lease", str(lapsed_ms))
    await change_history(store)

    second = await Holder.begin(store, "second")

    assert second.begun.failures == 0, "Redis was away: nobody's failure"
    assert second.attempt > JUMPED


async def test_an_expired_lease_without_a_change_of_history_is_a_failure_even_after_a_loss(store):
    await store.redis.hset(keys.meta(ID), "hist", "lost")
    await Holder.begin(store)
    await let_lapse(store)

    assert (await Holder.begin(store, "second")).begun.failures == 1


# The script cache


async def test_forgotten_scripts_are_loaded_again_within_a_batch_of_calls(real_redis):
    store = store_on(real_redis)
    ids = [f"gen_many{n:05}" for n in range(50)]
    holders = []
    for generation_id in ids:
        await create(store, generation_id)
        holders.append(await Holder.begin(store, "mine", generation_id))
    await store.append_many([holder.batch(token("a")) for holder in holders])

    await real_redis.script_flush()
    outcomes = await store.append_many(
        [holder.batch(token("a"), token("b")) for holder in holders[:-1]]
        + [holders[-1].batch(token("a"), END, status="completed")]
    )

    assert outcomes == [Ok()] * 50
    for generation_id in ids[:-1]:
        assert await types_of(store, generation_id) == ["start", "a", "b"]
    assert await types_of(store, ids[-1]) == ["start", "a", "end"]


@pytest.mark.parametrize("count", [1, 2])
async def test_every_script_survives_a_flush(real_redis, count):
    store = store_on(real_redis)
    ids = [f"gen_flush{n:04}" for n in range(count)]
    flush = real_redis.script_flush
    for generation_id in ids:
        await create(store, generation_id)
    await flush()
    holders = [await Holder.begin(store, "mine", generation_id) for generation_id in ids]
    await flush()
    renewals = [(held.generation_id, held.token, held.attempt, False) for held in holders]
    assert await store.renew_many(renewals) == [Ok()] * count
    await flush()
    assert await store.append_many([h.batch(token("a")) for h in holders]) == [Ok()] * count
    for holder in holders:
        await flush()
        assert await store.attach_readers(holder.generation_id, "node")
        await flush()
        await put_back(store, holder.generation_id, "interactive", "demo")
        await flush()
        await holder.release()
        await flush()
        assert isinstance(await store.close(holder.generation_id, CANCELLED), EventId)
        await flush()
        assert await store.seal(holder.generation_id) == "cancelled"


# A full server


@pytest.fixture(scope="module")
def small_server():
    with RedisServer(options={"maxmemory": "1gb"}) as server:
        yield server


@pytest.fixture
async def small(small_server):
    """A store on a server; `fill` uses up its memory."""
    settings = Settings(redis_url=small_server.url)
    redis = connect(settings)
    await redis.config_set("maxmemory", "1gb")
    await redis.flushall()
    yield Store(redis, settings)
    await redis.config_set("maxmemory", "1gb")
    await redis.aclose()


async def fill(store):
    used = (await store.redis.info("memory"))["used_memory"]
    await store.redis.config_set("maxmemory", str(used - 100_000))


async def empty(store):
    await store.redis.config_set("maxmemory", "1gb")


async def test_on_a_full_server_an_append_is_unavailable_in_its_place(small):
    ids = ["gen_full00000", "gen_full00001", "gen_full00002"]
    for generation_id in ids:
        await create(small, generation_id)
    holders = [await Holder.begin(small, "mine", generation_id) for generation_id in ids]
    batches = [
        holders[0].batch(token("a")),
        holders[1].batch(END, status="completed"),
        holders[2].batch(token("b")),
    ]
    await fill(small)

    first, finished, third = await small.append_many(batches)

    assert isinstance(first, Unavailable)
    assert isinstance(third, Unavailable)
    assert finished == Ok(), "an end makes room: it passes"
    await empty(small)
    assert await small.append_many(batches[::2]) == [Ok(), Ok()]
    assert await types_of(small, ids[0]) == ["start", "a"]


async def test_a_refused_append_does_not_delay_the_end_of_another_generation(small):
    """One call of each script: neither is sent in a pipeline."""
    await create(small, "gen_full00000")
    await create(small, "gen_full00001")
    one = await Holder.begin(small, "mine", "gen_full00000")
    other = await Holder.begin(small, "mine", "gen_full00001")
    await fill(small)

    refused, finished = await small.append_many(
        [one.batch(token("a")), other.batch(END, status="completed")]
    )

    assert isinstance(refused, Unavailable)
    assert finished == Ok()
    assert (await small.meta("gen_full00001")).status == "completed"


async def test_on_a_full_server_calls_that_free_memory_or_keep_a_promise_run(small):
    await create(small)
    await create(small, "gen_full00001")
    await create(small, "gen_full00002")
    holder = await Holder.begin(small)
    other = await Holder.begin(small, "mine", "gen_full00001")
    await fill(small)

    assert await small.attach_readers(ID, "node")
    assert await holder.renew() == Ok()
    assert isinstance(await small.close(ID, CANCELLED), EventId)
    await other.release()
    assert (await cancel(small, "gen_full00002")).status == "cancelled"
    assert await small.seal("gen_nobody00") == "sealed"


async def test_on_a_full_server_nothing_is_accepted_or_begun(small):
    await create(small)
    await fill(small)

    with pytest.raises(Unavailable):
        await small.create("gen_full00009", {"model": "demo"}, may_be_lost=False)
    with pytest.raises(Unavailable):
        await small.begin(ID, "mine", "worker")
    with pytest.raises(Unavailable):
        await put_back(small, ID, "interactive", "demo")

    await empty(small)
    assert isinstance(await small.begin(ID, "mine", "worker"), Begun)
    assert await small.meta("gen_full00009") is None


async def test_a_restore_of_the_largest_chunk_fits_into_one_call(store):
    """Lua's unpack fails beyond about 8,000 values: entries must not go through it."""
    holder = await Holder.begin(store)
    log = [holder.begun.start] + [(EventId(1, n), token("x" * 200)) for n in range(2, 1_001)]
    await lose(store)

    assert await holder.restore(START, *log) == Ok()

    assert await log_of(store) == log
