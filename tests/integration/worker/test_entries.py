"""Queue entries that are early, doubled, absent or for another worker."""

from __future__ import annotations

import asyncio

from shared.config.models import Model
from shared.queue import janitor as janitor_module
from shared.queue import requeuing
from shared.queue.janitor import Janitor
from shared.queue.lanes import encode_entry, put_back
from shared.queue.presence import workers_seen
from shared.redis import keys
from shared.redis.client import REDIS_ANSWER_S
from tests.support.backend_scripts import (
    fails,
    says,
    says_and_waits,
    until_nothing_is_queued,
)
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, ScriptedBackend, WorkerHarness
from workers import begin as begin_module
from workers import worker as worker_module


async def test_an_entry_without_a_generation_is_dropped_after_a_while(url, monkeypatch):
    monkeypatch.setattr(begin_module, "ABSENT_ENTRY_DROP_S", 0.05)
    async with WorkerHarness(url, says("a")) as harness:
        entry = encode_entry("gen_nobody0000", "interactive", "m")
        await harness.redis.xadd(keys.lane("interactive"), {"e": entry})
        await harness.start()

        await until_nothing_is_queued(harness)

        assert harness.backend.seeds == []


async def test_an_entry_read_before_its_meta_exists_is_looked_at_again(url):
    async with WorkerHarness(url, says("a")) as harness:
        worker = await harness.start()
        entry = encode_entry("gen_early00000", "interactive", "m")
        await harness.redis.xadd(keys.lane("interactive"), {"e": entry})
        await until(lambda: worker.runs, DEADLINE_S, "the entry is taken")

        fields = {"owner": "o", "model": "m", "request": b'{"messages":[]}'}
        await harness.store.create("gen_early00000", fields, may_be_lost=False)

        await harness.ended("gen_early00000")


async def test_duplicate_entries_run_a_generation_once(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a", "b"), worker_slots=9) as harness:
        await harness.start("one")
        await harness.start("two")
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "a")
        for _ in range(4):
            await put_back(harness.store, generation_id, "interactive", "m")

        async def looked_at():
            return await harness.redis.xlen(keys.lane("resume")) == 0

        await until(looked_at, DEADLINE_S, "the duplicates are gone")
        gate.set()
        await harness.ended(generation_id)

        assert len(harness.backend.seeds) == 1
        assert await harness.said(generation_id) == ["start", "a", "b", "end"]
        await until_nothing_is_queued(harness)


async def test_an_entry_read_again_before_its_last_run_has_ended_is_kept(url, monkeypatch):
    """The first run has put an entry into `resume` and has not yet acknowledged its own entry."""
    async with WorkerHarness(url, fails("Hel"), says("lo")) as harness:
        worker = await harness.start()
        gate, is_leaving = asyncio.Event(), asyncio.Event()
        acknowledge = worker.queue.acknowledge

        async def slow(delivery):
            if delivery.lane == "interactive":
                is_leaving.set()
                await gate.wait()
            await acknowledge(delivery)

        monkeypatch.setattr(worker.queue, "acknowledge", slow)
        generation_id = await harness.ask()
        async with asyncio.timeout(DEADLINE_S):
            await is_leaving.wait()

        async def is_read_again():
            pending = await harness.redis.xpending(keys.lane("resume"), keys.GROUP)
            read = (await harness.redis.xinfo_groups(keys.lane("resume")))[0]["entries-read"]
            return read or pending["pending"]

        await until(is_read_again, DEADLINE_S, "the entry is back and has been read")
        gate.set()
        await harness.ended(generation_id)

        assert await harness.text(generation_id) == "Hello"
        await until_nothing_is_queued(harness)


async def test_a_worker_leaves_entries_of_models_that_it_does_not_have(url):
    mine, theirs = ScriptedBackend(says("mine")), ScriptedBackend(says("theirs"))
    async with WorkerHarness(url, says("a"), lease_s=0.3) as harness:
        await harness.start("one", models={"m": Model(name="m")}, backends={"m": mine})
        generation_id = await harness.ask(model="n")

        async def has_read() -> bool:
            found = await harness.redis.xpending(keys.lane("interactive"), keys.GROUP)
            return bool(found["pending"])

        await until(has_read, DEADLINE_S, "the first worker has read the entry")
        await harness.start("two", models={"n": Model(name="n")}, backends={"n": theirs})
        await harness.ended(generation_id)

        assert await harness.text(generation_id) == "theirs"
        assert mine.seeds == []


async def test_a_model_without_a_worker_fills_no_lane(url, monkeypatch):
    monkeypatch.setattr(janitor_module, "NEVER_BEGAN_S", 0.05)
    monkeypatch.setattr(requeuing, "REQUEUE_APART_S", 0.05)
    async with WorkerHarness(url, says("a"), lease_s=0.3, queue_wait_s=1.5) as harness:
        await harness.start()
        generation_id = await harness.ask(model="n")
        janitor = Janitor(harness.redis, harness.store, harness.settings)
        longest = 0

        async def has_ended() -> bool:
            nonlocal longest
            await harness.redis.delete(keys.janitor())
            await janitor.sweep()
            longest = max(longest, await harness.redis.xlen(keys.lane("resume")))
            meta = await harness.store.meta(generation_id)
            return meta is not None and meta.is_ended

        await until(has_ended, DEADLINE_S, "a queue timeout")
        assert longest == 1
        await until_nothing_is_queued(harness)


async def test_the_entry_of_a_deleted_generation_is_dropped_by_a_worker_without_its_model(url):
    async with WorkerHarness(url, says("a"), lease_s=0.3) as harness:
        entry = encode_entry("gen_deleted000", "interactive", "n")
        await harness.redis.xadd(keys.lane("interactive"), {"e": entry})
        await harness.start()
        await until_nothing_is_queued(harness)


async def test_a_worker_publishes_its_presence_and_its_running_generations(url):
    gate = asyncio.Event()
    async with WorkerHarness(
        url, says_and_waits(gate, "a"), worker_slots=7, lease_s=0.3
    ) as harness:
        await harness.start("one")
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "a")

        async def seen():
            return [p for p in await workers_seen(harness.redis) if p.running]

        (presence,) = await until(seen, DEADLINE_S, "its presence")
        assert (presence.worker, presence.slots, presence.draining) == ("one", 7, False)

        async def is_in_the_index() -> bool:
            return await harness.redis.zrange(keys.running(), 0, -1) == [generation_id.encode()]

        await until(is_in_the_index, DEADLINE_S, "the generation in the index `running`")


def test_a_blocked_read_ends_before_its_connection_would_time_out():
    assert worker_module.BLOCK_MS / 1000 < REDIS_ANSWER_S
