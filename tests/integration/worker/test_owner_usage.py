"""The usage of owners with a real worker and server: cancelled, failed, taken over, read on."""

from __future__ import annotations

import asyncio
from datetime import date

import msgspec
import pytest

from shared.errors import BackendError
from shared.log.events import Token, Usage
from shared.log.request import Request
from shared.queue.endings import cancel
from shared.redis import keys
from shared.usage.figures import Figures
from shared.usage.settlement import Settlement
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers.backends.contract import Finish

PROMPT = "Which rivers do you know?"  # 25 characters count as 7 tokens
REPORT = Usage(20, 9, 29, {"prompt_tokens_details": {"cached_tokens": 16}})


def request(**params) -> bytes:
    return msgspec.json.encode(Request([{"role": "user", "content": PROMPT}], params))


async def figures(harness: WorkerHarness) -> Figures:
    """Look once, and return the sums of the owner, without the time."""
    settlement = Settlement(harness.redis, harness.store, harness.settings)
    await settlement.look(keys.QUEUE)
    ((rows),) = await settlement.ledger.rows(["alice"], date(2020, 1, 1), date(2090, 1, 1))
    total = Figures()
    for row in rows:
        total = total.plus(row.figures)
    return total._replace(held_ms=0)


async def have_left(harness: WorkerHarness) -> None:
    """Wait until no generation waits, runs or has an entry on its lane."""

    async def is_empty() -> bool:
        names = (keys.running(), keys.waiting("interactive"), keys.lane("interactive"))
        kinds = [harness.redis.zcard, harness.redis.zcard, harness.redis.xlen]
        counts = [await count(name) for count, name in zip(kinds, names, strict=True)]
        return not any(counts)

    await until(is_empty, DEADLINE_S)


def scripted(*lists, gate: asyncio.Event | None = None, then=(), error: str = ""):
    async def backend_script(prefix):
        for items in lists:
            yield list(items)
        if gate is not None:
            await gate.wait()
        for items in then:
            yield list(items)
        if error:
            raise BackendError(error, "it broke", retryable=False)
        yield [Finish("stop")]

    return backend_script


async def ask(harness: WorkerHarness) -> str:
    return await harness.ask(request=request(), owner="alice")


async def test_a_completed_answer_counts_what_the_server_reports(url):
    async with WorkerHarness(url, scripted([Token("a")], [REPORT])) as harness:
        await harness.start()
        await harness.ended(await ask(harness))
        await have_left(harness)

        assert await figures(harness) == Figures(1, 20, 9, 16, 0)


async def test_an_answer_without_a_report_is_estimated(url):
    async with WorkerHarness(url, scripted([Token(" river")], [Token(" river")])) as harness:
        await harness.start()
        await harness.ended(await ask(harness))
        await have_left(harness)

        assert await figures(harness) == Figures(1, 7, 2, 0, 9)


async def test_a_failed_answer_counts_its_tokens(url):
    async with WorkerHarness(url, scripted([Token(" river")], error="upstream_refused")) as harness:
        await harness.start()
        await harness.ended(await ask(harness))
        await have_left(harness)

        assert await figures(harness) == Figures(1, 7, 1, 0, 8)


async def test_a_refused_prompt_has_no_tokens(url):
    async with WorkerHarness(url, scripted(error="upstream_refused")) as harness:
        await harness.start()
        await harness.ended(await ask(harness))
        await have_left(harness)

        assert await figures(harness) == Figures(1)


async def test_a_cancelled_answer_is_read_on_for_its_usage(url):
    gate = asyncio.Event()
    script = scripted([Token(" river")], gate=gate, then=([Token(" more")], [REPORT]))
    async with WorkerHarness(url, script, cancel_usage_s=DEADLINE_S) as harness:
        await harness.start()
        generation_id = await ask(harness)
        await harness.has_said(generation_id, " river")
        meta = await cancel(harness.store, generation_id)
        gate.set()
        await have_left(harness)

        assert meta.status == "cancelled"
        assert await harness.text(generation_id) == " river", "readers get nothing after the end"
        assert await figures(harness) == Figures(1, 20, 9, 16, 0)


@pytest.mark.parametrize("read_on_s", [0, 0.05])
async def test_a_server_that_reports_nothing_in_time_is_left(url, read_on_s):
    script = scripted([Token(" river")], gate=asyncio.Event())
    async with WorkerHarness(url, script, cancel_usage_s=read_on_s) as harness:
        await harness.start()
        generation_id = await ask(harness)
        await harness.has_said(generation_id, " river")
        await cancel(harness.store, generation_id)
        await have_left(harness)

        assert harness.backend.open == 0
        assert await figures(harness) == Figures(1, 7, 1, 0, 8)


async def test_a_server_with_running_counts_is_not_read_on(url):
    script = scripted([Token(" river"), REPORT], gate=asyncio.Event())
    async with WorkerHarness(url, script, cancel_usage_s=DEADLINE_S * 6) as harness:
        await harness.start()
        generation_id = await ask(harness)
        await harness.has_said(generation_id, " river")
        await cancel(harness.store, generation_id)
        await have_left(harness)

        assert await figures(harness) == Figures(1, 20, 9, 16, 0)


async def test_a_drain_does_not_wait_for_usage(url):
    """Only the end of a generation is a reason to read on, not a stop of the worker."""
    script = scripted([Token(" river")], gate=asyncio.Event())
    async with WorkerHarness(url, script, cancel_usage_s=DEADLINE_S * 6) as harness:
        worker = await harness.start()
        generation_id = await ask(harness)
        await harness.has_said(generation_id, " river")
        worker.drain()

        await asyncio.wait_for(harness.tasks["one"], DEADLINE_S)
        assert await figures(harness) == Figures()


async def test_an_answer_of_two_workers_counts_once(url):
    gate = asyncio.Event()
    first = scripted([Token(" river")], gate=gate)
    second = scripted([Token(" b")], [Usage(12, 1, 13)])
    async with WorkerHarness(url, first, second) as harness:
        worker = await harness.start()
        generation_id = await ask(harness)
        await harness.has_said(generation_id, " river")
        worker.drain()
        await harness.start("two")
        await harness.ended(generation_id)
        await have_left(harness)

        assert await figures(harness) == Figures(1, 11, 2, 0, 13)


async def test_nothing_is_kept_where_usage_is_not_counted(url):
    async with WorkerHarness(url, scripted([Token("a")]), usage_days=0) as harness:
        await harness.start()
        await harness.ended(await ask(harness))
        await have_left(harness)

        assert [key async for key in harness.redis.scan_iter("*usage*")] == []
        assert [key async for key in harness.redis.scan_iter("*unsettled*")] == []
