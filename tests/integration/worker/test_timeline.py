"""The moments that workers note while answers come, break and move."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from shared.errors import BackendError
from shared.metrics.prometheus import WorkerMetrics
from shared.redis import keys
from shared.timeline.moment import Moment
from shared.timeline.story import read_story
from tests.support.backend_scripts import says, says_and_waits
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness


async def story(harness: WorkerHarness, generation_id: str) -> list[Moment]:
    meta = await harness.store.meta(generation_id)
    assert meta is not None
    return [timed.moment for timed in await read_story(harness.redis, meta, "q")]


async def has(harness: WorkerHarness, generation_id: str, *names: str) -> list[Moment]:
    async def found() -> list[Moment] | None:
        moments = await story(harness, generation_id)
        return moments if [moment.what for moment in moments] == list(names) else None

    moments = await until(found, DEADLINE_S, f"the moments {names}")
    assert moments is not None
    return moments


async def test_an_undisturbed_answer_tells_each_step_with_its_worker(url):
    async with WorkerHarness(url, says("Hello")) as harness:
        await harness.start("one")
        generation_id = await harness.ask()

        moments = await has(
            harness, generation_id,
            "accepted", "queued", "begun", "connected", "first_token", "attempt_ended", "end",
        )  # fmt: skip

        steps = moments[2:-1]
        assert {moment.worker for moment in steps} == {"one"}
        assert len({moment.attempt for moment in steps}) == 1
        begun, connected, _, ended = steps
        assert begun.waited_s is not None and begun.waited_s >= 0
        assert connected.backend == "openai"
        assert (ended.ending, ended.code) == ("completed", "")
        meta = await harness.store.meta(generation_id)
        assert meta is not None and (meta.worker, meta.begins) == ("one", 1)
        ttl_ms = await harness.redis.pttl(keys.timeline(generation_id))
        assert 0 < ttl_ms <= harness.store.retention_ms


async def test_the_story_over_a_killed_worker_names_both_workers_in_order(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "Hel"), says("lo"), lease_s=0.3) as harness:
        await harness.start("first")
        generation_id = await harness.ask()
        await has(harness, generation_id, "accepted", "queued", "begun", "connected", "first_token")
        await harness.start("second")
        await harness.kill("first")

        moments = await has(
            harness, generation_id,
            "accepted", "queued", "begun", "connected", "first_token",
            "attempt_ended", "begun", "takeover", "connected", "first_token", "attempt_ended",
            "end",
        )  # fmt: skip

        assert [moment.worker for moment in moments[2:6]] == ["first"] * 4
        assert [moment.worker for moment in moments[6:11]] == ["second"] * 5
        assert (moments[5].ending, moments[5].attempt) == ("lease ran out", moments[2].attempt)
        assert moments[7].taken_from == "first"
        assert moments[6].attempt > moments[2].attempt
        meta = await harness.store.meta(generation_id)
        assert meta is not None and (meta.worker, meta.begins) == ("second", 2)


async def test_a_failed_attempt_tells_why_it_ended_and_how_long_the_pause_is(url):
    async def breaks(prefix):
        raise BackendError("upstream_error", "a marked message", retryable=True)
        yield []

    async with WorkerHarness(url, breaks, says("Hello")) as harness:
        await harness.start("one")
        generation_id = await harness.ask()

        moments = await has(
            harness, generation_id,
            "accepted", "queued", "begun", "attempt_ended", "released",
            "begun", "takeover", "connected", "first_token", "attempt_ended", "end",
        )  # fmt: skip

        ended, released = moments[3:5]
        assert (ended.ending, ended.code) == ("to be tried again", "upstream_error")
        assert released.lane == "later" and released.again_s is not None
        assert moments[6].taken_from == "", "the worker before has left by itself"
        assert "marked" not in str(moments)


async def test_a_drained_worker_tells_that_it_handed_over(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "Hel"), says("lo")) as harness:
        first = await harness.start("first")
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "Hel")
        first.drain()
        await harness.drained("first")
        await harness.start("second")

        moments = await has(
            harness, generation_id,
            "accepted", "queued", "begun", "connected", "first_token", "attempt_ended", "released",
            "begun", "takeover", "connected", "first_token", "attempt_ended", "end",
        )  # fmt: skip

        assert (moments[5].ending, moments[6].lane) == ("handed over", "resume")
        assert moments[6].worker == "first"


async def test_a_worker_measures_wait_first_token_run_and_outcome_by_model(url):
    registry = CollectorRegistry()
    async with WorkerHarness(url, says("Hello")) as harness:
        await harness.start("one", metrics=WorkerMetrics(registry))
        await harness.ended(await harness.ask())

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(name, {"model": "m", **labels})

        ended = {"ending": "completed", "code": ""}
        await until(
            lambda: value("tailrace_worker_attempts_total", **ended) == 1.0,
            DEADLINE_S, "the attempt is counted",
        )  # fmt: skip
        assert value("tailrace_worker_wait_seconds_count", priority="interactive") == 1.0
        assert value("tailrace_worker_first_token_seconds_count") == 1.0
        assert value("tailrace_worker_run_seconds_count") == 1.0
