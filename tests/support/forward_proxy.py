"""An HTTP proxy for tests: opens tunnels (CONNECT), and forwards requests with a whole URL.

The proxy resolves no names: every host name leads to the same local port, so that a test can reach
`https://model.test/` only through the proxy.
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress

from tests.support.listening import stop_listening

CREDENTIALS = "user:p%40ss"  # in a URL; the password is p@ss
AUTHORIZATION = "Basic " + base64.b64encode(b"user:p@ss").decode()


class ForwardProxy:
    """The proxy. Use with `async with`.

    Args:
        to_port: where every tunnel and every request goes.
        needs_credentials: refuse requests without `CREDENTIALS`, with 407.
        answer: sent instead of the usual answer to a CONNECT, and the connection is closed.

    Attributes:
        asked: the first line of each request.
    """

    def __init__(
        self, to_port: int, *, needs_credentials: bool = False, answer: bytes | None = None
    ) -> None:
        self.asked: list[str] = []
        self.port = 0
        self._to_port = to_port
        self._needs_credentials = needs_credentials
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, credentials: str = "") -> str:
        return f"http://{credentials}{'@' if credentials else ''}127.0.0.1:{self.port}"

    async def __aenter__(self) -> ForwardProxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await stop_listening(self._server)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        self.asked.append(line)
        if self._answer is not None:
            writer.write(self._answer)
            await writer.drain()
            return
        if self._needs_credentials and f"Proxy-Authorization: {AUTHORIZATION}" not in headers:
            writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        inner, outer = await asyncio.open_connection("127.0.0.1", self._to_port)
        if line.startswith("CONNECT "):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            outer.write(head)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, outer))
                group.create_task(_copy(inner, writer))
        finally:
            outer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
