"""Producers outside of the workers, with the Python client, while nodes and Redis die."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tailrace_client import AsyncProducer, AsyncTailrace, TailraceError
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.redis_server import RedisServer

PIECES = 70
TEXT = "".join(f"piece {n}, " for n in range(PIECES))


@pytest.fixture
async def client(fault_run: FaultRun) -> AsyncIterator[AsyncTailrace]:
    async with AsyncTailrace(fault_run.deployment.urls[0], random=lambda: 0.2) as found:
        yield found


async def write(producer: AsyncProducer) -> None:
    """Write `TEXT` in many appends."""
    async with producer as log:
        for n in range(PIECES):
            await log.token(f"piece {n}, ")
            await log.flush()  # so that each piece is an append of its own


async def begin(fault_run: FaultRun, client: AsyncTailrace) -> WatchedGeneration:
    """Start a generation with readers whose first producer does nothing; return it."""
    return await fault_run.start({"producer": True}, text=TEXT)


async def test_a_node_killed_in_mid_append_loses_and_repeats_nothing(fault_run, client) -> None:
    answer = await begin(fault_run, client)
    writing = asyncio.create_task(write(client.produce(take_over=answer.id)))
    for _ in range(2):
        await fault_run.read_on(answer, 8)
        fault_run.deployment.api[0].kill()
        await fault_run.deployment.heal()

    await writing
    await fault_run.finish(bound_s=30)


async def test_events_that_redis_has_lost_are_sent_again_by_their_producer(
    fault_run, client
) -> None:
    answer = await begin(fault_run, client)
    server = fault_run.deployment.server
    writing = asyncio.create_task(write(client.produce(take_over=answer.id)))
    await fault_run.read_on(answer, 8)
    kept_bytes = aof_of(server).stat().st_size
    await fault_run.read_on(answer, 10)
    server.kill()
    os.truncate(aof_of(server), kept_bytes)
    server.start()

    await writing
    await fault_run.finish(bound_s=30, is_lossless=False)
    assert answer.record.snapshot["text"] == TEXT


def aof_of(server: RedisServer) -> Path:
    return max((server.directory / "appendonlydir").glob("*.incr.aof"))


async def test_a_producer_that_was_taken_over_stops_and_readers_see_one_text(
    fault_run, client
) -> None:
    answer = await begin(fault_run, client)
    first = asyncio.create_task(write(client.produce(take_over=answer.id)))
    await fault_run.read_on(answer, 8)
    await write(client.produce(take_over=answer.id, reset=True))
    with pytest.raises(TailraceError) as fenced:
        await first

    assert fenced.value.code in ("producer_fenced", "generation_ended")
    await fault_run.finish(bound_s=30, is_lossless=False)
    assert all(reading.resets == 1 for reading in answer.readings)


async def test_a_producer_that_dies_fails_its_generation_after_its_lease(fault_run) -> None:
    answer = await fault_run.start({"producer": {"lease_s": 1}}, text="")

    await fault_run.finish(bound_s=30)
    assert answer.record.snapshot["error"]["code"] == "producer_lost"
