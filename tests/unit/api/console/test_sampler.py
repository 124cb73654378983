"""The sampler: what a picture has, what it costs Redis, and when it stops."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import fakeredis
import msgspec
import pytest

from api.console import sampler as sampler_module
from api.console.limits import COMMANDS_PER_TICK, PAGES_MAX, ROWS_PER_PAGE
from api.console.rows import Filter
from api.console.sampler import Sampler
from api.console.watcher import Watcher
from shared.config.settings import Settings
from shared.console.board import report_worker
from shared.console.reports import LiveRun, Point
from shared.errors import RequestError
from shared.log.store import Store
from shared.queue.partitions import partitions_of
from shared.queue.presence import Presence
from shared.redis import keys
from shared.redis.client import clock_ms


class CountingPipeline:
    """Counts the commands that pass through."""

    losses = 0

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.sent: list[int] = []

    async def run(self, commands: Any) -> list[Any]:
        self.sent.append(len(commands))
        return list(await self.inner.run(commands))


class Stand:
    """A sampler on a fake Redis, whose ticks the test makes."""

    def __init__(self, **settings: Any) -> None:
        self.redis = fakeredis.FakeAsyncRedis()
        self.settings = Settings(**settings)
        self.tasks: list[asyncio.Task[None]] = []
        hub = SimpleNamespace(spawn=self._spawn)
        store = Store(self.redis, self.settings)
        node: Any = SimpleNamespace(redis=self.redis, store=store, settings=self.settings, hub=hub)
        self.sampler = Sampler(node)
        self.pipeline = CountingPipeline(self.sampler._pipeline)
        self.sampler._pipeline = self.pipeline  # type: ignore[assignment]
        self.sampler.background._pipeline = self.pipeline  # type: ignore[assignment]
        self.partitions = partitions_of(self.settings)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    async def generation(self, name: str, *, status: str = "running", owner: str = "ann") -> str:
        """Put a generation into meta and the indexes; return its id."""
        generation_id = "gen_" + name.rjust(26, "0")
        now_ms = await clock_ms(self.redis)
        fields = {
            "status": status,
            "owner": owner,
            "model": "demo",
            "created": now_ms,
            "attempt": 1,
        }
        await self.redis.hset(keys.meta(generation_id), mapping=fields)
        await self.redis.zadd(keys.owner(owner), {generation_id: now_ms})
        tag = self.partitions.of(generation_id)
        index = keys.running(tag) if status == "running" else keys.waiting("interactive", tag)
        if status in ("running", "queued"):
            await self.redis.zadd(index, {generation_id: now_ms})
        return generation_id

    async def report(self, worker: str, *ids: str, tokens: int = 5) -> None:
        now_ms = await clock_ms(self.redis)
        presence = Presence(worker, now_ms, 100, len(ids), False, {"tokens": float(tokens)})
        runs = [
            LiveRun(name, "ann", "demo", "demo", "interactive", now_ms, 1, tokens, 9)
            for name in ids
        ]
        await report_worker(self.redis, presence, runs)


async def test_the_first_picture_has_running_generations_before_any_worker_reports_them():
    stand = Stand()
    running = await stand.generation("a")
    queued = await stand.generation("b", status="queued", owner="bob")

    async with stand.sampler.watching(Filter()) as watcher:
        await stand.sampler.next_picture(0)
        rows = {row.id: row for row in stand.sampler.rows_of(watcher).rows}

    assert (rows[running].state, rows[running].owner) == ("running", "ann")
    assert (rows[queued].state, rows[queued].owner) == ("queued", "bob")


async def test_a_picture_has_what_workers_report():
    stand = Stand()
    generation_id = await stand.generation("a")
    await stand.report("w1", generation_id)

    async with stand.sampler.watching(Filter()) as watcher:
        await stand.sampler.next_picture(0)
        (row,) = stand.sampler.rows_of(watcher).rows

    assert (row.worker, row.tokens, row.idle_ms) == ("w1", 5, 9)
    assert [presence.worker for presence, _ in stand.sampler.workers] == ["w1"]
    assert await stand.redis.exists(keys.WATCHED)


async def test_the_details_of_waiting_generations_are_read_for_a_filter_by_owner():
    stand = Stand()
    queued = await stand.generation("a", status="queued", owner="bob")
    watcher = Watcher(Filter(owner="bob"))
    stand.sampler._watchers = {watcher}

    await stand.sampler.tick()
    await stand.sampler.tick()

    page = stand.sampler.rows_of(watcher)
    assert [(row.id, row.owner) for row in page.rows] == [(queued, "bob")]
    assert page.unfinished == 1


async def test_an_action_finds_all_unfinished_generations_of_an_owner_the_oldest_first():
    stand = Stand()
    ids = [await stand.generation(f"{n}", status="queued", owner="bob") for n in range(120)]
    await stand.generation("z", status="completed", owner="bob")
    await stand.generation("y", status="queued", owner="ann")
    watcher = Watcher(Filter(owner="bob"))
    await stand.sampler.tick()

    assert await stand.sampler.complete(watcher) == ids


@pytest.mark.parametrize("partitions", [1, 8, 64])
async def test_a_tick_sends_no_more_commands_than_allowed_however_many_pages_are_open(partitions):
    stand = Stand(queue_partitions=partitions)
    for n in range(2 * ROWS_PER_PAGE):
        await stand.generation(f"{n}", status="queued", owner=f"o{n % 7}")
    filters = [Filter(), Filter(state="ended"), *(Filter(owner=f"o{n}") for n in range(7))]
    sampler = stand.sampler
    watchers = [Watcher(wanted) for wanted in filters]
    sampler._watchers = set(watchers)
    await sampler.tick()

    for _ in range(10):
        sampler.ticks += 1
        stand.pipeline.sent = []
        await sampler.tick()
        # Each owner's filter costs one command every five ticks, beside the bound of the rest.
        assert sum(stand.pipeline.sent) <= COMMANDS_PER_TICK + 7
        assert stand.pipeline.sent and max(stand.pipeline.sent) <= COMMANDS_PER_TICK


async def test_every_partition_is_read_again_within_its_turn():
    stand = Stand(queue_partitions=8)
    await stand.sampler.tick()
    before = {tag: state.at_ms for tag, state in stand.sampler.partitions.items()}
    assert set(before) == set(stand.partitions.tags)
    looked: list[str] = []
    for n in range(4):
        stand.sampler.ticks = n
        looked += stand.sampler._next_tags()

    assert sorted(looked) == sorted(stand.partitions.tags)


async def test_an_ended_generation_is_found_by_its_owner_and_by_its_id():
    stand = Stand()
    generation_id = await stand.generation("a", status="completed", owner="zoe")
    await stand.redis.zadd(keys.USAGE_OWNERS, {"zoe": 5})

    for wanted in (Filter(owner="zoe"), Filter(search=generation_id)):
        async with stand.sampler.watching(wanted) as watcher:
            seen = await stand.sampler.next_picture(0)
            rows = stand.sampler.rows_of(watcher).rows
            while not rows:
                seen = await stand.sampler.next_picture(seen)
                rows = stand.sampler.rows_of(watcher).rows

        assert [(row.id, row.state) for row in rows] == [(generation_id, "completed")]


async def test_a_second_page_gets_its_picture_at_once_and_not_with_the_next_tick(monkeypatch):
    monkeypatch.setattr(sampler_module, "TICK_S", 60.0)
    stand = Stand()
    await stand.generation("a", owner="bob")

    async with stand.sampler.watching(Filter()):
        seen = await stand.sampler.next_picture(0)
        async with stand.sampler.watching(Filter(owner="bob")) as second:
            await asyncio.wait_for(stand.sampler.next_picture(seen), 5)
            assert [row.owner for row in stand.sampler.rows_of(second).rows] == ["bob"]


async def test_the_sampler_stops_after_the_last_page_and_starts_again_with_the_next(monkeypatch):
    monkeypatch.setattr(sampler_module, "TICK_S", 60.0)
    stand = Stand()

    async with stand.sampler.watching(Filter()):
        await stand.sampler.next_picture(0)
    await asyncio.wait_for(stand.tasks[0], 5)
    stand.pipeline.sent = []
    async with stand.sampler.watching(Filter()):
        await stand.sampler.next_picture(0)

    assert len(stand.tasks) == 2 and stand.pipeline.sent


async def test_a_node_has_a_bounded_number_of_open_consoles():
    stand = Stand()
    stand.sampler._watchers = {Watcher(Filter()) for _ in range(PAGES_MAX)}

    with pytest.raises(RequestError) as refused:
        async with stand.sampler.watching(Filter()):
            pass

    assert refused.value.code == "unavailable"


async def test_a_console_opened_anew_has_the_history():
    stand = Stand()
    for n in range(1, 4):
        point = msgspec.json.encode(Point(n * 10_000, tokens_per_s=float(n)))
        await stand.redis.xadd(keys.HISTORY, {keys.FIELD: point}, id=f"{n * 10_000}-0")

    await stand.sampler.tick()

    assert [point.tokens_per_s for point in stand.sampler.trends.points] == [1.0, 2.0, 3.0]
