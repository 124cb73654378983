"""A worker takes over from a dead one, and stops when it was taken over itself."""

from __future__ import annotations

import asyncio

from shared.log.events import decode
from shared.log.records import Begun
from shared.queue.lanes import Queue
from shared.redis import keys
from tests.support.backend_scripts import (
    LONG_S,
    says,
    says_and_waits,
    until_no_read_is_blocked,
    until_nothing_is_queued,
)
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness


async def test_another_worker_continues_the_text_of_a_killed_worker(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "Hel"), says("lo"), lease_s=0.3) as harness:
        await harness.start("first")
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "Hel")
        second = await harness.start("second")

        await harness.kill("first")
        meta = await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "Hel", "start", "lo", "end"]
        assert harness.backend.prefixes == ["", "Hel"]
        assert meta.failures == 1
        assert second.counters["takeovers"] == 1
        await until_nothing_is_queued(harness)


async def test_a_renewed_lease_keeps_the_queue_entry_with_its_worker(url):
    """A worker renews the queue entry with the lease: the other worker does not claim the entry."""
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a"), lease_s=0.8) as harness:
        await harness.start("one")
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "a")
        await harness.start("two")
        until_ms = await harness.store.now_ms() + 2 * harness.store.lease_ms

        async def two_leases_later():
            return await harness.store.now_ms() > until_ms

        await until(two_leases_later, DEADLINE_S)

        (entry,) = await harness.redis.xpending_range(
            keys.lane("interactive"), keys.GROUP, "-", "+", 9
        )
        assert (entry["consumer"], entry["times_delivered"]) == (b"one", 1)
        gate.set()
        await harness.ended(generation_id)


async def test_a_prompt_whose_workers_die_ends_with_attempts_exhausted(url):
    gate = asyncio.Event()
    async with WorkerHarness(
        url, says_and_waits(gate, "a"), lease_s=0.6, attempts_max=2
    ) as harness:
        generation_id = await harness.ask()
        for n in (1, 2):
            await harness.start(f"victim {n}")
            await until(lambda n=n: len(harness.backend.seeds) == n, DEADLINE_S, "it begins")
            await harness.kill(f"victim {n}")
        await harness.start("third")
        end = decode((await harness.ended(generation_id)).end)

        assert end.error.code == "attempts_exhausted"
        assert len(harness.backend.seeds) == 2
        await until_nothing_is_queued(harness)


async def test_a_model_that_must_fail_ends_with_worker_lost(url):
    gate = asyncio.Event()
    async with WorkerHarness(
        url, says_and_waits(gate, "a"), lease_s=0.2, on_takeover="fail"
    ) as harness:
        await harness.start("first")
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "a")
        await harness.kill("first")
        await harness.start("second")
        end = decode((await harness.ended(generation_id)).end)

        assert end.error.code == "worker_lost"
        assert len(harness.backend.seeds) == 1


async def test_a_fenced_worker_closes_its_backend(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a", "b"), lease_s=0.3) as harness:
        worker = await harness.start()
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "a")

        async def taken_over():
            await harness.redis.hset(keys.meta(generation_id), "lease", "1")
            begun = await harness.store.begin(generation_id, "thief", "thief")
            return begun if isinstance(begun, Begun) else None

        await until(taken_over, DEADLINE_S, "the thief begins")

        await until(lambda: harness.backend.open == 0, 3.0, "the backend is closed")
        await until(lambda: worker.counters["leases_lost"] == 1, DEADLINE_S, "it is counted")
        assert await harness.said(generation_id) == ["start", "a", "start"]
        assert await harness.redis.hget(keys.meta(generation_id), "token") == b"thief"


async def test_nothing_is_taken_over_for_one_lease_after_redis_was_away(url):
    """This holds also when the worker's sweep is the first call that Redis answers again."""
    async with WorkerHarness(url, says("a"), lease_s=LONG_S) as harness:
        worker = await harness.start()
        generation_id = await harness.ask(model="m")
        await harness.ended(generation_id)
        await harness.kill()
        # Redis may still hold a blocked read of the killed worker, and would give the next entry
        # to this read.
        await until_no_read_is_blocked(harness)
        other = await harness.ask()
        dead = Queue(harness.redis, "dead")
        (delivery,) = await dead.read("interactive", 9)
        assert isinstance(await harness.store.begin(other, "dead", "dead"), Begun)
        await harness.redis.hset(keys.meta(other), "lease", "1")
        await harness.redis.xclaim(
            keys.lane("interactive"), keys.GROUP, "dead", 0, [delivery.entry_id], idle=10**8
        )

        worker = harness.worker("back")
        worker._is_away = worker._was_connected = True
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as worker._tasks:
            await worker._sweep_once()

        assert not worker._held, "not even claimed: another worker might take it over at once"
        assert (await harness.store.meta(other)).failures == 0
        assert harness.backend.seeds == [generation_id]
