"""How many generations run at once, and how far a backend may be ahead of Redis."""

from __future__ import annotations

import asyncio

from shared.log.records import Begun
from shared.queue.lanes import Queue
from shared.queue.overview import queue_depths
from shared.redis import keys
from tests.support.plays import (
    LONG_S,
    says,
    says_and_waits,
    until_nothing_is_queued,
)
from tests.support.stage import DEADLINE_S, Stage
from tests.support.wait import until
from workers import run as run_module


async def test_no_more_generations_run_than_there_are_slots(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a", "b"), worker_slots=3) as stage:
        ids = [await stage.ask() for _ in range(12)]
        worker = await stage.start()
        await until(lambda: stage.backend.open == 3, DEADLINE_S, "all slots are taken")
        ids += [await stage.ask() for _ in range(8)]

        async def waiting() -> bool:
            return (await queue_depths(stage.store))["interactive"] == 17

        await until(waiting, DEADLINE_S, "those that run wait no more")
        gate.set()

        for generation_id in ids:
            await stage.ended(generation_id)

        assert stage.backend.open_most == 3
        await until(lambda: not worker.runs, DEADLINE_S, "free slots")
        await until_nothing_is_queued(stage)


async def test_entries_of_dead_workers_start_only_as_slots_become_free(url):
    """Claimed while its lease still lives, it must not start all at once later."""
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), worker_slots=2, lease_s=0.4) as stage:
        ids = [await stage.ask() for _ in range(15)]
        dead = Queue(stage.redis, "dead")
        await dead.ensure_groups()
        entries = [delivery.entry_id for delivery in await dead.read("interactive", 99)]
        lives_until_ms = await stage.store.now_ms() + 2_000  # pushed on by an append, say
        for generation_id in ids:
            assert isinstance(await stage.store.begin(generation_id, "dead", "dead"), Begun)
            await stage.redis.hset(keys.meta(generation_id), "lease", str(lives_until_ms))
        await stage.redis.xclaim(
            keys.lane("interactive"), keys.GROUP, "dead", 0, entries, idle=10**6
        )
        worker = await stage.start()
        await until(lambda: len(worker._held) > 2, DEADLINE_S, "claimed, and too early")
        await until(lambda: stage.backend.open >= 2, DEADLINE_S, "all slots are taken")
        await worker._sweep_once()
        gate.set()
        for generation_id in ids:
            await stage.ended(generation_id)

        assert stage.backend.open_most == 2
        await until_nothing_is_queued(stage)


async def test_an_entry_read_while_another_worker_holds_the_lease_is_kept(url):
    """Its reader stood still, somebody else began meanwhile, and then was lost: it must go on."""
    async with Stage(url, says("a"), lease_s=0.4) as stage:
        generation_id = await stage.ask()
        assert isinstance(await stage.store.begin(generation_id, "other", "other"), Begun)
        worker = await stage.start()
        await stage.ended(generation_id)

        assert worker.counters["takeovers"] == 1
        await until(lambda: not worker.runs, DEADLINE_S, "free slots")
        await until_nothing_is_queued(stage)


async def test_batch_lines_take_at_most_three_quarters_of_the_slots(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), worker_slots=4) as stage:
        batch = [await stage.ask(priority="batch") for _ in range(8)]
        worker = await stage.start()
        await until(lambda: stage.backend.open == 3, DEADLINE_S, "three quarters are taken")

        person = await stage.ask()
        await stage.has_said(person, "a")

        assert sum(run.ticket.priority == "batch" for run in worker.runs.values()) == 3
        gate.set()
        for generation_id in batch:
            await stage.ended(generation_id)


async def test_one_batch_line_runs_however_many_prompts_wait(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), worker_slots=3) as stage:
        people = [await stage.ask() for _ in range(9)]
        batch = await stage.ask(priority="batch")
        await stage.start()
        await stage.has_said(batch, "a")
        gate.set()
        for generation_id in [*people, batch]:
            await stage.ended(generation_id)


async def test_a_backend_is_not_read_while_too_many_bytes_are_unsent(url, monkeypatch):
    monkeypatch.setattr(run_module, "UNSENT_BYTES_MAX", 1_000)
    pieces = [f"{n:>99} " for n in range(500)]
    async with Stage(url, says(*pieces), lease_s=LONG_S) as stage:
        worker = await stage.start()
        gate, blocked = asyncio.Event(), asyncio.Event()
        append_many = worker.store.append_many

        async def slow(batches):
            blocked.set()
            await gate.wait()
            return await append_many(batches)

        monkeypatch.setattr(worker.store, "append_many", slow)
        generation_id = await stage.ask()
        await blocked.wait()
        for _ in range(2_000):
            await asyncio.sleep(0)
        assert stage.backend.lists <= 15

        gate.set()
        await stage.ended(generation_id)

        assert await stage.text(generation_id) == "".join(pieces)
