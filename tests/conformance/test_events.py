"""GET …/events: transports, cursors, and the rows of the status table that any node can show."""

from __future__ import annotations

import asyncio
import itertools
import time

import aiohttp
import pytest

from tests.support.deliveries import Reading, fold_text
from tests.support.demo import demo_body
from tests.support.history import check_against_log, check_reading
from tests.support.raw_client import Answer, RawClient, from_flat
from tests.support.raw_wire import raw_connection
from tests.support.sse import SseParser

SHORT = demo_body(8, 0)
LONG = demo_body(10_000, 20)
SSE, NDJSON, POLL = "text/event-stream", "application/x-ndjson", "application/json"

MALFORMED = [
    *("abc", "1", "-", "1-", "-1", "1-0", "0-1", "+1-1", "1-1-1", "1_0-1", "1.0-1", "0x1-1"),
    *("12345678901234567890-1", "1-12345678901234567890", "1-1,2-2", "null", "1--1", "1-1x"),
]
FOREIGN = ["1-9999", "2-2", "9-3", "9223372036854775807-1", "1-9999999999999999999", "7-1"]


@pytest.fixture(scope="module")
async def ended(deployment: tuple[str, str, str]) -> tuple[str, list]:
    """A finished generation and its log."""
    async with RawClient(*deployment) as api:
        generation_id = await api.finished(SHORT)
        return generation_id, await api.log(generation_id)


def judge(answer: Answer, log: list, cursor: str = "") -> None:
    """A stream is whole: it follows the cursor, says what the log says, and ends with `end`."""
    assert answer.status == 200
    assert not answer.is_broken
    before = log[: [e.event_id for e in log].index(cursor) + 1] if cursor else []
    reading = Reading("r", [*before, *answer.events])
    assert check_reading(reading) == []
    assert check_against_log(reading, log) == []


@pytest.mark.parametrize(
    "accept, content_type",
    [
        (SSE, "text/event-stream; charset=utf-8"),
        (NDJSON, "application/x-ndjson"),
        ("*/*", "text/event-stream; charset=utf-8"),
        (None, "text/event-stream; charset=utf-8"),
        (f"{SSE}, {POLL};q=0.5", "text/event-stream; charset=utf-8"),
    ],
)
async def test_the_accept_header_chooses_the_transport(api, ended, accept, content_type):
    generation_id, log = ended
    headers = {"Accept": accept} if accept else {}

    answer = await api.get(f"/v1/generations/{generation_id}/events", headers=headers)

    assert answer.headers["Content-Type"].startswith(content_type)
    judge(answer, log)


@pytest.mark.parametrize("accept", ["text/html", "image/png", "text/plain", "application/xml"])
async def test_an_accept_header_that_cannot_be_served_is_406(api, ended, accept):
    answer = await api.events(ended[0], accept=accept)

    assert answer.status == 406
    assert answer.error_code


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_the_headers_of_a_stream(api, ended, accept):
    answer = await api.events(ended[0], accept=accept)

    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert "Content-Length" not in answer.headers
    assert answer.headers["Transfer-Encoding"] == "chunked"


@pytest.mark.parametrize("accept", [SSE, NDJSON])
@pytest.mark.parametrize("how", ["header", "query"])
async def test_every_event_id_is_a_cursor_even_inside_a_joined_event(api, ended, accept, how):
    generation_id, log = ended

    for entry, node in zip(log[:-1], itertools.cycle([api.url, api.other_url]), strict=False):
        if how == "header":
            answer = await api.events(generation_id, entry.event_id, accept, node=node)
        else:
            path = f"/v1/generations/{generation_id}/events?last_event_id={entry.event_id}"
            answer = await api.get(path, headers={"Accept": accept}, node=node)
        judge(answer, log, entry.event_id)


async def test_a_long_poll_from_every_cursor_gives_the_rest(api, ended):
    generation_id, log = ended

    for place, entry in enumerate(log):
        body = (await api.poll(generation_id, entry.event_id)).json()
        text = fold_text([from_flat(event) for event in body["events"]])
        assert text == fold_text(log[place + 1 :])
        assert body["last_event_id"] == log[-1].event_id
        assert body["done"] is True


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_0_0_means_from_the_start(api, ended, accept):
    generation_id, log = ended

    judge(await api.events(generation_id, "0-0", accept), log)


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_a_cursor_at_the_end_of_an_ended_generation_is_204(api, ended, accept):
    generation_id, log = ended

    answer = await api.events(generation_id, log[-1].event_id, accept)

    assert (answer.status, answer.body) == (204, b"")


async def test_a_long_poll_at_the_end_of_an_ended_generation_is_done(api, ended):
    generation_id, log = ended

    answer = await api.poll(generation_id, log[-1].event_id, wait="30")

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    top = log[-1].event_id
    assert answer.json() == {"events": [], "last_event_id": top, "done": True}


@pytest.mark.parametrize("cursor", MALFORMED)
@pytest.mark.parametrize("accept", [SSE, NDJSON, POLL])
async def test_a_malformed_cursor_is_400(api, ended, cursor, accept):
    path = f"/v1/generations/{ended[0]}/events"
    for answer in (
        await api.get(path, headers={"Accept": accept, "Last-Event-ID": cursor}),
        await api.get(f"{path}?last_event_id={cursor}", headers={"Accept": accept}),
    ):
        assert (answer.status, answer.error_code) == (400, "cursor_invalid")


@pytest.mark.parametrize("query", ["%20", "1-1%00", "%D9%A1-1", "1-1%0A", "a" * 3_000])
async def test_odd_bytes_in_a_cursor_are_400(api, ended, query):
    answer = await api.get(f"/v1/generations/{ended[0]}/events?last_event_id={query}")

    assert (answer.status, answer.error_code) == (400, "cursor_invalid")


@pytest.mark.parametrize("cursor", FOREIGN)
@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_a_cursor_that_the_log_cannot_continue_gets_a_reset(api, ended, cursor, accept):
    generation_id, log = ended

    answer = await api.events(generation_id, cursor, accept)

    assert answer.status == 200
    first, *rest = answer.events
    assert (first.type, first.event_id) == ("reset", "0-0")
    assert isinstance(first.fields["reason"], str)
    reading = Reading("r", rest)
    assert check_reading(reading) == []
    assert check_against_log(reading, log) == []


@pytest.mark.parametrize("cursor", FOREIGN)
async def test_a_long_poll_with_such_a_cursor_gets_a_reset(api, ended, cursor):
    generation_id, log = ended

    body = (await api.poll(generation_id, cursor, wait="5")).json()

    events = [from_flat(event) for event in body["events"]]
    assert (events[0].type, events[0].event_id) == ("reset", "0-0")
    assert fold_text(events) == fold_text(log)
    assert (body["last_event_id"], body["done"]) == (log[-1].event_id, True)


async def test_a_cursor_above_the_top_waits_for_its_entry_to_come(api):
    """Within 2 s the running generation gets there: no reset."""
    generation_id = await api.start(LONG)
    await api.running(generation_id)
    top = int((await api.log(generation_id))[-1].event_id.split("-")[1])

    async with api.stream(generation_id, f"1-{top + 10}") as response:
        first = await first_events(response)
    await api.call("POST", f"/v1/generations/{generation_id}/cancel")

    assert first[0].type == "token"
    assert int(first[0].event_id.split("-")[1]) > top + 10


async def test_a_cursor_far_above_the_top_waits_two_seconds_and_gets_a_reset(api):
    generation_id = await api.start(LONG)
    await api.running(generation_id)
    begun = time.monotonic()

    async with api.stream(generation_id, "1-5000") as response:
        assert response.status == 200
        first = await first_events(response)
    await api.call("POST", f"/v1/generations/{generation_id}/cancel")

    assert (first[0].type, first[0].event_id) == ("reset", "0-0")
    assert 1.0 < time.monotonic() - begun < 6.0


async def first_events(response: aiohttp.ClientResponse) -> list:
    parser = SseParser()
    async for piece in response.content.iter_any():
        if blocks := parser.feed(piece):
            assert parser.faults == []
            return [block.delivery() for block in blocks]
    raise AssertionError("no event")


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_a_stream_that_is_read_live_on_another_node_is_whole(api, accept):
    generation_id = await api.start(demo_body(60, 60))

    answer = await api.events(generation_id, accept=accept, node=api.other_url)

    judge(answer, await api.log(generation_id))


async def test_the_first_bytes_leave_at_once_and_before_the_end(api):
    generation_id = await api.start(LONG)

    async with api.stream(generation_id) as response:
        first = await first_events(response)

    assert (first[0].type, first[0].event_id) == ("start", "1-1")
    await api.call("POST", f"/v1/generations/{generation_id}/cancel")


async def test_head_ends_at_once_without_a_body(api):
    generation_id = await api.start(LONG)
    path = f"/v1/generations/{generation_id}/events"

    async with raw_connection(api.url) as (reader, writer):
        host = api.url.removeprefix("http://")
        credentials = "".join(f"{k}: {v}\r\n" for k, v in api.credentials.items())
        request = f"HEAD {path} HTTP/1.1\r\nHost: {host}\r\n{credentials}Connection: close\r\n\r\n"
        writer.write(request.encode())
        received = await asyncio.wait_for(reader.read(-1), 5)
    await api.call("POST", f"/v1/generations/{generation_id}/cancel")

    head, _, body = received.partition(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0]
    assert b"text/event-stream" in head.lower()
    assert body == b""


async def test_after_the_end_the_chunked_body_is_finished_and_the_connection_lives(api, ended):
    path = f"/v1/generations/{ended[0]}/events"
    host = api.url.removeprefix("http://")
    credentials = "".join(f"{k}: {v}\r\n" for k, v in api.credentials.items())
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{credentials}\r\n".encode()

    async with raw_connection(api.url) as (reader, writer):
        for _ in range(2):
            writer.write(request)
            received = await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), 10)
            assert received.startswith(b"HTTP/1.1 200 ")
            assert b"event: end" in received


async def test_retry_stands_only_in_the_first_block(api, ended):
    answer = await api.events(ended[0])

    assert answer.body.count(b"retry:") <= 1  # that it is the first is checked by the parser
    assert answer.events


async def test_the_data_of_an_sse_event_is_the_event_without_id_and_type(api, ended):
    answer = await api.events(ended[0])

    for event in answer.events:
        assert "type" not in event.fields
        assert "id" not in event.fields
        if event.type == "token":
            assert set(event.fields) == {"text"}


async def test_a_long_poll_returns_existing_events_at_once(api):
    generation_id = await api.start(LONG)
    await api.running(generation_id)
    begun = time.monotonic()

    body = (await api.poll(generation_id, wait="30")).json()
    await api.call("POST", f"/v1/generations/{generation_id}/cancel")

    assert time.monotonic() - begun < 3
    assert body["events"][0]["id"] == "1-1"
    assert body["events"][0]["type"] == "start"
    assert body["last_event_id"] == body["events"][-1]["id"]
    assert body["done"] is False


async def test_a_long_poll_waits_for_a_new_event(api):
    generation_id = await api.start(demo_body(10_000, 4))
    await api.running(generation_id)
    top = (await api.log(generation_id))[-1].event_id

    body = (await api.poll(generation_id, top, wait="10", node=api.other_url)).json()
    await api.call("POST", f"/v1/generations/{generation_id}/cancel")

    assert body["events"]
    assert int(body["events"][0]["id"].split("-")[1]) > int(top.split("-")[1])


async def test_a_chain_of_long_polls_is_a_whole_reading(api):
    generation_id = await api.start(demo_body(40, 60))
    reading, cursor, is_done = Reading("r"), "0-0", False

    while not is_done:
        body = (await api.poll(generation_id, cursor, wait="5")).json()
        reading.steps += [from_flat(event) for event in body["events"]]
        cursor, is_done = body["last_event_id"], body["done"]

    assert check_reading(reading) == []
    assert check_against_log(reading, await api.log(generation_id)) == []


@pytest.mark.parametrize("wait", ["-1", "61", "abc", "nan", "inf", "-inf", "60.1", "1s", "1e3"])
async def test_a_wait_that_is_no_number_from_0_to_60_is_400(api, ended, wait):
    answer = await api.poll(ended[0], wait=wait)

    assert answer.status == 400
    assert answer.error_code


@pytest.mark.parametrize("wait", ["0", "0.5", "60", "1"])
async def test_a_wait_from_0_to_60_is_accepted(api, ended, wait):
    assert (await api.poll(ended[0], wait=wait)).status == 200


async def test_json_without_wait_does_not_wait(api):
    generation_id = await api.start(LONG)
    await api.running(generation_id)
    begun = time.monotonic()

    answer = await api.events(generation_id, "1-1", accept=POLL)
    await api.call("POST", f"/v1/generations/{generation_id}/cancel")

    assert answer.status == 200
    assert answer.json()["done"] is False
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_405(api, ended, method):
    answer = await api.call(method, f"/v1/generations/{ended[0]}/events")

    assert answer.status == 405
    assert "GET" in answer.headers["Allow"]


async def test_two_hundred_readers_of_one_stream_read_the_same(api):
    generation_id = await api.start(demo_body(60, 40))

    readers = [
        asyncio.create_task(api.events(generation_id, node=node))
        for node in (api.url, api.other_url)
        for _ in range(100)
    ]
    answers = [await reader for reader in readers]

    log = await api.log(generation_id)
    for answer in answers:
        judge(answer, log)
