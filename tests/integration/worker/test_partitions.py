"""A worker and a queue in partitions: it waits on all of them, and reads them in one order."""

from __future__ import annotations

import asyncio

import pytest

from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.queue.partitions import Partitions, agree
from shared.redis import keys
from tests.support.backend_scripts import says, says_and_waits, until_nothing_is_queued
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers import arrivals

COUNT = 4
PARTITIONS = Partitions(COUNT)


def id_in(tag, number=0):
    """Return the id number `number` of a partition."""
    found = (id for n in range(10_000) if PARTITIONS.of(id := f"gen_{n:026}") == tag)
    return [next(found) for _ in range(number + 1)][-1]


async def ask_in(harness, tag, number=0, **changes):
    generation_id = id_in(tag, number)
    await harness.acceptor.accept(harness.new(**changes), generation_id)
    return generation_id


async def test_an_idle_worker_gets_a_prompt_of_any_partition_without_a_poll(url):
    async with WorkerHarness(url, says("a"), queue_partitions=COUNT) as harness:
        worker = await harness.start()
        await until(lambda: worker._arrivals.covers_all, DEADLINE_S, "it waits on every lane")

        async def poll(lane, count):
            return []

        worker.queue.read = poll
        for number in range(3):
            for tag in PARTITIONS.tags:
                await harness.ended(await ask_in(harness, tag, number))
                await harness.ended(await ask_in(harness, tag, 10 + number, priority="batch"))
        await until_nothing_is_queued(harness)


async def test_lanes_are_read_in_one_order_over_all_partitions(url):
    """One slot, so that the order of the starts is the order of the reads."""
    async with WorkerHarness(url, says("a"), queue_partitions=COUNT, worker_slots=1) as harness:
        batch = [await ask_in(harness, tag, priority="batch") for tag in ("q0", "q1")]
        people = [await ask_in(harness, tag, 1) for tag in ("q1", "q2", "q3")]
        resumed = await ask_in(harness, "q3", 2, owner="bob")
        stream = keys.lane("interactive", "q3")
        ((entry_id, fields),) = await harness.redis.xrevrange(stream, count=1)
        await harness.redis.xadd(keys.lane("resume", "q3"), fields)
        await harness.redis.xdel(stream, entry_id)

        await harness.start()
        for generation_id in [*batch, *people, resumed]:
            await harness.ended(generation_id)

        begun = sorted([*batch, *people, resumed], key=harness.backend.seeds.index)
        assert begun[0] == resumed
        assert set(begun[1:4]) == set(people)
        assert set(begun[4:]) == set(batch)


async def test_prompts_of_a_killed_worker_continue_in_every_partition(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a"), queue_partitions=COUNT) as harness:
        await harness.start("one")
        ids = [await ask_in(harness, tag, n) for tag in PARTITIONS.tags for n in range(2)]
        await until(lambda: harness.backend.open == len(ids), DEADLINE_S, "all run")
        await harness.kill("one")
        gate.set()
        worker = await harness.start("two")

        for generation_id in ids:
            await harness.ended(generation_id)
        assert worker.counters["takeovers"] == len(ids)
        await until_nothing_is_queued(harness)


async def test_a_drain_leaves_no_entry_with_the_worker(url):
    """A read that is open when the drain begins may still return an entry."""
    async with WorkerHarness(url, says("a"), queue_partitions=COUNT, lease_s=60.0) as harness:
        worker = await harness.start("one")
        await until(lambda: worker._arrivals.covers_all, DEADLINE_S, "it waits on every lane")
        worker.drain()
        ids = [await ask_in(harness, tag) for tag in PARTITIONS.tags]
        await harness.drained("one")
        await harness.start("two")

        for generation_id in ids:
            await harness.ended(generation_id)
        await until_nothing_is_queued(harness)


@pytest.mark.parametrize("slots", [1, 3, 5])
async def test_a_worker_with_few_slots_serves_every_partition(url, slots):
    async with WorkerHarness(url, says("a"), queue_partitions=COUNT, worker_slots=slots) as harness:
        await harness.start()
        for number in range(2):
            ids = [await ask_in(harness, tag, number) for tag in PARTITIONS.tags]
            for generation_id in ids:
                await harness.ended(generation_id)

        assert harness.backend.open_most <= slots


async def test_an_entry_that_arrives_when_no_slot_is_free_goes_back(url):
    """Claimed entries may take the slots that an open read counts on."""
    gate = asyncio.Event()
    backend_script = says_and_waits(gate, "a")
    async with WorkerHarness(
        url, backend_script, queue_partitions=COUNT, worker_slots=1
    ) as harness:
        worker = await harness.start()
        first = await ask_in(harness, "q0")
        await harness.has_said(first, "a")
        second = await ask_in(harness, "q1")
        (delivery,) = await worker.queue.read("interactive", 1)

        await worker._start_all([delivery])

        assert list(worker.runs) == [first]
        assert await harness.redis.xlen(keys.lane("resume", "q1")) == 1
        gate.set()
        await harness.ended(second)
        assert harness.backend.open_most == 1
        await until_nothing_is_queued(harness)


async def test_a_worker_with_few_connections_serves_every_partition(url, monkeypatch):
    monkeypatch.setattr(arrivals, "CONNECTIONS_MAX", 2)
    async with WorkerHarness(url, says("a"), queue_partitions=COUNT) as harness:
        worker = await harness.start()
        for tag in PARTITIONS.tags:
            await harness.ended(await ask_in(harness, tag))

        assert len(worker._blocking_reads) == 2


async def test_a_worker_with_another_number_does_not_start(url, real_redis):
    await agree(real_redis, Settings(redis_url=url, queue_partitions=8))
    async with WorkerHarness(url, says("a"), queue_partitions=COUNT) as harness:
        worker = harness.worker("one")

        with pytest.raises(ConfigurationError, match="the other roles on this Redis use 8"):
            await worker.serve(asyncio.Event())
