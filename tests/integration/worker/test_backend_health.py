"""A backend that is down: who asks it, how often, and how soon it is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from shared.backends.board import read_board
from shared.errors import BackendError
from shared.log.events import Token
from shared.queue.endings import cancel
from shared.queue.overview import queue_depths
from tests.support.backend_scripts import says
from tests.support.routes import RouteHarness
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers.backends.contract import BackendItem, Finish
from workers.health import gate
from workers.health.sharing import Sharing

COOLDOWN_S = 0.5


class Server:
    """A model server that is down until `is_up`."""

    def __init__(self, **error: object) -> None:
        self.is_up = False
        self.calls = 0
        self._error = error

    async def answer(self, prefix: str) -> AsyncGenerator[list[BackendItem], None]:
        self.calls += 1
        if not self.is_up:
            raise BackendError("upstream_error", "it is down", **self._error)  # type: ignore[arg-type]
        yield [Token("back")]
        yield [Finish("stop")]


async def ask(harness: WorkerHarness, count: int, at_once: int) -> None:
    """Ask `count` prompts, `at_once` at a time, and wait for their answers."""
    for _ in range(count // at_once):
        ids = [await harness.ask() for _ in range(at_once)]
        for generation_id in ids:
            assert (await harness.ended(generation_id)).status == "completed"


@pytest.mark.parametrize(
    "error", [{"is_outage": True}, {}, {"retry_after_s": 1.0}], ids=["away", "fails", "busy"]
)
@pytest.mark.parametrize("at_once", [1, 30])
async def test_a_dead_backend_of_a_route_costs_few_calls_of_two_workers(
    url, error, at_once, monkeypatch
):
    server = Server(**error)
    scripts = {"a": [server.answer], "b": [says("ok")]}
    async with RouteHarness(url, scripts) as harness:
        for name in ("one", "two"):
            worker = await harness.start(name)
            worker.parts.health.chance = lambda: 1.0  # each cool-down is as long as it may be
        await ask(harness, 30, at_once)
        in_first_half = server.calls
        await ask(harness, 30, at_once)

        assert 0 < server.calls <= 20
        assert server.calls - in_first_half <= 6

        server.is_up = True
        calls = server.calls
        now_ms = Sharing.now_ms
        monkeypatch.setattr(Sharing, "now_ms", lambda sharing: now_ms(sharing) + 45_000)

        async def is_asked_again() -> bool:
            await ask(harness, 1, 1)
            return server.calls > calls

        await until(is_asked_again, DEADLINE_S, "the backend is asked again")

        async def is_closed() -> bool:
            breaker = (await read_board(harness.redis))[1]["a"]
            return breaker.state == "closed" and breaker.opens >= 1

        await until(is_closed, DEADLINE_S, "a closed breaker")


async def test_prompts_of_a_server_that_is_away_wait_and_are_answered_when_it_is_back(url):
    server = Server(is_outage=True)
    async with WorkerHarness(url, server.answer, backend_cooldown_s=COOLDOWN_S) as harness:
        for name in ("one", "two"):
            await harness.start(name)
        ids = [await harness.ask() for _ in range(20)]

        async def is_open() -> bool:
            return (await read_board(harness.redis))[1].get("m", None) is not None

        await until(is_open, DEADLINE_S, "a breaker")
        server.is_up = True
        for generation_id in ids:
            assert (await harness.ended(generation_id)).status == "completed"


async def test_while_the_breaker_is_open_a_prompt_that_waits_is_not_begun(url):
    server = Server(is_outage=True)
    async with WorkerHarness(url, server.answer, backend_cooldown_s=60.0) as harness:
        worker = await harness.start()
        for _ in range(3):
            call = worker.parts.health.start("m")
            call.close(BackendError("upstream_error", "it is down", is_outage=True))
        generation_id = await harness.ask()

        async def waits() -> bool:
            return bool(await harness.redis.zcard("tr:{q}:later"))

        await until(waits, DEADLINE_S, "a prompt that waits")
        assert await harness.said(generation_id) == []
        assert server.calls == 0


async def test_a_cancelled_prompt_does_not_wait_for_a_server_that_is_away(url, monkeypatch):
    server = Server(is_outage=True)
    async with WorkerHarness(url, server.answer, backend_cooldown_s=60.0) as harness:
        worker = await harness.start()
        for _ in range(3):
            call = worker.parts.health.start("m")
            call.close(BackendError("upstream_error", "it is down", is_outage=True))
        generation_id = await harness.ask()

        async def later() -> int:
            return (await queue_depths(harness.store))["later"]

        await until(later, DEADLINE_S, "a prompt that waits")
        await cancel(harness.store, generation_id)
        assert (await queue_depths(harness.store))["interactive"] == 0
        ways = asyncio.Queue[str]()
        queue = worker.parts.queue

        def watch(way: str) -> None:
            go = getattr(queue, way)

            async def goes(*args: Any, **kw: Any) -> None:
                await go(*args, **kw)
                ways.put_nowait(way)

            monkeypatch.setattr(queue, way, goes)

        watch("leave")
        watch("try_later")
        (entry,) = await harness.redis.zrange("tr:{q}:later", 0, -1)
        await harness.redis.zadd("tr:{q}:later", {entry: 0})  # it is due
        async with asyncio.timeout(DEADLINE_S):
            assert await ways.get() == "leave"
        depths = await queue_depths(harness.store)
        assert (depths["interactive"], depths["later"]) == (0, 0)


async def test_a_prompt_waits_for_a_server_no_longer_than_the_setting_says(url):
    server = Server(is_outage=True)
    changes = {"backend_cooldown_s": COOLDOWN_S, "upstream_outage_s": 0.3}
    async with WorkerHarness(url, server.answer, **changes) as harness:
        await harness.start()
        assert (await harness.ended(await harness.ask())).status == "failed"


async def test_a_server_that_fails_its_requests_does_not_make_prompts_wait(url):
    server = Server()
    async with WorkerHarness(url, server.answer, backend_cooldown_s=60.0) as harness:
        await harness.start()
        for _ in range(3):
            assert (await harness.ended(await harness.ask())).status == "failed"


async def test_one_of_several_simultaneous_prompts_tries_the_server(url, monkeypatch):
    monkeypatch.setattr(gate, "OUTAGE_PAUSE_MAX_S", 0.5)
    may_answer = asyncio.Event()
    server = Server(is_outage=True)

    async def answer(prefix: str) -> AsyncGenerator[list[BackendItem], None]:
        if server.is_up:
            server.calls += 1
            await may_answer.wait()
            yield [Token("back")]
            yield [Finish("stop")]
        else:
            async for items in server.answer(prefix):
                yield items

    async with WorkerHarness(url, answer) as harness:
        healths = [(await harness.start(name)).parts.health for name in ("one", "two")]
        for health in healths:
            health.chance = lambda: 0.0  # each cool-down is as short as it may be
        for _ in range(3):
            call = healths[0].start("m")
            call.close(BackendError("upstream_error", "it is down", is_outage=True))
        for health in healths:
            await until(lambda h=health: h.state("m") == "open", DEADLINE_S, "all know it")
        server.is_up = True
        ids = [await harness.ask() for _ in range(12)]

        async def others_wait() -> bool:
            return await harness.redis.zcard("tr:{q}:later") == 11

        await until(others_wait, DEADLINE_S, "a trial, and eleven prompts that wait")
        assert server.calls == 1
        may_answer.set()
        for generation_id in ids:
            assert (await harness.ended(generation_id)).status == "completed"
