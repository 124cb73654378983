"""The report of a node, and the points of the history that nodes add together."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ResponseError

from api.console import node_report as node_report_module
from api.console.node_report import NodeReporter
from api.edge.metrics import Metrics
from api.hub.contracts import HubCounters
from api.hub.statistics import HubStatistics
from shared.config.settings import Settings
from shared.console.board import (
    history_command,
    points_of,
    read_all,
    report_worker,
    watch_command,
)
from shared.console.reports import Occurrences
from shared.errors import Unavailable
from shared.log.store import Store
from shared.queue.presence import Presence
from shared.redis.pipeline import ClientPipeline
from tests.support.wait import until

FIGURES = {"relays": 1, "bytes_kept": 0, "events_delivered": 9, "bytes_delivered": 0, "cuts": 2}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Redis's clock as the reports see it; the tests set it."""
    found = SimpleNamespace(now_ms=1_000_000)
    read = node_report_module.read_all

    async def read_at(redis: Any) -> Any:
        return (await read(redis))._replace(now_ms=found.now_ms)

    monkeypatch.setattr(node_report_module, "read_all", read_at)
    return found


def reporter(redis: Any, name: str, **figures: Any) -> NodeReporter:
    settings = Settings()
    rest = {"rotations": 0, "resumes": 0, "resets": 0, "repairs": 0, "reconnects": 0}
    given = {**FIGURES, **rest, "probes_lost": 0, "is_live": True, "connections": {"sse": 3}}
    relays = {
        "gen_a": SimpleNamespace(holds=3, feed=SimpleNamespace(repairs=0)),
        "gen_b": SimpleNamespace(holds=0, feed=SimpleNamespace(repairs=2)),
    }
    hub: Any = SimpleNamespace(
        relays=relays,
        counters=HubCounters(),
        statistics=lambda: HubStatistics(**{**given, **figures}),
    )
    node: Any = SimpleNamespace(
        name=name, store=Store(redis, settings), hub=hub, settings=settings, metrics=Metrics(),
        started_at=5, is_draining=False,
    )  # fmt: skip
    return NodeReporter(node)


async def points(redis: Any) -> list[Any]:
    (reply,) = await ClientPipeline(redis).run([history_command(0)])
    return points_of(reply)


async def test_a_node_reports_its_readers_and_those_of_each_generation_while_one_watches(clock):
    redis = fakeredis.FakeAsyncRedis()
    node = reporter(redis, "n1")
    await node.report()
    (alone,) = (await read_all(redis)).nodes
    await ClientPipeline(redis).run([watch_command()])
    await node.report()
    (watched,) = (await read_all(redis)).nodes

    assert (alone.readers, alone.counters["cuts"], alone.readers_of) == ({"sse": 3}, 2, {})
    assert watched.readers_of == {"gen_a": 3}


async def test_two_nodes_add_each_point_once_and_with_what_happened_since_the_last(clock):
    redis = fakeredis.FakeAsyncRedis()
    nodes = reporter(redis, "n1"), reporter(redis, "n2")
    for n, at_ms in enumerate((1_000_100, 1_005_000, 1_010_200, 1_015_000, 1_020_300)):
        clock.now_ms = at_ms
        presence = Presence("w", at_ms, 9, 1, False, {"tokens": 100.0 * n, "takeovers": float(n)})
        await report_worker(redis, presence, None)
        for node in nodes:
            await node.report()
    found = await points(redis)

    assert [point.at_ms for point in found] == [1_010_000, 1_020_000]
    assert found[1].tokens_per_s == pytest.approx(200 / 10.1, rel=0.01)
    assert Occurrences("takeovers", "w", 2) in found[1].events


async def test_after_an_outage_of_redis_the_history_has_a_gap_and_no_wrong_point(clock):
    redis = fakeredis.FakeAsyncRedis()
    node = reporter(redis, "n1")
    for at_ms in (1_000_100, 1_200_000, 1_210_100):
        clock.now_ms = at_ms
        await node.report()

    assert [point.at_ms for point in await points(redis)] == [1_210_000]


async def test_a_node_that_stops_withdraws_its_report(clock):
    redis = fakeredis.FakeAsyncRedis()
    running = asyncio.create_task(reporter(redis, "n1").run())

    async def reports() -> bool:
        return bool((await read_all(redis)).nodes)

    await until(reports, 10, "the report")
    running.cancel()
    await asyncio.wait([running])

    assert (await read_all(redis)).nodes == []


@pytest.mark.parametrize("command", ["HSET", "XADD", "XREVRANGE"])
async def test_a_refusal_of_redis_does_not_end_the_node(clock, monkeypatch, command):
    """For example MISCONF, when the disk of Redis is full."""
    redis = fakeredis.FakeAsyncRedis()
    node = reporter(redis, "n1")
    await node.report()
    execute = fakeredis.FakeAsyncRedis.execute_command

    async def refuse(client: Any, *words: Any, **options: Any) -> Any:
        if words[0] == command:
            raise ResponseError("MISCONF Redis is configured to save RDB snapshots")
        return await execute(client, *words, **options)

    monkeypatch.setattr(fakeredis.FakeAsyncRedis, "execute_command", refuse)
    monkeypatch.setattr(ClientPipeline, "run", refusing(command, ClientPipeline.run))
    clock.now_ms += 10_000

    with pytest.raises(Unavailable):
        await node.report()


def refusing(command: str, run: Any) -> Any:
    async def refuse(pipeline: Any, commands: Any) -> list[Any]:
        if any(words[0] == command for words in commands):
            return [ResponseError("MISCONF Redis is configured to save RDB snapshots")] * len(
                commands
            )
        found: list[Any] = await run(pipeline, commands)
        return found

    return refuse
