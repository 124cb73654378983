"""Backends with `slots`: generations without a slot wait in one queue of all workers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from shared.backends.breaker import Breaker
from shared.backends.slots import slots_in_use
from shared.config.models import Model
from shared.errors import BackendError
from shared.log.events import Token
from shared.queue import janitor as janitor_module
from shared.queue.endings import CANCELLED, cancel, cancel_many
from shared.queue.janitor import Janitor
from shared.queue.lanes import put_back
from shared.queue.new_generation import meta_fields
from shared.queue.overview import queue_depths
from shared.redis import backend_keys
from tests.support.routes import RouteHarness
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers.backends import Finish

pytestmark = pytest.mark.usefixtures("queue_partitions")


class Server:
    """A server of two slots that fails a third request at the same time."""

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self.running = self.most = self.failed = 0
        self.may_end = asyncio.Event()
        self.order: list[str] = []

    async def answer(self, prefix: str):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.running > self.slots:
                self.failed += 1
                raise BackendError("upstream_error", "too many requests at a time")
            yield []
            yield [Token("word")]
            await self.may_end.wait()
            yield [Finish("stop")]
        finally:
            self.running -= 1


@pytest.fixture
def server() -> Server:
    return Server()


def harness_of(url: str, server: Server, lease_s: float = 60.0, **settings) -> WorkerHarness:
    """A slot that is not given back stays taken for `lease_s`: by default, longer than a test."""
    harness = WorkerHarness(url, server.answer, lease_s=lease_s, **settings)
    harness.models["m"] = replace(harness.models["m"], slots=server.slots)
    return harness


async def test_sixty_lines_succeed_on_a_server_with_two_slots(url, server):
    async with harness_of(url, server) as harness:
        for name in ("one", "two"):
            await harness.start(name)
        ids = [await harness.ask(priority="batch") for _ in range(60)]
        await until_waiting(harness, 58)
        server.may_end.set()
        for generation_id in ids:
            assert (await harness.ended(generation_id)).status == "completed"
        assert (server.failed, server.most) == (0, 2)
        assert [await harness.said(ids[-1])] == [["start", "word", "end"]]
        await until_no_slots(harness)


async def test_a_prompt_goes_before_the_lines_that_wait(url, server):
    async with harness_of(url, server) as harness:
        await harness.start()
        lines = [await harness.ask(priority="batch") for _ in range(6)]
        await until_waiting(harness, 4)
        prompt = await harness.ask()
        await until_waiting(harness, 5)
        server.may_end.set()
        for generation_id in (*lines, prompt):
            await harness.ended(generation_id)
        # Both slots are free at once: one of the lines may begin before the prompt.
    assert harness.backend.seeds.index(prompt) <= 3


async def test_a_second_entry_of_a_running_generation_does_not_give_its_slot_away(url):
    server = Server(1)
    async with harness_of(url, server) as harness:
        await harness.start("one")
        running = await harness.ask()
        await harness.has_said(running, "word")
        waiting = await harness.ask()
        await until_waiting(harness, 1)
        # The worker `one` drops the entries that it reads; the worker `two` is told `held`.
        two = await harness.start("two")

        async def is_held_elsewhere() -> bool:
            if not two.runs and not two._held:
                await put_back(harness.store, running, "interactive", "m")
            return bool(two._held) and not two.runs

        await until(is_held_elsewhere, DEADLINE_S, "a second entry that waits for the holder")
        assert await slots_in_use(harness.redis, ["m"]) == {"m": (1, 1)}
        held = await harness.redis.zrange(backend_keys.slots("m")[0], 0, -1)
        assert held == [running.encode()]
        server.may_end.set()
        for generation_id in (running, waiting):
            assert (await harness.ended(generation_id)).status == "completed"
        assert (server.failed, server.most) == (0, 1)


async def test_a_full_backend_does_not_delay_the_prompts_of_others(url, server):
    async with harness_of(url, server, worker_slots=4) as harness:
        harness.models["free"] = replace(harness.models["m"], name="free", slots=0)
        harness.backends["free"] = WorkerHarness(url, lambda prefix: _hello()).backend
        await harness.start()
        for _ in range(20):
            await harness.ask()
        await until_waiting(harness, 18)
        assert (await harness.ended(await harness.ask(model="free"))).status == "completed"
        await until(lambda: server.running == 2, DEADLINE_S, "two requests at the full backend")
        server.may_end.set()


async def _hello():
    yield [Token("hello")]
    yield [Finish("stop")]


async def test_the_slots_of_a_killed_worker_come_back(url, server):
    async with harness_of(url, server, lease_s=0.6) as harness:
        await harness.start("one")
        first = [await harness.ask() for _ in range(2)]
        for generation_id in first:
            await harness.has_said(generation_id, "word")
        second = [await harness.ask() for _ in range(2)]
        await until_waiting(harness, 2)
        await harness.kill("one")
        server.may_end.set()
        await harness.start("two")
        for generation_id in (*first, *second):
            assert (await harness.ended(generation_id)).status == "completed"
        assert server.failed == 0


async def test_a_cancelled_generation_gives_its_slot_to_the_next(url, server):
    # A worker that waits for its server learns of the cancel when it renews its lease.
    async with harness_of(url, server, lease_s=0.6) as harness:
        worker = await harness.start()
        ids = [await harness.ask() for _ in range(3)]
        await until_waiting(harness, 1)
        await until_asked(harness, 2)
        running = next(iter(worker.runs))
        (waiting,) = set(ids) - set(harness.backend.seeds)
        await harness.store.close(running, CANCELLED)
        await harness.has_said(waiting, "word")
        server.may_end.set()
        await harness.ended(waiting)


async def test_cancelled_generations_leave_the_line_of_a_full_backend(url, server):
    async with harness_of(url, server) as harness:
        await harness.start()
        running = [await harness.ask() for _ in range(2)]
        for generation_id in running:
            await harness.has_said(generation_id, "word")
        ids = [await harness.ask() for _ in range(20)]
        await until_waiting(harness, 20)

        await cancel(harness.store, ids[0])
        await cancel_many(harness.store, ids[1:10])
        assert await slots_in_use(harness.redis, ["m"]) == {"m": (2, 10)}
        assert (await queue_depths(harness.store))["interactive"] == 10
        for generation_id in ids[10:]:
            await cancel(harness.store, generation_id)
        assert await slots_in_use(harness.redis, ["m"]) == {"m": (2, 0)}
        assert not await harness.redis.exists(backend_keys.slots("m")[2])
        server.may_end.set()
        for generation_id in running:
            await harness.ended(generation_id)


async def test_a_generation_that_was_cancelled_on_its_lane_does_not_wait_for_a_slot(url, server):
    async with harness_of(url, server) as harness:
        await harness.start()
        running = [await harness.ask() for _ in range(2)]
        for generation_id in running:
            await harness.has_said(generation_id, "word")
        fields = meta_fields(harness.new())
        await harness.store.create("gen_cancelled", fields, may_be_lost=False)
        await cancel(harness.store, "gen_cancelled")
        await put_back(harness.store, "gen_cancelled", "interactive", "m")

        async def no_generation_waits() -> bool:
            return (await queue_depths(harness.store))["interactive"] == 0

        await until(no_generation_waits, DEADLINE_S, "no generation that waits")
        assert await slots_in_use(harness.redis, ["m"]) == {"m": (2, 0)}
        server.may_end.set()
        for generation_id in running:
            await harness.ended(generation_id)


async def until_waiting(harness: WorkerHarness, count: int) -> None:
    async def waiting() -> bool:
        return await harness.redis.zcard(backend_keys.slots("m")[1]) == count

    await until(waiting, 10.0, f"{count} generations in the line")


async def until_asked(harness: WorkerHarness, count: int) -> None:
    """A worker takes the slot of a generation before it asks the backend."""
    seeds = harness.backend.seeds
    await until(lambda: len(seeds) == count, DEADLINE_S, f"{count} generations at the backend")


async def until_no_slots(harness: WorkerHarness | RouteHarness) -> None:
    """A worker gives a slot back after it has written the end of the log."""

    async def is_empty() -> bool:
        return not await harness.redis.keys("tr:{slots:*")

    await until(is_empty, DEADLINE_S, "no slot is held and no line is left")


def route_of(url: str, servers: dict[str, Server], **settings) -> RouteHarness:
    members = {name: Model(name=name, slots=server.slots) for name, server in servers.items()}
    scripts = {name: [server.answer] for name, server in servers.items()}
    return RouteHarness(url, scripts, members=members, lease_s=60.0, **settings)


async def test_a_route_uses_the_backend_with_a_free_slot_and_then_waits(url):
    servers = {"a": Server(2), "b": Server(1)}
    async with route_of(url, servers) as harness:
        await harness.start()
        ids = [await harness.ask() for _ in range(5)]

        async def is_full() -> bool:
            waiting = [await harness.redis.zcard(backend_keys.slots(name)[1]) for name in servers]
            return (servers["a"].running, servers["b"].running, waiting) == (2, 1, [2, 2])

        await until(is_full, DEADLINE_S, "two full backends and two generations in both lines")
        servers["a"].may_end.set()
        servers["b"].may_end.set()
        for generation_id in ids:
            assert (await harness.ended(generation_id)).status == "completed"
            assert (await harness.said(generation_id)).count("start") == 1
        assert not (servers["a"].failed or servers["b"].failed)
        await until_no_slots(harness)


async def waits_at(harness: RouteHarness, backend: str, generation_id: str) -> bool:
    line = backend_keys.slots(backend)[1]
    return await harness.redis.zscore(line, generation_id) is not None


async def test_a_generation_leaves_the_line_of_a_backend_that_is_out_of_reach(url):
    servers = {"a": Server(1), "b": Server(1)}
    async with route_of(url, servers, rules={"policy": "order"}) as harness:
        health = (await harness.start()).access.health
        on_a, on_b = await harness.ask(), await harness.ask()
        for generation_id in (on_a, on_b):
            await harness.has_said(generation_id, "word")
        waiting = await harness.ask()
        await until(lambda: waits_at(harness, "b", waiting), DEADLINE_S, "a place in both lines")
        # The other backend answers 429; then the first one has a free slot.
        health.note_limit("b", await harness.store.now_ms() + 60_000)
        servers["a"].may_end.set()
        await harness.ended(waiting)
        assert await harness.writers(waiting) == ["a"]
        assert not await waits_at(harness, "b", waiting)
        servers["b"].may_end.set()
        await harness.ended(on_b)
        await until_no_slots(harness)


async def test_a_generation_leaves_all_lines_for_a_backend_without_slots(url):
    servers = {"free": Server(9), "a": Server(1)}
    async with route_of(url, servers, rules={"policy": "order"}) as harness:
        harness.models["free"] = replace(harness.models["free"], slots=0)
        health = (await harness.start()).access.health
        until_ms = await harness.store.now_ms() + 60_000
        health.learn_breaker("free", Breaker(limited_until_ms=until_ms))
        on_a = await harness.ask()
        await harness.has_said(on_a, "word")
        waiting = await harness.ask()
        await until(lambda: waits_at(harness, "a", waiting), DEADLINE_S, "a place in the line")
        health.learn_breaker("free", Breaker())
        await put_back(harness.store, waiting, "interactive", "m")
        await harness.has_said(waiting, "word")
        assert await harness.writers(waiting) == ["free"]
        assert not await waits_at(harness, "a", waiting)
        for server in servers.values():
            server.may_end.set()
        for generation_id in (on_a, waiting):
            await harness.ended(generation_id)


async def test_a_second_entry_takes_no_slot_of_another_backend_of_the_route(url):
    servers = {"a": Server(1), "b": Server(1)}
    async with route_of(url, servers, rules={"policy": "order"}) as harness:
        await harness.start("one")
        on_a, on_b = await harness.ask(), await harness.ask()
        for generation_id in (on_a, on_b):
            await harness.has_said(generation_id, "word")
        two = await harness.start("two")
        two.access.health.note_limit("a", await harness.store.now_ms() + 60_000)

        async def is_held_elsewhere() -> bool:
            if not two.runs and not two._held:
                await put_back(harness.store, on_a, "interactive", "m")
            return bool(two._held) and not two.runs

        await until(is_held_elsewhere, DEADLINE_S, "a second entry that waits for the holder")
        assert await slots_in_use(harness.redis, ["a", "b"]) == {"a": (1, 0), "b": (1, 0)}
        for server in servers.values():
            server.may_end.set()
        for generation_id in (on_a, on_b):
            await harness.ended(generation_id)


async def test_the_slot_of_a_backend_that_failed_is_free_while_another_one_answers(url):
    servers = {"a": Server(1), "b": Server(4)}
    servers["a"].slots = 0  # the server fails every request
    async with route_of(url, servers) as harness:
        harness.models["a"] = replace(harness.models["a"], slots=1)
        await harness.start()
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "word")

        async def is_free() -> bool:
            return not await harness.redis.exists(backend_keys.slots("a")[0])

        await until(is_free, DEADLINE_S, "a free slot of the backend that failed")
        assert await harness.redis.zcard(backend_keys.slots("b")[0]) == 1
        servers["b"].may_end.set()
        await harness.ended(generation_id)


async def test_a_prompt_in_the_line_has_the_time_limits_of_the_queue(url, server):
    async with harness_of(url, server, queue_wait_s=0.4) as harness:
        await harness.start()
        ids = [await harness.ask() for _ in range(3)]
        await until_waiting(harness, 1)
        await until_asked(harness, 2)
        (waiting,) = set(ids) - set(harness.backend.seeds)
        janitor = Janitor(harness.redis, harness.store, harness.settings)

        async def has_timed_out() -> bool:
            await janitor.sweep()
            meta = await harness.store.meta(waiting)
            return meta is not None and meta.is_ended

        await until(has_timed_out, DEADLINE_S, "a queue timeout")
        assert len(harness.backend.seeds) == 2
        server.may_end.set()


async def test_the_janitor_adds_no_entry_for_a_generation_in_the_line(url, server, monkeypatch):
    monkeypatch.setattr(janitor_module, "NEVER_BEGAN_S", 0.0)
    async with harness_of(url, server) as harness:
        await harness.start()
        for _ in range(4):
            await harness.ask()
        await until_waiting(harness, 2)
        janitor = Janitor(harness.redis, harness.store, harness.settings)
        await janitor.sweep()
        assert not await harness.redis.keys("tr:{*}:requeued:*")
        server.may_end.set()
