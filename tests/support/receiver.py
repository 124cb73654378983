"""A receiver of webhooks for tests: answers as the test says, and keeps the requests that it gets.

    async with Receiver() as receiver:
        receiver.answers = [500, 200]       # the last one again and again
        receiver.url                        # on loopback
        receiver.calls                      # headers and body of each request

A raw asyncio server: the tests choose what it answers, when, and whether at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

from tests.support.listening import stop_listening

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(slots=True)
class Call:
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def verified(self, secret: str = SECRET) -> dict[str, Any]:
        """The event, as the reference library reads it: signature, id and time are right."""
        found: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return found


@dataclass(slots=True)
class Receiver:
    """Use as an async context manager.

    Attributes:
        answers: statuses, or (status, headers); the last one holds from then on.
        holds: while it is not set, requests are read and not answered.
    """

    answers: list[Any] = field(default_factory=lambda: [204])
    calls: list[Call] = field(default_factory=list)
    holds: asyncio.Event = field(default_factory=asyncio.Event)
    body: bytes = b""
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def events(self) -> list[str]:
        return [call.headers["webhook-id"] for call in self.calls]

    async def __aenter__(self) -> Receiver:
        self.holds.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        await stop_listening(self._server)
        for writer in set(self._writers):
            writer.transport.abort()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the caller left, as some tests want it
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rows = head.rstrip().split("\r\n")
        pairs = (row.partition(":") for row in rows)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.calls.append(Call(line, headers, body))
        answer = self.answers[min(len(self.calls), len(self.answers)) - 1]
        status, more = answer if isinstance(answer, tuple) else (answer, {})
        await self.holds.wait()
        more = {"content-length": str(len(self.body)), "connection": "close", **more}
        said = "".join(f"{name}: {value}\r\n" for name, value in more.items())
        writer.write(f"HTTP/1.1 {status} x\r\n{said}\r\n".encode("latin-1") + self.body)
        await writer.drain()
