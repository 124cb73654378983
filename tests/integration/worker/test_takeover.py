"""A worker takes over from a dead one, and stops when it was taken over itself."""

from __future__ import annotations

import asyncio
from functools import partial

from shared.log.events import decode
from shared.log.records import Begun
from shared.queue.lanes import Queue
from shared.redis import keys
from tests.support.plays import (
    LONG_S,
    says,
    says_and_waits,
    until_nothing_is_queued,
)
from tests.support.stage import DEADLINE_S, Stage
from tests.support.wait import until


async def test_another_worker_continues_the_text_of_a_killed_worker(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "Hel"), says("lo"), lease_s=0.3) as stage:
        await stage.start("first")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "Hel")
        second = await stage.start("second")

        await stage.kill("first")
        meta = await stage.ended(generation_id)

        assert await stage.said(generation_id) == ["start", "Hel", "start", "lo", "end"]
        assert stage.backend.prefixes == ["", "Hel"]
        assert meta.failures == 1
        assert second.counters["takeovers"] == 1
        await until_nothing_is_queued(stage)


async def test_a_renewed_lease_keeps_the_queue_entry_with_its_worker(url):
    """Its entry is renewed with its lease: the other does not even look."""
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), lease_s=0.3) as stage:
        await stage.start("one")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        await stage.start("two")
        until_ms = await stage.store.now_ms() + 3 * stage.store.lease_ms

        async def three_leases_later():
            return await stage.store.now_ms() > until_ms

        await until(three_leases_later, DEADLINE_S)

        (entry,) = await stage.redis.xpending_range(
            keys.lane("interactive"), keys.GROUP, "-", "+", 9
        )
        assert (entry["consumer"], entry["times_delivered"]) == (b"one", 1)
        gate.set()
        await stage.ended(generation_id)


async def test_a_prompt_whose_workers_die_ends_with_attempts_exhausted(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), lease_s=0.6, attempts_max=2) as stage:
        generation_id = await stage.ask()
        for n in (1, 2):
            await stage.start(f"victim {n}")
            await until(lambda n=n: len(stage.backend.seeds) == n, DEADLINE_S, "it begins")
            await stage.kill(f"victim {n}")
        await stage.start("third")
        end = decode((await stage.ended(generation_id)).end)

        assert end.error.code == "attempts_exhausted"
        assert len(stage.backend.seeds) == 2
        await until_nothing_is_queued(stage)


async def test_a_model_that_must_fail_ends_with_worker_lost(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), lease_s=0.2, on_takeover="fail") as stage:
        await stage.start("first")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        await stage.kill("first")
        await stage.start("second")
        end = decode((await stage.ended(generation_id)).end)

        assert end.error.code == "worker_lost"
        assert len(stage.backend.seeds) == 1


async def test_a_fenced_worker_closes_its_backend(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a", "b"), lease_s=0.3) as stage:
        worker = await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")

        async def taken_over():
            await stage.redis.hset(keys.meta(generation_id), "lease", "1")
            begun = await stage.store.begin(generation_id, "thief", "thief")
            return begun if isinstance(begun, Begun) else None

        await until(taken_over, DEADLINE_S, "the thief begins")

        await until(lambda: stage.backend.open == 0, 3.0, "the backend is closed")
        await until(lambda: worker.counters["leases_lost"] == 1, DEADLINE_S, "it is counted")
        assert await stage.said(generation_id) == ["start", "a", "start"]
        assert await stage.redis.hget(keys.meta(generation_id), "token") == b"thief"


async def nobody_is_blocked(stage) -> bool:
    return (await stage.redis.info("clients"))["blocked_clients"] == 0


async def test_nothing_is_taken_over_for_one_lease_after_redis_was_away(url):
    """Also when it is the sweep that finds Redis back first."""
    async with Stage(url, says("a"), lease_s=LONG_S) as stage:
        worker = await stage.start()
        generation_id = await stage.ask(model="m")
        await stage.ended(generation_id)
        await stage.kill()
        # The server may still hold a blocked read of its, and would give the entry to nobody.
        await until(partial(nobody_is_blocked, stage), DEADLINE_S, "its blocked read is gone")
        other = await stage.ask()
        dead = Queue(stage.redis, "dead")
        (delivery,) = await dead.read("interactive", 9)
        assert isinstance(await stage.store.begin(other, "dead", "dead"), Begun)
        await stage.redis.hset(keys.meta(other), "lease", "1")
        await stage.redis.xclaim(
            keys.lane("interactive"), keys.GROUP, "dead", 0, [delivery.entry_id], idle=10**8
        )

        worker = stage.worker("back")
        worker._is_away = worker._was_connected = True
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as worker._tasks:
            await worker._sweep_once()

        assert not worker._held, "not even claimed: another worker might take it over at once"
        assert (await stage.store.meta(other)).failures == 0
        assert stage.backend.seeds == [generation_id]
