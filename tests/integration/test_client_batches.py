"""Batches of the Python client over a network that breaks, with real roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tailrace_client import AsyncTailrace, Tailrace, TailraceError
from tests.support.processes import Deployment
from tests.support.scenario_proxy import Faults, ScenarioProxy

LINES = 12
DEMO = {"params": {"demo": {"tokens": 20, "tokens_per_s": 0}}}


def requests() -> dict[str, dict[str, object]]:
    return {f"c{n}": {"prompt": f"line {n}", "model": "demo", **DEMO} for n in range(LINES)}


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    async with Deployment(api=1, workers=1, jobs=True) as deployment:
        yield deployment


async def test_a_batch_runs_and_each_line_is_read_once_over_cut_downloads(
    deployment: Deployment,
) -> None:
    async with AsyncTailrace(deployment.urls[0]) as client:
        batch = await client.batch(requests(), metadata={"for": "test"})
        done = [event async for event in batch.events()]
        lines = {line.custom_id: line async for line in batch.lines()}
        assert (await batch.result())["request_counts"]["completed"] == LINES

    assert done[-1].type == "end"
    assert {e.value["custom_id"] for e in done if e.type == "data"} == lines.keys()
    assert all(line.is_success and line.body and line.body["text"] for line in lines.values())

    ports, faults = [role.port for role in deployment.api], Faults(cut_bytes=2_000, cuts=3)
    async with ScenarioProxy(ports, faults) as proxy:
        async with AsyncTailrace(proxy.url, random=lambda: 0.0) as client:
            again = [line async for line in client.attach_batch(batch.id).lines()]
    assert [line.custom_id for line in again] == list(lines), "over cuts, each line once, in order"
    assert [line.body for line in again] == [line.body for line in lines.values()]


async def test_a_cancelled_batch_and_its_failed_lines_without_an_event_loop(
    deployment: Deployment,
) -> None:
    def use() -> None:
        with Tailrace(deployment.urls[0], transport="poll") as client:
            mixed = [{"prompt": "x", "model": "nobody"}, {"prompt": "y", "model": "demo", **DEMO}]
            batch = client.batch(mixed)
            assert batch.result()["status"] == "completed"
            assert [line.custom_id for line in batch.lines()] == ["1"]
            (failed,) = batch.lines(errors=True)
            assert (failed.custom_id, failed.is_success) == ("0", False)

            endless = {"params": {"demo": {"tokens": 500, "tokens_per_s": 1}}}
            slow = client.batch([{"prompt": "x", **endless}])
            assert slow.cancel()["status"] in ("cancelling", "cancelled")
            assert slow.result()["status"] == "cancelled"
            with pytest.raises(TailraceError, match="1 to 50,000"):
                client.batch([])

    await asyncio.to_thread(use)
