"""The protocol classes on real sockets: a uvicorn server in this process, and a peer of raw bytes.

Knows nothing of generations: the application only echoes.
"""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from api.transport.http import HttpProtocol
from api.transport.websocket import WebSocketProtocol
from tests.support.listening import stop_listening
from tests.support.wait import DeadlineMissed, until

DEADLINE_S = 5.0
GRACE_S = 0.2  # for handlers that notice the end of their connection
LARGE_BYTES = 8_000_000  # more than the kernels keep for a peer that reads nothing


class QuickHttpProtocol(HttpProtocol):
    """`HttpProtocol` with a head timeout that a test can wait for."""

    head_s = 0.3


class Echo:
    """Answers POST after its body, GET at once; echoes what a socket sends."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.transports: list[Any] = []
        self.disconnects: list[int] = []
        self.received: list[str] = []
        self.release = asyncio.Event()
        self.start = asyncio.Event()  # sockets: before it nothing is received
        self.start.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.transports.append(scope["extensions"]["tailrace.transport"])
        if scope["type"] == "websocket":
            await self.socket(receive, send)
            return
        if scope["path"] == "/slow":
            await self.release.wait()
        if scope["path"] == "/left":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.release.set()
        if scope["method"] == "POST" and scope["path"] != "/early":
            while (message := await receive()).get("more_body", False):
                pass
        body = b"x" * LARGE_BYTES if scope["path"] == "/large" else b"ok"
        if scope["path"] == "/body":
            body = message["body"]
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def socket(self, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await self.start.wait()
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.disconnects.append(message["code"])
                return
            self.received.append(message.get("text") or "binary")
            await send({"type": "websocket.send", "text": self.received[-1]})


@asynccontextmanager
async def serving(
    app: Any,
    protocol: type[HttpProtocol] = QuickHttpProtocol,
    socket_protocol: Callable[..., WebSocketProtocol] = WebSocketProtocol,
) -> AsyncIterator[int]:
    """Serve `app` on a free port."""
    config = uvicorn.Config(
        app, port=0, http=protocol, ws=socket_protocol, ws_per_message_deflate=False,
        ws_max_size=1000, ws_ping_interval=None, lifespan="off",
        log_config=None, timeout_keep_alive=60,
    )  # fmt: skip
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await _shut_down(server)


async def _shut_down(server: uvicorn.Server) -> None:
    """Do what `Server.shutdown` does, without its pauses of 0.1 s."""
    state = server.server_state
    for listening in server.servers:
        await stop_listening(listening)
    for connection in list(state.connections):
        connection.transport.abort()
    try:
        await until(lambda: not state.connections and not state.tasks, GRACE_S, "the end of all")
    except DeadlineMissed:
        for task in state.tasks:
            task.cancel()
    for listening in server.servers:
        await listening.wait_closed()


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


def frame(
    opcode: int, data: bytes, *, fin: bool = True, is_masked: bool = True, reserved: int = 0
) -> bytes:
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    mask = 0x80 if is_masked else 0
    size = (
        bytes([mask | len(data)])
        if len(data) < 126
        else bytes([mask | 126]) + struct.pack("!H", len(data))
    )
    if not is_masked:
        return head + size + data
    key = b"mask"
    return head + size + key + bytes(b ^ key[i % 4] for i, b in enumerate(data))


async def close_code(peer: Peer) -> int:
    rest = await peer.rest()
    assert rest[0] == 0x88, rest
    return int(struct.unpack("!H", rest[2:4])[0])
