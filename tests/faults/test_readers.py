"""Readers that stall, and readers that join a live answer after each of its events.

A reader that takes no bytes, or whose machine is gone (row 22 of the fault table), must not slow
the worker or the other readers.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import urlsplit

import pytest

from tests.support.deliveries import Reading
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.full_speed import full_speed
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.reader import TRANSPORTS, CarefulReader
from tests.support.upstream import Upstream, expected_text, script_of
from tests.support.wait import until

MODELS = """
[models.upstream]
backend = "openai"
base_url = "{url}"
"""
CHUNKS, TOKENS_PER_CHUNK, PAUSE_S = 150, 600, 0.015  # about a megabyte in two seconds
DEAD = 20  # at each node


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Deployment]:
    async with Upstream() as upstream:
        models = MODELS.format(url=upstream.base_url)
        async with Deployment(api=2, workers=1, models=models) as deployment:
            yield deployment


@pytest.fixture
async def fault_run(shared: Deployment) -> AsyncIterator[FaultRun]:
    async with FaultRun(shared) as fault_run:
        yield fault_run


async def begin(
    fault_run: FaultRun, prompt: str, *, readers: int, **script: float
) -> WatchedGeneration:
    body = {"model": "upstream", "prompt": prompt, "params": {"upstream": script}}
    text = expected_text(prompt, script_of({"messages": [], "upstream": script}))
    return await fault_run.start(body, text=text, transports=("sse",), hop_after=0, readers=readers)


async def test_stalled_readers_do_not_slow_the_worker_or_other_readers(fault_run: FaultRun, figure):
    """The stalled readers send their request, and take no byte until after the last event."""
    answer = await begin(
        fault_run, "much", readers=2, tokens=CHUNKS * TOKENS_PER_CHUNK, per_chunk=TOKENS_PER_CHUNK,
        delay_s=PAUSE_S,
    )  # fmt: skip
    dead = [dead_reader(url, answer.id) for url in fault_run.deployment.urls for _ in range(DEAD)]
    await asyncio.gather(*answer.tasks)
    async with RawClient(*fault_run.deployment.urls) as raw_client:
        stuck = [await subscribers(raw_client, node) for node in fault_run.deployment.urls]
        for each in dead:
            each.close()
        for node in fault_run.deployment.urls:
            await until(partial(has_none, raw_client, node), 10, "the dead are forgotten")

    await fault_run.finish(bound_s=20)
    assert stuck == [DEAD, DEAD], "each of them was still owed something"
    # The worker writes its line after the readers have the end.
    (story,) = await until(lambda: stories(fault_run, answer.id), 10, "the worker's line")
    took_s = story["took_s"]
    figure(
        f"an answer beside {2 * DEAD} dead readers",
        f"{took_s:.2f} s at its worker; the model takes {CHUNKS * PAUSE_S:.2f} s",
    )
    assert took_s < CHUNKS * PAUSE_S + 2.0


def dead_reader(url: str, generation_id: str) -> socket.socket:
    """A connection that asks for the stream and never reads."""
    parts = urlsplit(url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    # Small segments: else the sender's kernel takes megabytes on its own, and nobody is slow.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    sock.connect((parts.hostname, parts.port))
    sock.send(
        f"GET /v1/generations/{generation_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    )
    return sock


async def subscribers(raw_client: RawClient, node: str) -> int:
    metrics = (await raw_client.get("/metrics", node=node)).body.decode()
    return sum(
        int(float(n)) for n in re.findall(r"^tailrace_subscribers{.*} (\S+)$", metrics, re.M)
    )


async def has_none(raw_client: RawClient, node: str) -> bool:
    return await subscribers(raw_client, node) == 0


def stories(fault_run: FaultRun, generation_id: str) -> list[dict[str, float]]:
    """Return the lines of the workers' logs about the attempts of a generation."""
    lines = [ln for w in fault_run.deployment.workers for ln in w.output.read_text().splitlines()]
    return [json.loads(ln) for ln in lines if "generation left" in ln and generation_id in ln]


async def test_a_reader_may_join_at_every_position(fault_run: FaultRun):
    """After each event of the first reader another reader joins, from the start or from there."""
    with full_speed():
        answer = await begin(fault_run, "join me", readers=1, tokens=60, delay_s=0.015)
        (first,) = answer.readings
        joined = 0
        while first.end is None:
            await fault_run.read_to_one(first, joined + 1)
            for position in range(joined, len(first.deliveries)):
                join(fault_run, answer, position)
            joined = len(first.deliveries)

        await fault_run.finish(bound_s=30)
    assert joined > 30


def join(fault_run: FaultRun, answer: WatchedGeneration, position: int) -> None:
    """One more reader of this answer; every second one has what the first has had up to here."""
    reading = Reading(f"joined at {position}")
    if position % 2:
        reading.steps += answer.readings[0].deliveries[: position + 1]
    transport = TRANSPORTS[position // 2 % len(TRANSPORTS)]
    nodes = fault_run.deployment.urls[:: 1 if position % 3 else -1]
    reader = CarefulReader(reading, nodes, transports=(transport,))
    answer.record.readings.append(reading)
    answer.readers.append(reader)
    answer.tasks.append(asyncio.create_task(reader.run(answer.id, deadline_s=30)))
