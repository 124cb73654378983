"""Servers that lie: nothing of theirs becomes a part of the answer, and no lie ends a client.

A fake server lies on its first connections and tells the truth after that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from tests.support.scenarios import LANGUAGES, ClientProgram, program_of

LIES = 2  # connections of each kind that are lied to
REQUESTS_MAX = 16
ID = "gen_liar0000"
EVENTS: list[dict[str, Any]] = [
    {"id": "1-1", "type": "start", "attempt": 1, "model": "demo"},
    {"id": "1-2", "type": "token", "text": "a"},
    {"id": "1-3", "type": "token", "text": "b"},
    {"id": "1-4", "type": "end", "status": "completed", "finish_reason": "stop"},
]
HUGE = b"x" * (33 * 1024 * 1024)  # without the end of its line
NDJSON, SSE, JSON = "application/x-ndjson", "text/event-stream", "application/json"
ODD = ["null", "[]", "5", '"x"', '{"type": 5, "id": "1-2"}', '{"type": "token", "id": "9"}']
NO_TEXT = '{"type": "token", "id": "1-1", "text": {"a": 1}}'


def body(lines: list[str] | bytes) -> bytes:
    return lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()


def lie(text: bytes, content_type: str, **options: Any) -> Callable[[], web.Response]:
    return lambda: web.Response(body=text, content_type=content_type, **options)


def loop() -> web.Response:
    return web.Response(status=302, headers={"location": f"/v1/generations/{ID}/events"})


TWICE = body([json.dumps(event) for event in [*EVENTS[:2], *EVENTS[:2], EVENTS[1]]])
# The lie -> the transport, and how the server answers the first readers.
READING: dict[str, tuple[str, Any]] = {
    "events come twice": ("ndjson", lie(TWICE, NDJSON)),
    "lines are no events": ("ndjson", lie(body([*ODD, NO_TEXT]), NDJSON)),
    "a line has no end": ("ndjson", lie(HUGE, NDJSON)),
    "blocks are no events": ("sse", lie(b"id: 1-2\nevent: token\ndata: null\n\n", SSE)),
    "a block has no end": ("sse", lie(b"data: " + HUGE, SSE)),
    "the stream is a page": ("sse", lie(b"<html>", "text/html")),
    "a redirect leads to itself": ("sse", loop),
    "a poll is no poll": ("poll", lie(b"[]", JSON)),
    "a poll has no events": ("poll", lie(b'{"events": [null, 5], "last_event_id": "x"}', JSON)),
    "an answer has no end": ("poll", lie(b'"' + 2 * HUGE, JSON)),
    "frames are no events": ("websocket", [*ODD, NO_TEXT]),
    "a frame is a page": ("websocket", ["<html>"]),
}
STARTING = {
    "null": lie(b"null", JSON),
    "an object": lie(b"{}", JSON),
    "an id that is no text": lie(b'{"id": null}', JSON),
    "half of it": lie(b'{"id": "gen_', JSON),
    "a page": lie(b"<html>", "text/html"),
}


class Liar:
    """The fake server. `reading` and `starting` are its lies."""

    def __init__(self, reading: Any = None, starting: Any = None) -> None:
        self.reading, self.starting = reading, starting
        self.readers = self.starts = 0

    async def start(self, request: web.Request) -> web.Response:
        self.starts += 1
        if self.starting and self.starts <= LIES:
            return self.starting()  # type: ignore[no-any-return]
        return web.json_response({"id": ID}, status=202)

    async def events(self, request: web.Request) -> web.Response:
        self.readers += 1
        if self.reading and self.readers <= LIES:
            return self.reading()  # type: ignore[no-any-return]
        cursor = request.headers.get("last-event-id") or request.query.get("last_event_id")
        rest = [each for each in EVENTS if not cursor or each["id"] > cursor]
        if "wait" in request.query:
            polled = {"events": rest, "last_event_id": "1-4", "done": True}
            return web.json_response(polled)
        if "ndjson" in request.headers["accept"]:
            return web.Response(body=body([json.dumps(each) for each in rest]), content_type=NDJSON)
        blocks = [
            f"id: {each['id']}\nevent: {each['type']}\ndata: {json.dumps(each)}\n\n"
            for each in rest
        ]
        return web.Response(body="".join(blocks).encode(), content_type=SSE)

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        self.readers += 1
        socket = web.WebSocketResponse(protocols=["tailrace.v1"])
        await socket.prepare(request)
        async for message in socket:
            if message.type is not WSMsgType.TEXT or "subscribe" not in message.data:
                continue
            if self.reading and self.readers <= LIES:
                for frame in self.reading:
                    await socket.send_str(frame)
                break
            for each in EVENTS:
                frame = {**each, "event_id": each["id"], "id": ID}
                await socket.send_str(json.dumps(frame))
        return socket


@asynccontextmanager
async def serving(liar: Liar) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/generations", liar.start)
    app.router.add_get("/v1/generations/{id}/events", liar.events)
    app.router.add_get("/v1/ws", liar.socket)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture(params=LANGUAGES)
async def program(request: pytest.FixtureRequest) -> AsyncIterator[ClientProgram]:
    async with program_of(request.param) as program:
        yield program


async def read(program: ClientProgram, liar: Liar, transport: str) -> dict[str, Any]:
    async with serving(liar) as url, asyncio.timeout(30):
        run = {"url": url, "transport": transport, "jitter": 0.02, "body": {"prompt": "x"}}
        (outcome,) = await program.ask("each", runs=[run])
    return dict(outcome)


def is_right(outcome: dict[str, Any]) -> bool:
    ids = [event["id"] for event in outcome["events"]]
    return outcome["result"]["text"] == "ab" and ids == [event["id"] for event in EVENTS]


async def test_a_reader_takes_nothing_of_a_lie(program: ClientProgram) -> None:
    wrong = {}
    for name, (transport, lies) in READING.items():
        liar = Liar(reading=lies)
        outcome = await read(program, liar, transport)
        if "error" in outcome or not is_right(outcome) or liar.readers > REQUESTS_MAX:
            wrong[name] = (liar.readers, outcome)

    assert wrong == {}


async def test_a_start_that_no_node_answered_is_repeated(program: ClientProgram) -> None:
    wrong = {}
    for name, lies in STARTING.items():
        liar = Liar(starting=lies)
        outcome = await read(program, liar, "ndjson")
        if "error" in outcome or not is_right(outcome) or liar.starts != LIES + 1:
            wrong[name] = (liar.starts, outcome)

    assert wrong == {}
