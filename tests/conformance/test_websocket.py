"""`/v1/ws`: frames, close codes, and the handshake, byte by byte where it takes that."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
import websockets

from tests.support.deliveries import Delivery, Reading, fold_text
from tests.support.demo import demo_body
from tests.support.history import check_against_log, check_reading
from tests.support.raw_client import RawClient, hear, hear_until, tell
from tests.support.raw_wire import (
    exchange,
    first_line,
    frame,
    handshake,
    large_frame,
    raw_socket_close_code,
)

SHORT = demo_body(8, 0)
LONG = demo_body(10_000, 20)


def events(frames: list[dict], generation_id: str) -> list[Delivery]:
    """The event frames of one generation; every one must name it."""
    deliveries = []
    for message in frames:
        if "event_id" in message and message["id"] == generation_id:
            fields = {k: v for k, v in message.items() if k not in ("id", "event_id", "type")}
            deliveries.append(Delivery(message["event_id"], message["type"], fields))
    return deliveries


async def is_alive(socket) -> bool:
    await tell(socket, type="ping")
    return (await hear_until(socket, "pong"))[-1] == {"type": "pong"}


async def test_the_subprotocol_is_chosen(api: RawClient):
    async with api.socket() as socket:
        assert socket.subprotocol == "tailrace.v1"


async def test_the_answer_to_hello_is_the_first_frame_and_has_the_heartbeat(api: RawClient):
    async with api.socket() as socket:
        await tell(socket, type="hello")
        await tell(socket, type="start", ref="r1", **SHORT)
        first = await hear(socket)

    assert first.keys() == {"type", "heartbeat_s"} and first["type"] == "hello"
    assert first["heartbeat_s"] > 0


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_a_stream_announces_its_heartbeat(api: RawClient, accept: str):
    answer = await api.post(SHORT, headers={"Accept": accept})
    assert float(answer.headers["X-Heartbeat-S"]) > 0


async def test_start_is_accepted_and_its_events_follow_to_the_end(api: RawClient):
    async with api.socket() as socket:
        await tell(socket, type="start", ref="r1", **SHORT)
        frames = await hear_until(socket, "end")

    accepted = frames[0]
    assert accepted == {"type": "accepted", "ref": "r1", "id": accepted["id"]}
    reading = Reading("ws", events(frames, accepted["id"]))
    assert check_reading(reading) == []
    assert check_against_log(reading, await api.log(accepted["id"])) == []


async def test_one_socket_carries_many_generations(api: RawClient):
    async with api.socket() as socket:
        for ref in ("a", "b", "c"):
            await tell(socket, type="start", ref=ref, **demo_body(10, 100))
        frames: list[dict] = []
        while sum(f["type"] == "end" for f in frames) < 3:
            frames.append(await hear(socket))

    ids = {f["ref"]: f["id"] for f in frames if f["type"] == "accepted"}
    assert set(ids) == {"a", "b", "c"}
    for generation_id in ids.values():
        assert check_reading(Reading("ws", events(frames, generation_id))) == []


async def test_subscribe_sends_old_events_then_one_caught_up_then_new_events(api: RawClient):
    generation_id = await api.start(demo_body(60, 40))
    await api.running(generation_id)

    async with api.socket(api.other_url) as socket:
        await tell(socket, type="subscribe", id=generation_id)
        frames = await hear_until(socket, "end")

    kinds = [message["type"] for message in frames]
    assert kinds.count("caught_up") == 1
    at = kinds.index("caught_up")
    assert frames[at] == {"type": "caught_up", "id": generation_id}
    assert "token" in kinds[:at] and "token" in kinds[at:]
    reading = Reading("ws", events(frames, generation_id))
    assert check_reading(reading) == []
    assert check_against_log(reading, await api.log(generation_id)) == []


async def test_subscribe_resumes_after_every_cursor(api: RawClient):
    generation_id = await api.finished(SHORT)
    log = await api.log(generation_id)

    for entry, node in zip(log[:-1], itertools.cycle([api.url, api.other_url]), strict=False):
        async with api.socket(node) as socket:
            await tell(socket, type="subscribe", id=generation_id, last_event_id=entry.event_id)
            frames = await hear_until(socket, "end")
        place = log.index(entry) + 1
        reading = Reading("ws", [*log[:place], *events(frames, generation_id)])
        assert check_reading(reading) == []
        assert check_against_log(reading, log) == []


async def test_subscribe_at_the_end_of_an_ended_generation_is_caught_up(api: RawClient):
    generation_id = await api.finished(SHORT)
    top = (await api.log(generation_id))[-1].event_id

    async with api.socket() as socket:
        await tell(socket, type="subscribe", id=generation_id, last_event_id=top)

        assert await hear(socket) == {"type": "caught_up", "id": generation_id}
        assert await is_alive(socket)


async def test_subscribe_with_a_foreign_cursor_gets_a_reset(api: RawClient):
    generation_id = await api.finished(SHORT)

    async with api.socket() as socket:
        await tell(socket, type="subscribe", id=generation_id, last_event_id="9-3")
        frames = await hear_until(socket, "end")

    got = events(frames, generation_id)
    assert (got[0].type, got[0].event_id) == ("reset", "0-0")
    assert fold_text(got) == fold_text(await api.log(generation_id))


async def test_unsubscribe_stops_the_events_and_leaves_the_generation_running(api: RawClient):
    generation_id = await api.start(LONG)
    async with api.socket() as socket:
        await tell(socket, type="subscribe", id=generation_id)
        await hear_until(socket, "token")
        await tell(socket, type="unsubscribe", id=generation_id)
        await tell(socket, type="ping")
        await hear_until(socket, "pong")
        before = (await api.log(generation_id))[-1].event_id

        # At 20 tokens a second something would have come before the log is 10 further.
        while (await api.poll(generation_id, before, wait="5")).json()["events"]:
            top = (await api.log(generation_id))[-1].event_id
            if int(top.split("-")[1]) > int(before.split("-")[1]) + 10:
                break
        await tell(socket, type="ping")
        frames = await hear_until(socket, "pong")

    assert events(frames, generation_id) == []
    assert (await api.get(f"/v1/generations/{generation_id}")).json()["status"] == "running"
    await api.call("POST", f"/v1/generations/{generation_id}/cancel")


async def test_cancel_ends_the_stream_as_cancelled(api: RawClient):
    async with api.socket() as socket:
        await tell(socket, type="start", ref="r1", **LONG)
        frames = await hear_until(socket, "token")
        await tell(socket, type="cancel", id=frames[0]["id"])
        end = (await hear_until(socket, "end"))[-1]

    assert end["status"] == "cancelled"


async def test_ping_is_answered(api: RawClient):
    async with api.socket() as socket:
        assert await is_alive(socket)


async def test_a_lost_socket_does_not_cancel(api: RawClient):
    async with api.socket() as socket:
        await tell(socket, type="start", ref="r1", **demo_body(20, 40))
        generation_id = (await hear_until(socket, "token"))[0]["id"]

    assert (await api.ended(generation_id))["status"] == "completed"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "{",
        "[]",
        "1",
        "null",
        '"ping"',
        "{}",
        '{"type":1}',
        '{"type":null}',
        '{"type":"no-such-type"}',
        '{"type":"subscribe"}',
        '{"type":"subscribe","id":1}',
        '{"type":"subscribe","id":""}',
        '{"type":"subscribe","id":"\\ud800"}',
        '{"type":"subscribe","id":["x"]}',
        '{"type":"unsubscribe"}',
        '{"type":"cancel"}',
        '{"type":"cancel","id":{}}',
        '{"type":"start","prompt":1}',
        '{"type":"start"}',
        '{"type":"start","prompt":"\\ud800"}',
        '{"type":"start","prompt":"x","ref":1}',
        '{"type":"start","prompt":"x","params":{"a":NaN}}',
        "[" * 50_000,
    ],
    ids=lambda text: text[:40],
)
async def test_a_bad_frame_gets_an_error_and_the_socket_stays_open(api: RawClient, text):
    async with api.socket() as socket:
        await socket.send(text)
        error = await hear(socket)

        assert error["type"] == "error"
        assert set(error) >= {"type", "code", "message", "retryable"}
        assert await is_alive(socket)


@pytest.mark.parametrize("cursor", ["abc", "1", "1-0", "0-1", "1-1-1", "12345678901234567890-1"])
async def test_a_malformed_cursor_gets_an_error_and_the_socket_stays_open(api: RawClient, cursor):
    generation_id = await api.start(SHORT)
    async with api.socket() as socket:
        await tell(socket, type="subscribe", id=generation_id, last_event_id=cursor)
        error = await hear(socket)

        assert (error["type"], error["code"]) == ("error", "cursor_invalid")
        assert error["id"] == generation_id
        assert await is_alive(socket)


@pytest.mark.parametrize("cursor", [1, None, [], {}, 1.5, True])
async def test_a_cursor_of_another_type_does_not_close_the_socket(api: RawClient, cursor):
    generation_id = await api.finished(SHORT)
    async with api.socket() as socket:
        await tell(socket, type="subscribe", id=generation_id, last_event_id=cursor)
        first = await hear(socket)

        assert first["type"] == "error" or cursor is None
        assert await is_alive(socket)


async def test_errors_name_the_generation_or_request_that_they_concern(api: RawClient):
    async with api.socket() as socket:
        await tell(socket, type="start", ref="r7", prompt="x", model="no-such-model")
        unknown_model = await hear(socket)
        await tell(socket, type="subscribe", id="gen_nothing")
        unknown_id = await hear(socket)
        await tell(socket, type="cancel", id="gen_nothing")
        uncancellable = await hear(socket)

        assert (unknown_model["ref"], unknown_model["code"]) == ("r7", "model_not_found")
        assert (unknown_id["id"], unknown_id["code"]) == ("gen_nothing", "not_found")
        assert (uncancellable["id"], uncancellable["code"]) == ("gen_nothing", "not_found")
        assert await is_alive(socket)


async def test_the_101st_subscription_is_an_error(api: RawClient):
    ids = await asyncio.gather(*(api.start(demo_body(10_000, 0.2)) for _ in range(101)))
    try:
        async with api.socket() as socket:
            for generation_id in ids[:100]:
                await tell(socket, type="subscribe", id=generation_id)
            await tell(socket, type="subscribe", id=ids[100])
            error = (await hear_until(socket, "error"))[-1]

            assert error["id"] == ids[100]
            assert await is_alive(socket)
    finally:
        paths = [f"/v1/generations/{generation_id}/cancel" for generation_id in ids]
        await asyncio.gather(*(api.call("POST", path) for path in paths))


@pytest.mark.parametrize(
    "sent, code",
    [
        (frame(b"\xff\xfe"), 1007),
        (frame(b'{"type":"ping"}', is_masked=False), 1002),
        (frame(b'{"type":"ping"}', reserved=4), 1002),
        (frame(b'{"type":"ping"}', reserved=1), 1002),
        (frame(b"x", opcode=3), 1002),
        (large_frame(b"", announced=2**40), 1009),
    ],
    ids=["utf-8", "unmasked", "rsv1", "rsv3", "opcode", "large"],
)
async def test_a_protocol_violation_closes_the_socket_with_its_code(api: RawClient, sent, code):
    assert await raw_socket_close_code(api.url, sent, api.credentials) == code


@pytest.mark.parametrize(
    "changes, statuses",
    [
        ({"Sec-WebSocket-Version": "12"}, (426, 400)),
        ({"Sec-WebSocket-Version": None}, (426, 400)),
        ({"Sec-WebSocket-Key": None}, (400,)),
        ({"Sec-WebSocket-Key": "short"}, (400,)),
        ({"Upgrade": None, "Connection": None}, (400,)),
        ({"Upgrade": "h2c"}, (400,)),
        ({"Origin": "https://evil.example"}, (403,)),
        ({"Origin": "null"}, (403,)),
    ],
    ids=lambda value: json.dumps(value),
)
async def test_a_bad_handshake_is_refused(api: RawClient, changes, statuses):
    received = await first_line(api.url, handshake(api.url, api.credentials | changes))

    status = int(received.split(b" ")[1])
    assert status in statuses, received


async def test_the_nodes_own_origin_is_accepted(api: RawClient):
    async with api.socket(additional_headers={"Origin": api.url}) as socket:
        assert await is_alive(socket)


async def test_deflate_is_not_negotiated_unless_it_is_turned_on(api: RawClient):
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}

    received = await exchange(api.url, handshake(api.url, api.credentials | offer), within_s=1)

    assert b" 101 " in received.split(b"\r\n")[0]
    assert b"sec-websocket-extensions" not in received.lower()


async def test_an_orderly_close_is_answered(api: RawClient):
    socket = await api.socket()

    await socket.close()

    assert socket.close_code == 1000


async def test_many_frames_at_once_are_all_answered(api: RawClient):
    async with api.socket() as socket:
        for _ in range(500):
            await tell(socket, type="ping")
        async with asyncio.timeout(10):
            for _ in range(500):
                assert await hear(socket) == {"type": "pong"}


async def test_plain_http_at_the_sockets_path_is_400(api: RawClient):
    answer = await api.get("/v1/ws")

    assert answer.status in (400, 426)


async def test_the_client_of_the_websockets_library_works_without_options(api: RawClient):
    url = api.url.replace("http", "ws", 1) + "/v1/ws"
    async with websockets.connect(
        url, subprotocols=["tailrace.v1"], proxy=None, additional_headers=api.credentials
    ) as socket:
        await tell(socket, type="start", ref="x", **SHORT)

        assert (await hear_until(socket, "end"))[-1]["status"] == "completed"
