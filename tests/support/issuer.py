"""An issuer of tokens: an HTTP server of public keys that a test can rotate, stop or hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.support.listening import stop_listening
from tests.support.tokens import jwk


class Issuer:
    """Serves `body` with `status` and the further head lines `more`.

    Attributes:
        asked: how often a request came.
        held: while it is set to an event, answers wait for the event.
    """

    def __init__(self) -> None:
        self.body = key_set("one")
        self.status = "200 OK"
        self.more = ""
        self.asked = 0
        self.held: asyncio.Event | None = None
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any] | None] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/keys"

    async def stop(self) -> None:
        assert self._server is not None
        await stop_listening(self._server)
        for task in self._tasks:
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.held is not None:
                await self.held.wait()
            head = f"HTTP/1.1 {self.status}\r\n{self.more}content-length: {len(self.body)}\r\n"
            writer.write(head.encode() + b"connection: close\r\n\r\n" + self.body)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def key_set(*kids: str) -> bytes:
    """Return a key set; every kid has the key number 0."""
    return json.dumps({"keys": [jwk("ES256", kid) for kid in kids]}).encode()


@contextlib.asynccontextmanager
async def serve_keys() -> AsyncIterator[Issuer]:
    """Run an issuer until the block ends."""
    issuer = Issuer()
    await issuer.start()
    try:
        yield issuer
    finally:
        await issuer.stop()
