"""What a worker does when its backend fails: retry, wait, or end the generation."""

from __future__ import annotations

from shared.log.events import Token, decode
from shared.queue.overview import queue_depths
from shared.redis import keys
from tests.support.backend_scripts import (
    breaks_off,
    fails,
    says,
    until_nothing_is_queued,
)
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness


async def test_a_retry_continues_from_the_text_in_the_log(url):
    async with WorkerHarness(url, fails("Hel"), says("lo")) as harness:
        await harness.start()
        generation_id = await harness.ask()
        meta = await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "Hel", "start", "lo", "end"]
        assert harness.backend.prefixes == ["", "Hel"]
        assert (meta.status, meta.attempt, meta.failures) == ("completed", 2, 1)
        await until_nothing_is_queued(harness)


async def test_a_retry_of_a_model_that_restarts_writes_a_reset(url):
    async with WorkerHarness(url, fails("void"), says("good"), on_takeover="restart") as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.ended(generation_id)

        said = await harness.said(generation_id)
        assert said == ["start", "void", "start", "reset", "good", "end"]
        assert harness.backend.prefixes == ["", ""]


async def test_a_failure_ends_a_generation_of_a_model_that_must_fail(url):
    async with WorkerHarness(url, fails("a"), on_takeover="fail") as harness:
        await harness.start()
        generation_id = await harness.ask()
        end = decode((await harness.ended(generation_id)).end)

        assert (end.status, end.error.code, end.error.retryable) == (
            "failed",
            "upstream_error",
            True,
        )
        assert await harness.said(generation_id) == ["start", "a", "end"]


async def test_a_failure_that_is_not_retryable_ends_the_generation(url):
    """A 4xx other than 408 and 429."""
    async with WorkerHarness(url, fails(code="upstream_refused", retryable=False)) as harness:
        await harness.start()
        generation_id = await harness.ask()
        end = decode((await harness.ended(generation_id)).end)

        assert (end.error.code, end.error.retryable) == ("upstream_refused", False)
        assert harness.backend.prefixes == [""]
        await until_nothing_is_queued(harness)


async def test_the_last_allowed_attempt_ends_with_attempts_exhausted(url):
    async with WorkerHarness(url, fails("a"), attempts_max=3) as harness:
        worker = await harness.start()
        generation_id = await harness.ask()
        end = decode((await harness.ended(generation_id)).end)

        assert (end.status, end.error.code) == ("failed", "attempts_exhausted")
        assert "upstream_error" in end.error.message
        assert (await harness.said(generation_id)).count("start") == 3
        assert harness.backend.prefixes == ["", "a", "aa"]
        assert worker.counters["attempts_failed"] == 3
        await until_nothing_is_queued(harness)


async def test_a_backend_that_ends_without_finish_counts_as_a_failure(url):
    async with WorkerHarness(url, breaks_off("Hel"), says("lo")) as harness:
        await harness.start()
        generation_id = await harness.ask()
        meta = await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "Hel", "start", "lo", "end"]
        assert meta.failures == 1


async def test_a_generation_waiting_for_retry_after_takes_no_slot(url):
    async with WorkerHarness(url, fails("Hel", retry_after_s=15.0), says("lo")) as harness:
        worker = await harness.start()
        generation_id = await harness.ask()

        async def paused():
            return await harness.redis.zrange(keys.later(), 0, -1, withscores=True)

        ((entry, at_ms),) = await until(paused, DEADLINE_S, "an entry in later")
        await until(lambda: not worker.runs, DEADLINE_S, "a free slot")
        assert 5_000 < at_ms - await harness.store.now_ms() <= 15_000
        assert (await queue_depths(harness.store))["interactive"] == 1
        assert (await harness.store.meta(generation_id)).lease_ms == 0

        await harness.redis.zadd(keys.later(), {entry: 1})
        await harness.ended(generation_id)

        assert await harness.text(generation_id) == "Hello"
        await until_nothing_is_queued(harness)


async def test_an_answer_over_the_size_bound_fails_and_closes_the_backend(url):
    async def endless(prefix):
        while True:
            yield [Token("x" * 100)]

    async with WorkerHarness(url, endless, answer_bytes_max=5_000) as harness:
        await harness.start()
        generation_id = await harness.ask()
        end = decode((await harness.ended(generation_id)).end)

        assert (end.status, end.error.code, end.error.retryable) == (
            "failed",
            "answer_too_large",
            False,
        )
        assert len(await harness.text(generation_id)) <= 5_100
        await until(lambda: harness.backend.open == 0, DEADLINE_S, "the backend is closed")


async def test_an_exception_in_one_run_does_not_stop_other_runs(url, caplog):
    async with WorkerHarness(url, says("a")) as harness:
        worker = await harness.start()
        broken = await harness.ask(request=b"no JSON")

        generation_id = await harness.ask()
        await harness.ended(generation_id)

        await until(lambda: broken not in worker.runs, DEADLINE_S, "the broken run is over")
        assert "run failed" in caplog.text
        assert not (await harness.store.meta(broken)).is_ended
