"""A generation with a deadline: its worker ends it, also after a takeover, and keeps the text."""

from __future__ import annotations

import asyncio

from shared.log.events import decode
from shared.queue.janitor import Janitor
from shared.queue.time_limits import TimeLimits
from shared.redis import keys
from tests.support.backend_scripts import fails, says, says_and_waits, until_nothing_is_queued
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness

LONG_S = 1_000.0


async def end_of(harness, generation_id):
    return decode((await harness.ended(generation_id)).end)


async def leave_s(harness, generation_id, left_s):
    """Make a generation with a deadline of `LONG_S` so old that `left_s` are left."""
    key = keys.meta(generation_id)
    await harness.redis.hincrby(key, "created", -round(1000 * (LONG_S - left_s)))


async def test_an_answer_ends_at_its_deadline_and_keeps_its_text_and_its_counts(url):
    async with WorkerHarness(url, says_and_waits(asyncio.Event(), "so far")) as harness:
        await harness.start()
        generation_id = await harness.ask(time_limits=TimeLimits(deadline_s=2.0))

        end = await end_of(harness, generation_id)

        assert (end.status, end.error.code) == ("failed", "deadline_exceeded")
        assert await harness.text(generation_id) == "so far"
        assert end.usage.completion_tokens > 0
        await until(lambda: harness.backend.open == 0, DEADLINE_S, "the backend is closed")
        await until_nothing_is_queued(harness)


async def test_an_answer_within_its_deadline_is_complete(url):
    async with WorkerHarness(url, says("all")) as harness:
        await harness.start()
        generation_id = await harness.ask(time_limits=TimeLimits(LONG_S, LONG_S))

        assert (await end_of(harness, generation_id)).status == "completed"
        await until_nothing_is_queued(harness)

        async def none_is_due() -> bool:
            return not await harness.redis.zcard(keys.due())

        # The worker leaves this index last.
        await until(none_is_due, DEADLINE_S, "no time limit is watched")


async def test_the_worker_that_takes_over_keeps_the_deadline(url):
    script = says_and_waits(asyncio.Event(), "a")
    async with WorkerHarness(url, script) as harness:
        await harness.start("one")
        generation_id = await harness.ask(time_limits=TimeLimits(deadline_s=LONG_S))
        await harness.has_said(generation_id, "a")
        await harness.kill("one")
        worker = await harness.start("two")
        await until(lambda: worker.counters["takeovers"], DEADLINE_S, "the takeover")
        await harness.kill("two")
        await leave_s(harness, generation_id, 1.5)
        await harness.start("three")

        end = await end_of(harness, generation_id)

        assert end.error.code == "deadline_exceeded"
        assert "a" in await harness.text(generation_id)


async def test_no_worker_takes_over_after_the_deadline(url):
    async with WorkerHarness(url, says_and_waits(asyncio.Event(), "a")) as harness:
        await harness.start("one")
        generation_id = await harness.ask(time_limits=TimeLimits(deadline_s=LONG_S))
        await harness.has_said(generation_id, "a")
        await harness.kill("one")
        await leave_s(harness, generation_id, -1)
        await harness.start("two")

        assert (await end_of(harness, generation_id)).error.code == "deadline_exceeded"
        assert len(harness.backend.seeds) == 1, "the model was asked once"
        await until_nothing_is_queued(harness)


async def test_a_prompt_that_waits_for_another_attempt_ends_at_its_deadline(url):
    async with WorkerHarness(url, fails(), attempts_max=1_000_000) as harness:
        janitor = Janitor(harness.redis, harness.store, harness.settings)
        await harness.start()
        generation_id = await harness.ask(time_limits=TimeLimits(deadline_s=LONG_S))
        await until(lambda: len(harness.backend.seeds) > 2, DEADLINE_S, "some attempts")
        await leave_s(harness, generation_id, -1)
        await harness.redis.zadd(keys.due(), {generation_id: 1})
        await janitor.sweep()

        assert (await end_of(harness, generation_id)).error.code == "deadline_exceeded"
        await until_nothing_is_queued(harness)


async def test_the_deadline_of_a_prompt_does_not_end_others(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a")) as harness:
        await harness.start()
        other = await harness.ask()
        late = await harness.ask(time_limits=TimeLimits(deadline_s=0.3))
        assert (await end_of(harness, late)).error.code == "deadline_exceeded"
        gate.set()

        assert (await end_of(harness, other)).status == "completed"
