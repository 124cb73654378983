"""A reader that stops costs only itself: it is cut at a byte limit and resumes exactly."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from tests.support.deliveries import Delivery, Reading
from tests.support.flood import Flood
from tests.support.history import check_against_log, check_reading
from tests.support.raw_client import RawClient, from_flat
from tests.support.raw_wire import dechunk, frame, handshake, read_frame, stopped_connection
from tests.support.sse import SseParser
from tests.support.wait import until


@pytest.fixture(scope="module")
async def deployment(own_deployment):
    # Without the long heartbeat a socket would be ended for its missing pongs first.
    settings = {"subscriber_bytes_max": "65536", "heartbeat_s": "15"}
    async with own_deployment(api=2, workers=1, settings=settings) as it:
        yield it


@pytest.fixture
async def api(deployment):
    async with RawClient(*deployment.urls) as raw_client:
        yield raw_client


def slow_request(api: RawClient, generation_id: str) -> bytes:
    path = f"/v1/generations/{generation_id}/events"
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


async def cuts(api: RawClient) -> float:
    """How many readers the node has cut so far."""
    lines = (await api.get("/metrics")).body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("tailrace_hub_cuts"))


async def cut_off(api: RawClient, before: float) -> None:
    async def is_cut() -> bool:
        return await cuts(api) > before

    await until(is_cut, 15, "the stopped reader is cut")


async def read_rest(reader: asyncio.StreamReader) -> bytes:
    """What the kernels still hold, up to the break."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(20):
            while piece := await reader.read(65_536):
                received += piece
    return received


async def test_a_stopped_sse_reader_is_cut_and_resumes_and_the_others_read_on(api: RawClient):
    flood = await Flood.begin(api)
    generation_id = flood.id
    before_cut = await cuts(api)
    async with stopped_connection(api.url) as (reader, writer):
        writer.write(slow_request(api, generation_id))
        await reader.readuntil(b"\r\n\r\n")
        healthy = asyncio.create_task(api.events(generation_id))
        await flood.write()

        await cut_off(api, before_cut)
        body, is_finished = dechunk(b"\r\n\r\n" + await read_rest(reader))

    assert (await healthy).events[-1].type == "end"
    parser = SseParser()
    before = [block.delivery() for block in parser.feed(body)]
    assert not is_finished, "the body must be left unfinished"
    assert before[-1].type != "end"
    after = (await api.events(generation_id, before[-1].event_id, node=api.other_url)).events
    reading = Reading("slow", [*before, *after])
    assert check_reading(reading) == []
    log = (await api.events(generation_id)).events
    assert reading.text == Reading("log", log).text


async def test_a_stopped_socket_is_cut_with_4008_or_broken_off(api: RawClient):
    flood = await Flood.begin(api)
    before_cut = await cuts(api)
    async with stopped_connection(api.url) as (reader, writer):
        writer.write(handshake(api.url))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(json.dumps({"type": "subscribe", "id": flood.id}).encode()))
        await read_frame(reader)
        await flood.write()

        await cut_off(api, before_cut)
        received = await read_rest(reader)

    assert b'"type":"end"' not in received.replace(b" ", b"")


async def test_a_late_joiner_that_reads_is_not_slow(api: RawClient):
    """The reader joins an ended answer that is far larger than the limit, and reads all of it."""
    flood = await Flood.begin(api)
    await flood.write()
    generation_id = flood.id

    answers = [await api.events(generation_id, node=api.url) for _ in range(2)]

    log = await whole_log(api, generation_id)
    for answer in answers:
        assert not answer.is_broken
        reading = Reading("late", answer.events)
        assert check_reading(reading) == []
        assert check_against_log(reading, log) == []


async def whole_log(api: RawClient, generation_id: str) -> list[Delivery]:
    """The entries of an ended log, in several polls: one poll returns about a megabyte."""
    log = await api.log(generation_id)
    while log[-1].type != "end":
        answer = await api.poll(generation_id, log[-1].event_id)
        log += [from_flat(event) for event in answer.json()["events"]]
    return log
