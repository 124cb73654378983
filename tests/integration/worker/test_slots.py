"""How many generations run at once, and how far a backend may be ahead of Redis."""

from __future__ import annotations

import asyncio

from shared.config.models import Model, ModelTable
from shared.log.records import Begun
from shared.queue.lanes import Queue
from shared.queue.overview import queue_depths
from shared.redis import keys
from tests.support.backend_scripts import (
    LONG_S,
    says,
    says_and_waits,
    until_nothing_is_queued,
)
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers import run as run_module


async def test_no_more_generations_run_than_there_are_slots(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a", "b"), worker_slots=3) as harness:
        ids = [await harness.ask() for _ in range(12)]
        worker = await harness.start()
        await until(lambda: harness.backend.open == 3, DEADLINE_S, "all slots are taken")
        ids += [await harness.ask() for _ in range(8)]

        async def waiting() -> bool:
            return (await queue_depths(harness.store))["interactive"] == 17

        await until(waiting, DEADLINE_S, "those that run wait no more")
        gate.set()

        for generation_id in ids:
            await harness.ended(generation_id)

        assert harness.backend.open_most == 3
        await until(lambda: not worker.runs, DEADLINE_S, "free slots")
        await until_nothing_is_queued(harness)


async def test_entries_of_dead_workers_start_only_as_slots_become_free(url):
    """A worker that claimed them while their leases were valid must not start them all at once."""
    gate = asyncio.Event()
    async with WorkerHarness(
        url, says_and_waits(gate, "a"), worker_slots=2, lease_s=0.4
    ) as harness:
        ids = [await harness.ask() for _ in range(15)]
        dead = Queue(harness.redis, "dead")
        await dead.ensure_groups()
        entries = [delivery.entry_id for delivery in await dead.read("interactive", 99)]
        lives_until_ms = await harness.store.now_ms() + 2_000  # pushed on by an append, say
        for generation_id in ids:
            assert isinstance(await harness.store.begin(generation_id, "dead", "dead"), Begun)
            await harness.redis.hset(keys.meta(generation_id), "lease", str(lives_until_ms))
        await harness.redis.xclaim(
            keys.lane("interactive"), keys.GROUP, "dead", 0, entries, idle=10**6
        )
        worker = await harness.start()
        await until(lambda: len(worker._held) > 2, DEADLINE_S, "claimed, and too early")
        await until(lambda: harness.backend.open >= 2, DEADLINE_S, "all slots are taken")
        await worker._sweep_once()
        gate.set()
        for generation_id in ids:
            await harness.ended(generation_id)

        assert harness.backend.open_most == 2
        await until_nothing_is_queued(harness)


async def test_an_entry_read_while_another_worker_holds_the_lease_is_kept(url):
    """The other worker began the generation and was then lost: this worker must take it over."""
    async with WorkerHarness(url, says("a"), lease_s=0.4) as harness:
        generation_id = await harness.ask()
        assert isinstance(await harness.store.begin(generation_id, "other", "other"), Begun)
        worker = await harness.start()
        await harness.ended(generation_id)

        assert worker.counters["takeovers"] == 1
        await until(lambda: not worker.runs, DEADLINE_S, "free slots")
        await until_nothing_is_queued(harness)


async def test_batch_lines_take_at_most_three_quarters_of_the_slots(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a"), worker_slots=4) as harness:
        batch = [await harness.ask(priority="batch") for _ in range(8)]
        worker = await harness.start()
        await until(lambda: harness.backend.open == 3, DEADLINE_S, "three quarters are taken")

        person = await harness.ask()
        await harness.has_said(person, "a")

        assert sum(run.ticket.priority == "batch" for run in worker.runs.values()) == 3
        gate.set()
        for generation_id in batch:
            await harness.ended(generation_id)


async def test_one_batch_line_runs_however_many_prompts_wait(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a"), worker_slots=3) as harness:
        people = [await harness.ask() for _ in range(9)]
        batch = await harness.ask(priority="batch")
        await harness.start()
        await harness.has_said(batch, "a")
        gate.set()
        for generation_id in [*people, batch]:
            await harness.ended(generation_id)


async def test_a_backend_is_not_read_while_too_many_bytes_are_unsent(url, monkeypatch):
    monkeypatch.setattr(run_module, "UNSENT_BYTES_MAX", 1_000)
    pieces = [f"{n:>99} " for n in range(500)]
    async with WorkerHarness(url, says(*pieces), lease_s=LONG_S) as harness:
        worker = await harness.start()
        gate, blocked = asyncio.Event(), asyncio.Event()
        append_many = worker.store.append_many

        async def slow(batches):
            blocked.set()
            await gate.wait()
            return await append_many(batches)

        monkeypatch.setattr(worker.store, "append_many", slow)
        generation_id = await harness.ask()
        async with asyncio.timeout(DEADLINE_S):
            await blocked.wait()
        for _ in range(2_000):
            await asyncio.sleep(0)
        assert harness.backend.lists <= 15

        gate.set()
        await harness.ended(generation_id)

        assert await harness.text(generation_id) == "".join(pieces)


async def test_a_worker_with_a_table_for_all_models_runs_a_name_that_it_has_not_read(url):
    """An API node may have read the server's list before this worker."""
    async with WorkerHarness(url, says("a")) as harness:
        generation_id = await harness.ask()  # for the model `m`
        models = ModelTable({"*": Model(name="*")})
        await harness.start(models=models)
        end = await harness.ended(generation_id)

    assert "m" not in models
    assert end.status == "completed"
