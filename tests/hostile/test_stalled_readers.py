"""Readers that stop, round after round: each is cut, resumes exactly, and leaves nothing behind.

What they cost the others in time is a figure: bench/stalled_reader.py. That one which stops is cut
by bytes, over each transport, is tests/conformance/test_slow_reader.py's; by age, the hub's tests'.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.support.deliveries import Delivery, Reading
from tests.support.flood import Flood
from tests.support.footprint import MB, rss_bytes
from tests.support.history import check_reading
from tests.support.processes import Deployment, Role
from tests.support.raw_client import RawClient
from tests.support.raw_wire import dechunk, stopped_connection
from tests.support.sse import SseParser
from tests.support.wait import until

ROUNDS, STOPPED, OTHERS = 3, 4, 10
GROWTH_MAX = 8 * MB


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    """Its nodes keep 4 MB of copies: what is read is then let go, not kept for the next reader."""
    settings = {"subscriber_bytes_max": "65536", "heartbeat_s": "15", "hub_bytes_max": "4000000"}
    async with Deployment(api=1, workers=1, settings=settings) as deployment:
        yield deployment


async def test_stalled_readers_are_cut_and_others_are_served(node: Role, api: RawClient) -> None:
    sizes = []
    for _ in range(ROUNDS):
        flood = await Flood.begin(api)
        generation_id = flood.id
        before_cuts = await cuts(api)
        async with contextlib.AsyncExitStack() as stack:
            stopped = [
                await stack.enter_async_context(stopped_connection(node.url))
                for _ in range(STOPPED)
            ]
            for _, writer in stopped:
                path = f"/v1/generations/{generation_id}/events"
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            async with asyncio.TaskGroup() as group:
                others = [group.create_task(api.events(generation_id)) for _ in range(OTHERS)]
                group.create_task(flood.write())
            await all_cut(api, before_cuts + STOPPED)
            got = await asyncio.gather(*(what_arrived(reader) for reader, _ in stopped))

        log = others[0].result().events
        assert all(check_reading(Reading("other", task.result().events)) == [] for task in others)
        for events in got:
            rest = (await api.events(generation_id, events[-1].event_id)).events
            resumed = Reading("stopped", [*events, *rest])
            assert check_reading(resumed) == []
            assert resumed.text == Reading("log", log).text
        sizes.append(rss_bytes(node.pid))

    assert sizes[-1] - sizes[0] < GROWTH_MAX, [round(size / MB) for size in sizes]


async def cuts(api: RawClient) -> float:
    lines = (await api.get("/metrics")).body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("tailrace_hub_cuts"))


async def all_cut(api: RawClient, count: float) -> None:
    async def are_cut() -> bool:
        return await cuts(api) >= count

    await until(are_cut, 20, "all who stopped are cut")


async def what_arrived(reader: asyncio.StreamReader) -> list[Delivery]:
    """All that the kernels still hold; the body must be broken off in it."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(20):
            while piece := await reader.read(65_536):
                received += piece
    body, is_finished = dechunk(received)
    assert not is_finished
    events = [block.delivery() for block in SseParser().feed(body)]
    assert events and events[-1].type != "end"
    return events
