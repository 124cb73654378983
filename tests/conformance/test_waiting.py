"""Streams in which nothing happens: a deployment without a worker, and with short heartbeats."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
import websockets

from tests.support.history import RESUME_CODES
from tests.support.raw_client import RawClient, from_flat, hear, hear_until, tell
from tests.support.raw_wire import frame, handshake, raw_connection

PROMPT = {"prompt": "nobody will answer"}
SSE, NDJSON = "text/event-stream", "application/x-ndjson"


@pytest.fixture(scope="module")
async def workerless(own_deployment):
    settings = {"heartbeat_s": "0.3", "ws_idle_s": "1", "queue_max": "10"}
    async with own_deployment(
        api=2, workers=0, settings=settings, is_waiting_for_workers=False
    ) as it:
        yield it


@pytest.fixture
async def api(workerless):
    async with RawClient(*workerless.urls) as raw_client:
        yield raw_client


@pytest.fixture
async def queued(api):
    generation_id = await api.start(PROMPT)
    yield generation_id
    await api.call("POST", f"/v1/generations/{generation_id}/cancel")


async def test_the_snapshot_of_a_queued_generation(api, queued):
    snapshot = (await api.get(f"/v1/generations/{queued}", node=api.other_url)).json()

    assert snapshot["status"] == "queued"
    assert snapshot["text"] == ""
    assert snapshot["finish_reason"] is None


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_the_headers_leave_at_once(api, queued, accept):
    begun = time.monotonic()

    async with api.stream(queued, accept=accept) as response:
        assert response.status == 200
        assert time.monotonic() - begun < 2


async def test_the_heartbeat_of_sse_is_one_line_without_a_blank_line(api, queued):
    async with api.stream(queued) as response:
        received = b""
        async with asyncio.timeout(5):
            while received.count(b": ping\n") < 3:
                received += await response.content.readany()

    assert received.replace(b": ping\n", b"") == b""


async def test_the_heartbeat_of_ndjson_is_an_empty_line(api, queued):
    async with api.stream(queued, accept=NDJSON) as response:
        received = b""
        async with asyncio.timeout(5):
            while received.count(b"\n") < 3:
                received += await response.content.readany()

    assert received.strip(b"\n") == b""


async def test_heartbeats_come_at_the_pace_of_the_setting(api, queued):
    async with api.stream(queued) as response:
        begun, received = time.monotonic(), b""
        async with asyncio.timeout(10):
            while received.count(b": ping\n") < 5:
                received += await response.content.readany()

    assert 1.0 < time.monotonic() - begun < 5.0


async def test_a_long_poll_is_empty_after_wait_seconds(api, queued):
    begun = time.monotonic()

    body = (await api.poll(queued, wait="0.5")).json()

    assert body["events"] == []
    assert body["done"] is False
    assert 0.4 < time.monotonic() - begun < 3


async def test_the_cursor_of_an_empty_long_poll_can_be_sent_again(api, queued):
    body = (await api.poll(queued)).json()

    again = await api.poll(queued, body["last_event_id"] or "0-0")

    assert again.status == 200


async def test_cancelling_a_queued_one_ends_it_without_a_worker(api):
    generation_id = await api.start(PROMPT)
    reading = asyncio.create_task(api.events(generation_id, node=api.other_url))

    answer = await api.call("POST", f"/v1/generations/{generation_id}/cancel")

    assert answer.status == 202
    events = (await reading).events
    assert [event.type for event in events] == ["end"]
    assert events[0].event_id.split("-")[1] == "1"
    assert events[0].fields["status"] == "cancelled"
    assert (await api.ended(generation_id))["status"] == "cancelled"
    log = [from_flat(event) for event in (await api.poll(generation_id)).json()["events"]]
    assert log == events


async def test_a_full_queue_is_503_with_retry_after_and_a_place_freed_is_taken(api):
    ids = []
    try:
        while (answer := await api.post(PROMPT)).status == 202:
            ids.append(answer.json()["id"])
            assert len(ids) <= 11, "the queue never fills"
        assert (answer.status, answer.error_code) == (503, "queue_full")
        assert answer.json()["error"]["retryable"] is True
        assert int(answer.headers["Retry-After"]) >= 1
        batch = await api.post(PROMPT | {"priority": "batch"})
        assert batch.status == 202, "each priority has a queue of its own"
        ids.append(batch.json()["id"])

        await api.call("POST", f"/v1/generations/{ids.pop(0)}/cancel")

        answer = await api.post(PROMPT)
        assert answer.status == 202
        ids.append(answer.json()["id"])
    finally:
        for generation_id in ids:
            await api.call("POST", f"/v1/generations/{generation_id}/cancel")


async def test_readyz_says_that_no_worker_is_there(api):
    answer = await api.get("/readyz")

    assert answer.status == 503
    assert b"worker" in answer.body
    assert (await api.get("/livez")).status == 200


async def test_a_socket_with_a_waiting_generation_is_pinged_and_not_idle(api, queued):
    async with api.socket() as socket:
        await tell(socket, type="subscribe", id=queued)
        assert await hear(socket) == {"type": "caught_up", "id": queued}

        # Longer than the idle limit: the library answers the pings meanwhile.
        with pytest.raises(TimeoutError):
            await hear(socket, within_s=1.5)

        await tell(socket, type="ping")
        assert await hear(socket) == {"type": "pong"}


async def test_an_idle_socket_is_closed(api):
    async with api.socket() as socket:
        with pytest.raises(websockets.ConnectionClosed):
            await hear(socket, within_s=8)


async def test_no_pong_in_two_heartbeats_ends_the_socket(api, queued):
    """Spoken by hand: a library would answer the pings."""
    async with raw_connection(api.url) as (reader, writer):
        writer.write(handshake(api.url))
        await reader.readuntil(b"\r\n\r\n")
        subscribe = json.dumps({"type": "subscribe", "id": queued})
        writer.write(frame(subscribe.encode()))
        async with asyncio.timeout(5):
            received = await reader.read(-1)

    assert b"\x89" in received, "a ping came first"
    at = received.rfind(b"\x88")
    if at >= 0:  # a close frame: its code must tell the client to come back
        code = int.from_bytes(received[at + 2 : at + 4], "big")
        assert code in RESUME_CODES


async def test_start_on_a_socket_is_accepted_and_waits(api):
    async with api.socket() as socket:
        await tell(socket, type="start", ref="r", **PROMPT)
        accepted = await hear(socket)
        await tell(socket, type="cancel", id=accepted["id"])
        end = (await hear_until(socket, "end"))[-1]

    assert accepted["type"] == "accepted"
    assert (end["status"], end["id"]) == ("cancelled", accepted["id"])
