"""The janitor of the queue: every generation ends."""

from __future__ import annotations

import pytest

from shared.errors import Unavailable
from shared.log.events import decode
from shared.log.records import RESTORE_WITHIN_S
from shared.queue import janitor as janitor_module
from shared.queue.endings import CANCELLED
from shared.queue.janitor import (
    NEVER_BEGAN_S,
    WORKER_GONE_S,
    Janitor,
)
from shared.queue.lanes import Queue
from shared.queue.leaving import forget
from shared.queue.overview import queue_depths
from shared.queue.presence import Presence, announce, workers_seen
from shared.queue.requeuing import requeue
from shared.redis import keys
from tests.support.generation import ID, Holder, create, store_on, types_of

WAITING = keys.waiting("interactive")
QUEUE_WAIT_S = 600.0


@pytest.fixture
def store(redis):
    return store_on(redis, queue_wait_s=QUEUE_WAIT_S)


@pytest.fixture
def janitor(store):
    return Janitor(store.redis, store, store.settings)


async def sweep(janitor):
    """Make a pass, as if the last one were a while ago."""
    await janitor.redis.delete(keys.janitor())
    return await janitor.sweep()


async def accept(store, *, waited_s, generation_id=ID, priority="interactive"):
    """Create a generation without a queue entry, as after a loss, waiting for `waited_s`."""
    await create(store, generation_id, priority=priority)
    await waits(store, waited_s, generation_id, priority)


async def waits(store, waited_s, generation_id=ID, priority="interactive"):
    since_ms = await store.now_ms() - round(waited_s * 1000)
    await store.redis.zadd(keys.waiting(priority), {generation_id: since_ms})
    await store.redis.hset(keys.meta(generation_id), "waiting", str(since_ms))


async def runs(store, *, lapsed_s, generation_id=ID):
    """Create a held generation whose worker was last active so long ago, minus a lease."""
    await create(store, generation_id)
    holder = await Holder.begin(store, "mine", generation_id)
    lapsed_ms = await store.now_ms() - round(lapsed_s * 1000)
    await store.redis.hset(keys.meta(generation_id), "lease", str(lapsed_ms))
    await store.redis.zadd(keys.running(), {generation_id: lapsed_ms - store.lease_ms})
    return holder


async def on_resume(store):
    queue = Queue(store.redis, "worker")
    await queue.ensure_groups()
    return [delivery.ticket.id for delivery in await queue.read("resume", 99)]


# What waits


async def test_a_recently_queued_generation_is_not_changed(janitor, store):
    await accept(store, waited_s=NEVER_BEGAN_S - 2)

    assert await sweep(janitor) == 0

    assert await on_resume(store) == []
    assert await store.redis.zscore(WAITING, ID)


@pytest.mark.parametrize("priority", keys.PRIORITIES)
async def test_a_generation_with_a_lost_entry_is_requeued(janitor, store, priority):
    await accept(store, waited_s=NEVER_BEGAN_S + 1, priority=priority)

    assert await sweep(janitor) == 1

    queue = Queue(store.redis, "worker")
    await queue.ensure_groups()
    (found,) = await queue.read("resume", 9)
    assert (found.ticket.id, found.ticket.priority, found.ticket.model) == (ID, priority, "demo")
    assert (await queue_depths(store))[priority] == 1


async def test_a_generation_is_requeued_at_most_once_in_a_while(janitor, store):
    await accept(store, waited_s=NEVER_BEGAN_S + 1)

    for _ in range(5):
        await sweep(janitor)
    await requeue(store, ID, "interactive")

    assert await on_resume(store) == [ID]


async def sweep_after_the_guard(janitor):
    """Make a pass, as if the last requeuing were a while ago."""
    await janitor.redis.delete(keys.requeued(ID))
    return await sweep(janitor)


@pytest.mark.parametrize("is_read", [False, True], ids=["unread", "read"])
async def test_a_generation_is_not_requeued_while_its_entry_is_on_the_lane(janitor, store, is_read):
    """All workers are busy, or each of them leaves the entry to others that have the model."""
    await accept(store, waited_s=NEVER_BEGAN_S + 1)
    await sweep(janitor)
    if is_read:
        assert await on_resume(store) == [ID]

    assert [await sweep_after_the_guard(janitor) for _ in range(3)] == [0, 0, 0]

    assert await store.redis.xlen(keys.lane("resume")) == 1
    assert await store.redis.pttl(f"{keys.requeued(ID)}:entry") > 500_000


@pytest.mark.parametrize("is_deleted", [True, False], ids=["deleted", "left on the lane"])
async def test_a_generation_is_requeued_after_its_entry_was_acknowledged(
    janitor, store, is_deleted
):
    await accept(store, waited_s=NEVER_BEGAN_S + 1)
    await sweep(janitor)
    queue = Queue(store.redis, "worker")
    await queue.ensure_groups()
    (delivery,) = await queue.read("resume", 9)
    await store.redis.xack(delivery.stream, keys.GROUP, delivery.entry_id)
    if is_deleted:
        await queue.acknowledge(delivery)

    assert await sweep_after_the_guard(janitor) == 1

    assert await on_resume(store) == [ID]


async def test_the_entry_of_a_lane_without_its_group_is_still_to_be_read(janitor, store):
    await accept(store, waited_s=NEVER_BEGAN_S + 1)
    assert await sweep(janitor) == 1
    assert await sweep_after_the_guard(janitor) == 0
    assert await on_resume(store) == [ID]


async def test_a_requeued_generation_keeps_its_waiting_time(janitor, store):
    await accept(store, waited_s=NEVER_BEGAN_S + 1)
    since = await store.redis.zscore(WAITING, ID)

    await sweep(janitor)

    assert await store.redis.zscore(WAITING, ID) == since


async def test_a_generation_that_waited_too_long_ends(janitor, store):
    """Also if there has never been a worker."""
    await accept(store, waited_s=QUEUE_WAIT_S + 1)

    assert await sweep(janitor) == 1

    meta = await store.meta(ID)
    end = decode(meta.end)
    assert (meta.status, end.error.code, end.error.retryable) == ("failed", "queue_timeout", True)
    assert await types_of(store) == ["end"]
    assert await store.redis.zcard(WAITING) == 0


async def test_a_short_queue_wait_is_kept(redis):
    store = store_on(redis, queue_wait_s=2.0)
    janitor = Janitor(redis, store, store.settings)
    await accept(store, waited_s=1.5)
    assert await sweep(janitor) == 0

    await waits(store, 2.5)

    assert await sweep(janitor) == 1
    assert (await store.meta(ID)).status == "failed"


async def test_a_released_generation_waits_anew(janitor, store):
    """A late retry must not shorten the wait."""
    await create(store)
    await store.redis.hset(keys.meta(ID), "created", "1")
    holder = await Holder.begin(store)
    await holder.release(has_failed=True)
    await store.redis.zadd(WAITING, {ID: 1})

    assert await sweep(janitor) == 0

    assert (await store.meta(ID)).status == "running"


async def test_a_released_generation_that_is_never_taken_ends(janitor, store):
    await create(store)
    holder = await Holder.begin(store)
    await holder.release(has_failed=True)
    await waits(store, QUEUE_WAIT_S + 1)

    assert await sweep(janitor) == 1

    assert decode((await store.meta(ID)).end).error.code == "queue_timeout"
    assert await types_of(store) == ["start", "end"]


async def test_a_postponed_generation_is_not_requeued_early(janitor, store):
    """Its waiting time begins when it is due."""
    await create(store)
    holder = await Holder.begin(store)
    await holder.release(has_failed=True)
    await store.redis.zadd(WAITING, {ID: await store.now_ms() + 60_000})
    waited_ms = await store.now_ms() - round(1000 * (NEVER_BEGAN_S + 5))
    await store.redis.hset(keys.meta(ID), "waiting", str(waited_ms))

    assert await sweep(janitor) == 0

    assert await on_resume(store) == []


# What runs


async def test_a_held_generation_is_not_changed(janitor, store):
    await runs(store, lapsed_s=-1)
    await store.redis.zadd(keys.running(), {ID: 1})

    assert await sweep(janitor) == 0

    assert await on_resume(store) == []
    assert await store.redis.zscore(keys.running(), ID)


async def test_a_recently_expired_lease_is_left_to_the_workers(janitor, store):
    await runs(store, lapsed_s=2 * store.settings.lease_s - 1)

    assert await sweep(janitor) == 0


async def test_a_generation_two_leases_after_expiry_is_requeued(janitor, store):
    await runs(store, lapsed_s=2 * store.settings.lease_s + 1)

    assert await sweep(janitor) == 1

    assert await on_resume(store) == [ID]


async def test_a_generation_that_no_worker_takes_over_ends(janitor, store):
    await runs(store, lapsed_s=QUEUE_WAIT_S + 1)

    assert await sweep(janitor) == 1

    assert (await store.meta(ID)).status == "failed"
    assert await types_of(store) == ["start", "end"]


# What has ended, and what is not there


@pytest.fixture
def away(monkeypatch):
    """Names of owners whose shards are away."""
    names: set[str] = set()

    def serves(_, key):
        return all(key != keys.owner_bytes(name) for name in names)

    async def forget_if_served(store, generation_id):
        if not serves(store.redis, keys.owner_bytes((await store.meta(generation_id)).owner)):
            raise Unavailable("the shard is away")
        await forget(store, generation_id)

    monkeypatch.setattr(janitor_module, "is_partly_away", lambda _: bool(names))
    monkeypatch.setattr(janitor_module, "serves", serves)
    monkeypatch.setattr(janitor_module, "forget", forget_if_served)
    return names


async def test_ended_generations_whose_owner_is_away_do_not_hide_lost_ones(
    janitor, store, away, monkeypatch
):
    monkeypatch.setattr(janitor_module, "MEMBERS_PER_PASS", 2)
    ended = [f"gen_ended{n:03}" for n in range(5)]
    for n, name in enumerate(ended):
        await create(store, name, owner="alice")
        await store.close(name, CANCELLED)
        await store.redis.zadd(keys.running(), {name: n})
    await runs(store, lapsed_s=2 * store.settings.lease_s + 1)
    away.add("alice")

    await sweep(janitor)

    assert await on_resume(store) == [ID]
    assert await store.redis.zcard(keys.running()) == len(ended) + 1

    away.clear()
    for _ in range(3):
        await sweep(janitor)
    assert await store.redis.zrange(keys.running(), 0, -1) == [ID.encode()]


async def test_a_lost_generation_is_requeued_although_its_owner_is_away(janitor, store, away):
    await runs(store, lapsed_s=2 * store.settings.lease_s + 1)
    away.add((await store.meta(ID)).owner)

    await sweep(janitor)

    assert await on_resume(store) == [ID]


@pytest.mark.parametrize("index", [WAITING, keys.waiting("batch"), keys.running()])
async def test_an_ended_generation_leaves_the_indexes(janitor, store, index):
    await create(store)
    await store.close(ID, CANCELLED)
    await store.redis.zadd(index, {ID: 1})

    assert await sweep(janitor) == 1

    assert await store.redis.zcard(index) == 0
    assert await types_of(store) == ["end"]


@pytest.mark.parametrize("index", [WAITING, keys.waiting("batch"), keys.running()])
async def test_an_absent_generation_leaves_the_indexes_after_the_restore_time(
    janitor, store, index
):
    now_ms = await store.now_ms()
    await store.redis.zadd(
        index,
        {"gen_gone0000": now_ms - round(1000 * RESTORE_WITHIN_S) - 1, "gen_new00000": now_ms},
    )

    await sweep(janitor)

    assert await store.redis.zrange(index, 0, -1) == [b"gen_new00000"]
    assert await on_resume(store) == []


async def test_a_sealed_generation_leaves_the_indexes(janitor, store):
    await store.seal(ID)
    await store.redis.zadd(keys.running(), {ID: 1})

    assert await sweep(janitor) == 1

    assert await store.redis.zcard(keys.running()) == 0


async def test_one_pass_checks_many_generations(janitor, store):
    for n in range(20):
        await accept(store, waited_s=QUEUE_WAIT_S + 1, generation_id=f"gen_many{n:04}")

    assert await sweep(janitor) == 20


# Passes


async def test_one_pass_is_enough_for_all_processes(janitor, store):
    await accept(store, waited_s=QUEUE_WAIT_S + 1)
    other = Janitor(store.redis, store, store.settings)

    assert await janitor.sweep() == 1
    await accept(store, waited_s=QUEUE_WAIT_S + 1, generation_id="gen_second00")
    assert await other.sweep() == 0

    assert 0 < await store.redis.pttl(keys.janitor()) <= 1_000


async def test_a_pass_over_nothing_does_nothing(janitor):
    assert await sweep(janitor) == 0


# Workers


def presence(name, at_ms):
    return Presence(name, at_ms, 100, 0, False, {})


async def test_the_presence_of_a_long_silent_worker_is_deleted(janitor, store):
    now_ms = await store.now_ms()
    gone_ms = now_ms - round(1000 * WORKER_GONE_S) - 1
    for each in (
        presence("gone", gone_ms),
        presence("here", now_ms),
        presence("late", now_ms - 99),
    ):
        await announce(store.redis, each)

    await sweep(janitor)

    assert sorted(each.worker for each in await workers_seen(store.redis)) == ["here", "late"]


async def test_a_line_of_a_batch_waits_for_its_own_time(janitor, store):
    """Meanwhile it is requeued like any other generation."""
    await accept(store, waited_s=QUEUE_WAIT_S + 1, priority="batch")
    await store.redis.hset(keys.meta(ID), "wait", str(round(2 * QUEUE_WAIT_S * 1000)))

    await sweep(janitor)

    assert await types_of(store) == []
    assert await on_resume(store) == [ID]

    await waits(store, 2 * QUEUE_WAIT_S + 1, priority="batch")
    await sweep(janitor)

    assert await types_of(store) == ["end"]
