"""Owners take turns: workers start the prompt of an owner with few prompts among the first."""

from __future__ import annotations

import asyncio

import pytest

from shared.queue.partitions import partitions_of
from shared.redis import keys
from tests.support.backend_scripts import says, says_and_waits, until_nothing_is_queued
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness

AT_ONCE = 50  # prompts that are accepted at the same time


async def ask_many(harness, count, **changes):
    ids = []
    while len(ids) < count:
        some = [harness.ask(**changes) for _ in range(min(AT_ONCE, count - len(ids)))]
        ids += await asyncio.gather(*some)
    return ids


async def begun_before(harness, generation_id):
    """Return how many prompts have begun before this one."""
    await harness.ended(generation_id)
    return harness.backend.seeds.index(generation_id)


async def test_two_hundred_prompts_of_one_owner_delay_another_owner_by_one_turn_per_slot(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a"), worker_slots=2) as harness:
        await ask_many(harness, 200, owner="a")
        await harness.start()
        await until(lambda: harness.backend.open == 2, DEADLINE_S, "all slots are taken")

        prompt = await harness.ask(owner="b")
        gate.set()

        assert await begun_before(harness, prompt) <= 2 + 2, "two ran, and each slot saw one turn"


@pytest.mark.usefixtures("queue_partitions")
@pytest.mark.parametrize("priority", keys.PRIORITIES)
async def test_owners_take_turns_on_each_lane_and_partition(url, priority):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a"), worker_slots=1) as harness:
        ids = await ask_many(harness, 60, owner="a", priority=priority)
        await harness.start()
        await until(lambda: harness.backend.open == 1, DEADLINE_S, "the slot is taken")
        prompts = [await harness.ask(owner=name, priority=priority) for name in ("b", "c")]
        gate.set()

        turns = 2 * len(partitions_of(harness.settings).tags)
        for prompt in prompts:
            assert await begun_before(harness, prompt) <= 1 + 2 * turns
        for generation_id in ids:
            await harness.ended(generation_id)
        assert sorted(harness.backend.seeds) == sorted([*ids, *prompts]), "each began once"
        await until_nothing_is_queued(harness)


async def test_one_owner_fills_all_free_slots(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a"), worker_slots=20) as harness:
        ids = await ask_many(harness, 30, owner="a")
        await harness.start()
        await until(lambda: harness.backend.open == 20, DEADLINE_S, "all slots are taken")
        gate.set()

        for generation_id in ids:
            await harness.ended(generation_id)
        await until_nothing_is_queued(harness)


async def test_prompts_arrive_while_an_owner_is_on_turn(url):
    """An owner whose line is empty gets its next prompt onto the lane itself."""
    async with WorkerHarness(url, says("a"), worker_slots=4) as harness:
        await harness.start()
        ids = []
        for _ in range(20):
            ids += await ask_many(harness, 3, owner="a")
            await harness.ended(ids[-1])

        for generation_id in ids:
            await harness.ended(generation_id)
        await until_nothing_is_queued(harness)


async def test_the_line_of_an_owner_goes_on_after_the_worker_on_turn_was_killed(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a"), worker_slots=2) as harness:
        ids = await ask_many(harness, 9, owner="a")
        worker = await harness.start("one")
        # The worker stops after it has read an entry, before it goes on with the turns.
        await until(lambda: harness.backend.open == 2, DEADLINE_S, "all slots are taken")
        assert worker.runs
        await harness.kill("one")
        gate.set()
        await harness.start("two")

        for generation_id in ids:
            await harness.ended(generation_id)
        await until_nothing_is_queued(harness)
