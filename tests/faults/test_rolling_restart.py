"""Deploys under load: every worker is restarted once, and a node with many readers is stopped.

Row 4 of the fault table, and what a deploy may cost: with a model that continues no reset, no gap
that a person notices, no attempt spent; and of a node, its readers go one after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import aiohttp
import pytest
import websockets

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.full_speed import full_speed
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient, hear, tell

LEASE_S = 3.0  # none lapses here; a hand-over that failed would cost one
DRAIN_S = 3.0
READERS = 190
SOCKETS = 10


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Deployment]:
    settings = {"drain_s": str(DRAIN_S)}
    async with Deployment(api=2, workers=3, lease_s=LEASE_S, settings=settings) as deployment:
        yield deployment


@pytest.fixture
async def fault_run(shared: Deployment) -> AsyncIterator[FaultRun]:
    await shared.heal()
    async with FaultRun(shared) as fault_run:
        yield fault_run


async def test_a_rolling_restart_of_the_workers_leaves_exact_texts(fault_run: FaultRun, figure):
    """Each answer changes hands once or more; three attempts are allowed, and none is spent."""
    body = demo_body(5_000, 50)
    answers = [await fault_run.start(body, readers=1, is_cut_short=True) for _ in range(8)]
    for answer in answers:
        await fault_run.read_to(answer, 5)
    began_at = time.monotonic()

    for worker in fault_run.deployment.workers:
        worker.terminate()
        assert await worker.ended(10) == 0
        await worker.start().ready()
    took_s = time.monotonic() - began_at
    failures = await failures_of(answers, fault_run.deployment)
    for answer in answers:
        await fault_run.cancel(answer)
    await fault_run.finish(bound_s=30)

    assert failures == [0] * len(answers)
    starts = [sum(e.type == "start" for e in answer.record.log) for answer in answers]
    assert min(starts) >= 2, "one of them was never handed over"
    gaps = [answer.readings[0].longest_gap_s(after=began_at) for answer in answers]
    figure(
        "rolling restart of three workers, eight answers",
        f"{sum(starts) - len(answers)} hand-overs in {took_s:.1f} s,"
        f" longest gap {max(gaps) * 1000:.0f} ms",
    )
    # Some 40 ms where the machine has nothing else to do, half a second where it has far too much.
    assert max(gaps) < LEASE_S / 2


async def failures_of(answers: list[WatchedGeneration], deployment: Deployment) -> list[int]:
    async with aclosing(deployment.redis()) as redis:
        return [int(await redis.hget(keys.meta(answer.id), "failures")) for answer in answers]


async def test_a_draining_node_spreads_the_closes_of_its_readers(fault_run: FaultRun, figure):
    """Readiness fails while nearly all are still here; nobody is left with a clean early end."""
    answer = await fault_run.start(demo_body(1_000, 5), hop_after=0, is_cut_short=True)
    await fault_run.read_to(answer, 2)
    with full_speed():
        broken, polls, told_at = await stop_a_node_with_readers(fault_run, answer.id)
        took_s = time.monotonic() - told_at
    await fault_run.cancel(answer, node=fault_run.deployment.urls[1])
    await fault_run.finish(bound_s=30)

    moments = sorted(broken.values())
    assert len(moments) == READERS + SOCKETS, "each of them was broken off"
    window_s = moments[-1] - moments[0]
    busiest = max(sum(at <= other < at + 0.5 for other in moments) for at in moments)
    refusals = [sent_at for sent_at, is_ready in polls if not is_ready]
    assert refusals, "it must say so for as long as it answers"
    figure(
        f"{len(moments)} readers of a stopped node",
        f"over {window_s:.1f} s of {DRAIN_S:.0f} s, at most {busiest} in half a second;"
        f" not ready {max(refusals[0] - told_at, 0):.2f} s and ended {took_s:.1f} s after SIGTERM",
    )
    assert not [at for at, is_ready in polls if is_ready and at > moments[0]], "readiness first"
    assert window_s > DRAIN_S / 4
    assert busiest < 0.8 * len(moments)
    in_order = sorted(broken, key=lambda n: broken[n])
    assert in_order != sorted(in_order), "in random order"


async def stop_a_node_with_readers(
    fault_run: FaultRun, generation_id: str
) -> tuple[dict[int, float], list[tuple[float, bool]], float]:
    """Return when each reader was broken off, what /readyz said, and when SIGTERM was sent."""
    node = fault_run.deployment.api[0]
    broken: dict[int, float] = {}
    async with RawClient(*fault_run.deployment.urls) as raw_client, asyncio.TaskGroup() as group:
        opened = [asyncio.Event() for _ in range(READERS + SOCKETS)]
        for n in range(READERS):
            group.create_task(read_until_broken(raw_client, generation_id, n, opened[n], broken))
        for n in range(READERS, READERS + SOCKETS):
            group.create_task(hear_until_closed(raw_client, generation_id, n, opened[n], broken))
        for each in opened:
            await each.wait()

        polling = group.create_task(poll_readiness(raw_client))
        node.terminate()
        told_at = time.monotonic()
        assert await node.ended(DRAIN_S + 8) == 0
    return broken, polling.result(), told_at


async def poll_readiness(raw_client: RawClient) -> list[tuple[float, bool]]:
    """Ask for as long as somebody answers: when each question was sent, and whether it is ready."""
    polls: list[tuple[float, bool]] = []
    while True:
        sent_at = time.monotonic()
        try:
            answer = await raw_client.get("/readyz")
        except aiohttp.ClientError:
            return polls
        is_ready = answer.status == 200
        assert is_ready or answer.json()["checks"]["not_draining"] is False
        polls.append((sent_at, is_ready))
        await asyncio.sleep(0.02)  # the pace of the questions: the node has better things to do


async def read_until_broken(
    raw_client: RawClient,
    generation_id: str,
    n: int,
    opened: asyncio.Event,
    broken: dict[int, float],
) -> None:
    async with raw_client.stream(generation_id) as response:
        await response.content.readany()
        opened.set()
        with pytest.raises((aiohttp.ClientPayloadError, ConnectionResetError)):
            async for _ in response.content.iter_any():
                pass
        broken[n] = time.monotonic()


async def hear_until_closed(
    raw_client: RawClient,
    generation_id: str,
    n: int,
    opened: asyncio.Event,
    broken: dict[int, float],
) -> None:
    async with raw_client.socket() as socket:
        await tell(socket, type="subscribe", id=generation_id)
        await hear(socket)
        opened.set()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            while True:
                await hear(socket)
        broken[n] = time.monotonic()
        assert closed.value.rcvd.code == 1012
