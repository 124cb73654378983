"""The protocol classes, driven over real sockets by a real uvicorn server."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from api.http_protocol import HttpProtocol, WebSocketProtocol

DEADLINE_S = 5.0


class Quick(HttpProtocol):
    """The same with a head timeout that a test can wait for."""

    head_s = 0.15


class Echo:
    """Answers POST after its body, GET at once; echoes what a socket sends."""

    def __init__(self) -> None:
        self.transports: list[Any] = []
        self.disconnects: list[int] = []
        self.release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.transports.append(scope["extensions"]["tailrace.transport"])
        if scope["type"] == "websocket":
            await self.socket(receive, send)
            return
        if scope["path"] == "/slow":
            await self.release.wait()
        if scope["method"] == "POST" and scope["path"] != "/early":
            while (await receive()).get("more_body", False):
                pass
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def socket(self, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.disconnects.append(message["code"])
                return
            await send({"type": "websocket.send", "text": message.get("text") or "binary"})


@asynccontextmanager
async def serving(app: Any, protocol: type[HttpProtocol] = Quick) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, port=0, http=protocol, ws=WebSocketProtocol, ws_per_message_deflate=False,
        ws_max_size=1000, ws_ping_interval=None, lifespan="off", log_config=None,
        timeout_keep_alive=60, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        for connection in list(server.server_state.connections):
            transport = connection.transport
            transport.abort()
        await server.shutdown()


class Peer:
    """A client that says exactly the bytes it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readuntil(mark)

    async def rest(self) -> bytes:
        """All until the server closes, however it does that."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(Echo()) as port:
        yield port


@pytest.mark.parametrize(
    "start", [b"", b"G", b"GET / HTTP/1.1\r\nhost: x\r\nx: ", b"\r\n\r\n", b"POST / HTTP/1.1\r\n"]
)
async def test_a_head_that_is_not_completed_is_closed(port: int, start: bytes) -> None:
    async with connected(port) as peer:
        peer.say(start)

        assert await peer.rest() == b""


async def test_a_head_that_trickles_is_closed_all_the_same(port: int) -> None:
    async with connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\n")
        rest = asyncio.ensure_future(peer.rest())
        while not rest.done():
            peer.say(b"x-a: 1\r\n")
            await asyncio.sleep(0.01)  # the trickle is what is tested

        assert await rest == b""


@pytest.mark.parametrize("start", [b"G", b"\r\n"])
async def test_between_requests_the_first_byte_counts(port: int, start: bytes) -> None:
    async with connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await peer.until(b"ok")
        peer.say(start)

        assert await peer.rest() == b""


async def test_an_idle_connection_and_a_slow_answer_are_left_alone() -> None:
    app = Echo()
    async with serving(app) as port, connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await peer.until(b"ok")
        await asyncio.sleep(2 * Quick.head_s)  # the silence is what is tested
        peer.say(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.sleep(2 * Quick.head_s)  # a slow answer, too
        app.release.set()

        assert (await peer.until(b"ok")).startswith(b"HTTP/1.1 200")


async def test_the_rest_of_a_body_that_was_answered_early_has_the_same_time(port: int) -> None:
    async with connected(port) as peer:
        peer.say(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1")
        await peer.until(b"ok")

        assert await peer.rest() == b""


async def test_a_body_that_completes_after_an_early_answer_keeps_the_connection(port: int) -> None:
    async with connected(port) as peer:
        peer.say(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1")
        await peer.until(b"ok")
        peer.say(b"23456789")
        await asyncio.sleep(2 * Quick.head_s)  # the silence is what is tested
        peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

        assert (await peer.until(b"ok")).startswith(b"HTTP/1.1 200")


async def test_an_endless_head_is_431() -> None:
    async with serving(Echo(), HttpProtocol) as port, connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(0)
        try:
            for _ in range(100):
                peer.say(b"x-" + b"a" * 8000 + b": 1\r\n")
                await peer.writer.drain()
        except ConnectionError:
            pass

        assert b" 200 " not in await peer.rest()  # the 431 may be lost to the reset


async def test_a_large_body_is_no_head(port: int) -> None:
    async with connected(port) as peer:
        peer.say(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 500000\r\n\r\n" + b"x" * 500_000)
        peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

        assert b" 200 " in await peer.until(b"ok")
        assert b" 200 " in await peer.until(b"ok")


# WebSocket


def handshake(*changes: tuple[str, str | None], line: str = "GET /ws HTTP/1.1") -> bytes:
    headers: dict[str, str | None] = {
        "host": "x",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": base64.b64encode(bytes(16)).decode(),
        "sec-websocket-version": "13",
        **dict(changes),
    }
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([line, *lines, "", ""]).encode()


def frame(opcode: int, data: bytes, *, fin: bool = True, is_masked: bool = True) -> bytes:
    head = bytes([(0x80 if fin else 0) | opcode])
    mask = 0x80 if is_masked else 0
    size = (
        bytes([mask | len(data)])
        if len(data) < 126
        else bytes([mask | 126]) + struct.pack("!H", len(data))
    )
    if not is_masked:
        return head + size + data
    key = os.urandom(4)
    return head + size + key + bytes(b ^ key[i % 4] for i, b in enumerate(data))


async def close_code(peer: Peer) -> int:
    rest = await peer.rest()
    assert rest[0] == 0x88, rest
    return int(struct.unpack("!H", rest[2:4])[0])


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (handshake(("sec-websocket-version", "8")), (400, 426)),
        (handshake(("sec-websocket-version", None)), (400, 426)),
        (handshake(("sec-websocket-key", "short")), (400,)),
        (handshake(("sec-websocket-key", None)), (400,)),
        (handshake(line="POST /ws HTTP/1.1"), (400, 405)),
        (handshake(line="GET /ws HTTP/1.0"), (101, 400, 426, 505)),
        (handshake(("x", "y" * 20_000)), (431,)),
        (handshake(line="GET /" + "w" * 20_000 + " HTTP/1.1"), (414,)),
    ],
)
async def test_a_wrong_handshake_is_refused(
    port: int, request_bytes: bytes, status: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(port) as peer:
        peer.say(request_bytes)
        line = await peer.until(b"\r\n")

        assert int(line.split()[1]) in status
        assert not [r for r in caplog.records if r.exc_info]


@pytest.mark.parametrize("line", ["GET /ws\x7f HTTP/1.1", "GET /\xff HTTP/1.1"])
async def test_a_handshake_that_is_no_request_is_closed_without_a_traceback(
    port: int, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(port) as peer:
        peer.say(handshake(line=line).decode().encode("latin-1"))
        await peer.rest()

        assert not [r for r in caplog.records if r.exc_info]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(1, b"\xff"), 1007),
        (frame(1, b"\xe2\x82", fin=False) + frame(0, b"x"), 1007),
        (frame(1, b"x", is_masked=False), 1002),
        (frame(0x41, b"x"), 1002),
        (frame(3, b"x"), 1002),
        (frame(1, b"x" * 1001), 1009),
        (frame(1, b"x" * 600, fin=False) + frame(0, b"x" * 600), 1009),
    ],
)
async def test_a_wrong_frame_closes_with_its_code(
    frames: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = Echo()
    async with serving(app) as port, connected(port) as peer:
        peer.say(handshake())
        await peer.until(b"\r\n\r\n")
        peer.say(frames)

        assert await close_code(peer) == code
        assert app.disconnects == [code]
        assert not [r for r in caplog.records if r.exc_info]


async def test_characters_may_be_split_over_frames(port: int) -> None:
    async with connected(port) as peer:
        peer.say(handshake())
        await peer.until(b"\r\n\r\n")
        peer.say(frame(1, b"\xe2\x82", fin=False) + frame(0, b"\xac"))

        assert await peer.until("€".encode()) == b"\x81\x03" + "€".encode()


async def test_the_transport_reaches_the_application() -> None:
    app = Echo()
    async with serving(app) as port:
        async with connected(port) as peer:
            peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await peer.until(b"ok")
        async with connected(port) as peer:
            peer.say(handshake())
            await peer.until(b"\r\n\r\n")

            assert len(app.transports) == 2
            assert app.transports[1].get_write_buffer_size() == 0
            app.transports[1].abort()
            assert await peer.rest() == b""
