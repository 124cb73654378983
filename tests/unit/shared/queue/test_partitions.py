"""The partitions of the queue: the place of each id, one order over all, and one number for all."""

from __future__ import annotations

import dataclasses

import pytest

from shared.config.settings import Settings
from shared.errors import ConfigurationError, RequestError
from shared.queue import partitions
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.endings import cancel, cancel_many
from shared.queue.janitor import Janitor
from shared.queue.lanes import NEVER_BEGAN_S, Queue, encode_entry, put_back
from shared.queue.overview import oldest_waiting_s, queue_depths, running_of
from shared.queue.partitions import Partitions, agree, partitions_of, record
from shared.redis import keys
from shared.redis.cluster.slots import SLOTS, key_slot
from tests.support.generation import create, store_on

COUNT = 4
PARTITIONS = Partitions(COUNT)
NEW = NewGeneration("alice", "demo", b'{"messages":[]}')


@pytest.fixture
def store(redis):
    return store_on(redis, queue_partitions=COUNT)


@pytest.fixture
async def queue(redis):
    queue = Queue(redis, "worker-1", partitions=PARTITIONS)
    await queue.ensure_groups()
    return queue


def id_in(tag, number=0):
    """Return the id number `number` of a partition."""
    found = (id for n in range(10_000) if PARTITIONS.of(id := f"gen_{n:010}") == tag)
    return [next(found) for _ in range(number + 1)][-1]


async def add(queue, lane, tag, number=0):
    entry = encode_entry(id_in(tag, number), "interactive", "demo")
    await queue.redis.xadd(keys.lane(lane, tag), {"e": entry})


def tags_of(deliveries):
    return [delivery.tag for delivery in deliveries]


# The place of an id


def test_one_partition_has_the_names_of_versions_without_partitions():
    assert Partitions(1).tags == ("q",)
    assert keys.lane("resume", Partitions(1).of("gen_x")) == "tr:{q}:resume"
    assert PARTITIONS.tags == ("q0", "q1", "q2", "q3")


def test_every_version_finds_an_id_in_the_same_partition():
    """Workers and nodes of two versions share a Redis during an upgrade."""
    ids = ["gen_0123456789", "gen_9876543210", "batch_0000000001", "\udc80"]

    assert [Partitions(8).of(each) for each in ids] == ["q7", "q4", "q6", "q3"]


def test_ids_spread_evenly():
    sizes = [len(ids) for ids in PARTITIONS.grouped(f"gen_{n:026}" for n in range(4_000)).values()]

    assert len(sizes) == COUNT and max(sizes) < 1.1 * 1_000


# Reading


@pytest.mark.parametrize("count", [1, 2, 3, 9])
async def test_a_read_takes_no_more_entries_than_may_start(queue, count):
    for tag in PARTITIONS.tags:
        for number in range(3):
            await add(queue, "interactive", tag, number)

    found = await queue.read("interactive", count)

    assert min(count, COUNT) <= len(found) <= count


async def test_a_read_finds_the_only_entry_in_any_partition(queue):
    for tag in PARTITIONS.tags:
        for count in (1, 3, 9):
            await add(queue, "batch", tag, count)

            (found,) = await queue.read("batch", count)

            assert (found.tag, found.ticket.id) == (tag, id_in(tag, count))
            await queue.acknowledge(found)


async def test_partitions_take_turns_when_one_entry_may_start(queue):
    for tag in PARTITIONS.tags:
        for number in range(2):
            await add(queue, "interactive", tag, number)

    found = [tag for _ in range(COUNT) for tag in tags_of(await queue.read("interactive", 1))]

    assert sorted(found) == sorted(PARTITIONS.tags)


async def test_entries_of_a_silent_worker_are_claimed_in_every_partition(queue):
    for tag in PARTITIONS.tags:
        await add(queue, "interactive", tag, 0)
        await add(queue, "interactive", tag, 1)
    assert len(await queue.read("interactive", 99)) == 2 * COUNT
    other = Queue(queue.redis, "worker-2", partitions=PARTITIONS)

    some = await other.claim("interactive", 0, 3)
    rest = await other.claim("interactive", 0, 99)

    assert len(some) == 3
    assert {delivery.ticket.id for delivery in rest} == {
        id_in(tag, number) for tag in PARTITIONS.tags for number in (0, 1)
    }


async def test_groups_come_back_in_every_partition(queue):
    await queue.redis.flushall()
    for tag in PARTITIONS.tags:
        await add(queue, "interactive", tag)

    assert await queue.read("interactive", 99) == []
    assert len(await queue.read("interactive", 99)) == COUNT


async def test_a_postponed_generation_returns_in_its_partition(queue, store):
    for tag in PARTITIONS.tags:
        await add(queue, "interactive", tag)
    for delivery in await queue.read("interactive", 99):
        await queue.note_begun(delivery.ticket, 1)
        await queue.try_later(delivery.ticket, 1)
    assert (await queue_depths(store))["later"] == COUNT

    await queue.move_due()

    found = await queue.read("resume", 99)
    assert {(delivery.tag, delivery.ticket.id) for delivery in found} == {
        (tag, id_in(tag)) for tag in PARTITIONS.tags
    }


# All partitions together


async def test_the_bound_of_waiting_prompts_counts_all_partitions(redis):
    """However the ids fall: with a bound of its own a partition would refuse too early."""
    store = store_on(redis, queue_partitions=COUNT, queue_max=7)
    acceptor = Acceptor(redis, store, store.settings)
    for n in range(6):
        await acceptor.accept(NEW, id_in("q1", n))
    await acceptor.accept(NEW, id_in("q2"))

    for tag in PARTITIONS.tags:
        with pytest.raises(RequestError, match="7 prompts wait"):
            await acceptor.accept(NEW, id_in(tag, 9))
    assert (await queue_depths(store))["interactive"] == 7


async def test_a_prompt_is_accepted_in_one_round_trip_in_each_partition(redis):
    store = store_on(redis, queue_partitions=COUNT)
    acceptor = Acceptor(redis, store, store.settings)
    first = await acceptor.accept(NEW, id_in("q0"))

    others = [await acceptor.accept(NEW, id_in(tag)) for tag in PARTITIONS.tags[1:]]

    assert first.meta is None, "it asked for the numbers of all partitions"
    assert all(other.meta is not None for other in others)
    assert (await queue_depths(store))["interactive"] == COUNT


async def test_depths_and_running_ids_are_those_of_all_partitions(queue, store):
    ids = [id_in(tag) for tag in PARTITIONS.tags]
    for generation_id in ids:
        await put_back(store, generation_id, "interactive", "demo", lane="interactive")
    await queue.note_running(ids[:3], 5)

    assert await queue_depths(store) == {"interactive": 4, "batch": 0, "running": 3, "later": 0}
    assert await running_of(store, ids) == ids[:3]


async def test_the_oldest_of_all_partitions_counts(redis, store):
    assert await oldest_waiting_s(redis, PARTITIONS) == {"interactive": 0.0, "batch": 0.0}
    now_ms = await store.now_ms()
    for tag, age_s in zip(PARTITIONS.tags, (5, 3_600, 60, -30), strict=True):
        await redis.zadd(keys.waiting("interactive", tag), {tag: now_ms - 1000 * age_s})
    await redis.zadd(keys.waiting("batch", "q3"), {"later": now_ms + 600_000})

    ages_s = await oldest_waiting_s(redis, PARTITIONS)

    assert 3_600 <= ages_s["interactive"] < 3_700
    assert ages_s["batch"] == 0, "to be tried again later"


async def test_cancelled_generations_leave_the_indexes_of_their_partitions(queue, store):
    ids = [id_in(tag) for tag in PARTITIONS.tags]
    for generation_id in ids:
        await create(store, generation_id)
        await put_back(store, generation_id, "interactive", "demo", lane="interactive")
    await queue.note_running(ids[:2], 5)

    for generation_id in ids[:2]:
        await cancel(store, generation_id)
    await cancel_many(store, ids[2:])

    assert not any((await queue_depths(store)).values())


async def test_the_janitor_requeues_lost_entries_in_every_partition(queue, store):
    ids = {tag: id_in(tag) for tag in PARTITIONS.tags}
    since_ms = await store.now_ms() - round(1000 * NEVER_BEGAN_S) - 1_000
    for tag, generation_id in ids.items():
        await create(store, generation_id)
        await store.redis.zadd(keys.waiting("interactive", tag), {generation_id: since_ms})
        await store.redis.hset(keys.meta(generation_id), "waiting", str(since_ms))

    assert await Janitor(store.redis, store, store.settings).sweep() == COUNT

    found = await queue.read("resume", 99)
    assert {delivery.tag: delivery.ticket.id for delivery in found} == ids


# One number for all roles


def with_partitions(count):
    return Settings(redis_url="redis://test", queue_partitions=count)


async def test_the_first_role_records_the_number_and_another_number_is_refused(redis):
    await agree(redis, with_partitions(4))
    await agree(redis, with_partitions(4))

    for count in (1, 8):
        with pytest.raises(ConfigurationError, match=f"is {count}, .* on this Redis use 4"):
            await agree(redis, with_partitions(count))
    assert await record(redis, 1) == 4


async def test_an_older_queue_that_is_not_empty_keeps_one_partition(redis):
    """A version without a record filled it."""
    await redis.zadd(keys.waiting("interactive"), {"gen_old": 1})

    with pytest.raises(ConfigurationError, match="still holds 1 generations"):
        await agree(redis, with_partitions(8))

    await agree(redis, with_partitions(1))


async def test_of_two_first_roles_one_is_refused(redis, monkeypatch):
    """Both saw no record; the other role was faster."""
    await record(redis, 4)
    seen = [None, 4]

    async def recorded(client):
        return seen.pop(0) if len(seen) > 1 else 4

    monkeypatch.setattr(partitions, "_recorded", recorded)
    with pytest.raises(ConfigurationError, match="use 4"):
        await agree(redis, with_partitions(8))


async def test_an_empty_older_queue_may_be_divided(redis):
    await agree(redis, with_partitions(8))

    assert await record(redis, 1) == 8


async def test_the_janitor_records_the_number_again_and_reports_another(store, caplog):
    janitor = Janitor(store.redis, store, store.settings)
    await janitor.sweep()
    assert await record(store.redis, 1) == COUNT
    assert not caplog.records
    await store.redis.set(keys.PARTITIONS, "9")
    await store.redis.delete(*[keys.janitor(tag) for tag in PARTITIONS.tags][:1])

    await janitor.sweep()

    (line,) = caplog.records
    assert (line.message, line.own, line.recorded) == ("queue partitions differ", COUNT, 9)


def test_the_number_of_partitions_is_bounded():
    assert len(partitions_of(with_partitions(64)).tags) == 64
    with pytest.raises(ConfigurationError, match="QUEUE_PARTITIONS must be at most 64, got 65"):
        dataclasses.replace(with_partitions(1), queue_partitions=65)


def masters_of(tags, masters):
    """How many of the tags lie on each master of a cluster with equal ranges of slots."""
    counts = [0] * masters
    for tag in tags:
        counts[key_slot(tag.encode()) * masters // SLOTS] += 1
    return counts


@pytest.mark.parametrize("count", [2, 3, 5, 8, 16, 64])
def test_on_a_cluster_each_master_has_the_same_number_of_partitions_or_one_more(count):
    tags = Partitions(count, is_even=True).tags

    for masters in range(1, count + 1):
        counts = masters_of(tags, masters)
        assert max(counts) - min(counts) <= 1, f"{masters} masters: {counts}"
    assert len(set(tags)) == count


def test_the_tags_of_a_cluster_never_change():
    """Another version of a role would read other keys."""
    assert Partitions(8, is_even=True).tags == (
        "q0.25", "q1.53", "q2.44", "q3.2", "q4.136", "q5.101", "q6.24", "q7.113"
    )  # fmt: skip
    assert Partitions(1, is_even=True).tags == ("q",)
    plain = Settings(redis_url="redis://h", queue_partitions=8)
    assert partitions_of(plain).tags[7] == "q7"
    cluster = Settings(redis_url="redis+cluster://h:1")
    assert partitions_of(cluster).tags[7] == "q7.113"
