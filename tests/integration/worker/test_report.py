"""The report of a worker: figures always, runs while a console is open, and the order to drain."""

from __future__ import annotations

import asyncio
from functools import partial

from shared.console.board import Reading, order_drain, read_commands, watch_command
from shared.console.histogram import quantile
from shared.errors import Unavailable
from shared.log.events import Token
from shared.redis.pipeline import ClientPipeline
from tests.support.backend_scripts import says
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers.backends import Finish

PAUSE_S = 0.3


async def reading(harness: WorkerHarness) -> Reading:
    return Reading.of(await ClientPipeline(harness.redis).run(read_commands()))


async def test_a_worker_reports_its_runs_only_while_a_console_is_open(url):
    gate = asyncio.Event()

    async def answer(prefix):
        yield [Token("one "), Token("two ")]
        await gate.wait()
        yield [Token("three"), Finish("stop")]

    async with WorkerHarness(url, answer) as harness:
        await harness.start("one")
        generation_id = await harness.ask(owner="alice")

        async def has_tokens() -> bool:
            seen = await reading(harness)
            return any(worker.counters["tokens"] == 2 for worker in seen.workers)

        await until(has_tokens, DEADLINE_S)
        assert (await reading(harness)).runs == {}

        await ClientPipeline(harness.redis).run([watch_command()])

        async def is_shown() -> bool:
            return bool((await reading(harness)).runs.get("one"))

        await until(is_shown, DEADLINE_S)
        (run,) = (await reading(harness)).runs["one"]
        gate.set()

    assert (run.id, run.owner, run.model, run.attempt, run.tokens) == (
        generation_id, "alice", "m", 1, 2,
    )  # fmt: skip
    assert run.idle_ms >= 0


async def test_a_worker_counts_first_tokens_and_the_longest_pause(url):
    gate, over = asyncio.Event(), asyncio.Event()

    async def answer(prefix):
        yield [Token("one ")]
        await gate.wait()
        yield [Token("two")]
        await over.wait()
        yield [Finish("stop")]

    async with WorkerHarness(url, answer) as harness:
        await harness.start("one")
        await harness.ask()

        async def has_gap() -> bool:
            (presence,) = (await reading(harness)).workers
            return quantile(presence.gaps, 1.0) is not None

        async def is_silent() -> bool:
            (presence,) = (await reading(harness)).workers
            return presence.silence_s >= PAUSE_S

        await until(is_silent, DEADLINE_S)
        assert not await has_gap()
        gate.set()
        await until(has_gap, DEADLINE_S)
        (presence,) = (await reading(harness)).workers

        over.set()

    assert sum(presence.first_tokens.values()) == 1
    assert (quantile(presence.gaps, 1.0) or 0) >= PAUSE_S * 0.97


async def test_a_worker_that_is_told_to_drain_hands_its_answers_over_and_ends(url):
    gate = asyncio.Event()

    async def answer(prefix):
        if not prefix:
            yield [Token("one ")]
            await gate.wait()
        yield [Token("two"), Finish("stop")]

    async with WorkerHarness(url, answer) as harness:
        await harness.start("one")
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "one ")
        await harness.start("two")

        await order_drain(harness.redis, "one", "olga")
        async with asyncio.timeout(10):
            await harness.tasks["one"]

        meta = await harness.ended(generation_id)
        seen = await reading(harness)
    assert (meta.status, meta.attempt) == ("completed", 2)
    assert [each.worker for each in seen.workers] == ["two"]


async def test_an_order_to_drain_another_worker_changes_nothing(url):
    async def answer(prefix):
        yield [Token("one"), Finish("stop")]

    async with WorkerHarness(url, answer) as harness:
        worker = await harness.start("one")
        await order_drain(harness.redis, "two", "olga")
        generation_id = await harness.ask()
        await harness.ended(generation_id)
        # A worker reads its orders with each report. The report after the next one began after
        # the order was given.
        for _ in range(2):
            (presence,) = (await reading(harness)).workers
            await until(partial(has_newer_report, harness, presence.at_ms), DEADLINE_S, "a report")

        assert not worker.is_draining


async def has_newer_report(harness: WorkerHarness, at_ms: int) -> bool:
    (presence,) = (await reading(harness)).workers
    return presence.at_ms > at_ms


async def test_a_worker_reports_while_the_index_of_running_generations_is_away(url, monkeypatch):
    """A shard of a cluster that is away must not make the worker look dead."""
    async with WorkerHarness(url, says("a")) as harness:
        worker = harness.worker("one")

        async def away(*_):
            raise Unavailable("the shard does not answer")

        monkeypatch.setattr(worker.queue, "note_running", away)
        serving = asyncio.create_task(worker.serve(asyncio.Event()))

        async def is_drained() -> bool:
            await order_drain(harness.redis, "one", "olga")
            return serving.done()

        async def is_present() -> bool:
            return bool((await reading(harness)).workers)

        await until(is_present, DEADLINE_S, "a presence")
        await until(is_drained, DEADLINE_S, "an order that was read")
