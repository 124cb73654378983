"""The load generator, as benchmarks use it: readers in a separate process.

    async with Load() as load:
        await load.open(address, requests, end=ENDS["sse"])
        …
        readings = await load.report("sse", answers, which)

Also the requests of readers of the four native transports, and the bytes that end each stream.
"""

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from bench.support import load_process
from bench.support.cpu import CORES
from bench.support.load_process import ReaderRequest
from bench.support.wire import ReaderResult

Address = tuple[str, int]
KINDS = ("sse", "ws", "ndjson", "poll")
ENDS = {
    "sse": b"\r\n0\r\n\r\n",
    "ndjson": b"\r\n0\r\n\r\n",
    "ws": b'{"type":"end"',
    "poll": b'"done":true}',
}
ACCEPT = {"sse": "text/event-stream", "ndjson": "application/x-ndjson", "poll": "application/json"}
DEADLINE_S = 60.0
REPLY_S = 300.0  # for the process to reply: a report of millions of tokens takes long


class InexactText(Exception):
    """A reader did not get its exact text, so the measurement does not count."""


class Load:
    """A process with readers."""

    def __init__(self, cores: Sequence[int] = CORES) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=load_process.run, args=(theirs, list(cores)), daemon=True
        )
        self._theirs: Connection = theirs

    async def __aenter__(self) -> Load:
        self._process.start()
        self._theirs.close()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pipe.close()
        await asyncio.to_thread(self._process.join, 10)
        self._process.kill()

    async def open(
        self, address: Address, requests: Sequence[ReaderRequest], *, end: bytes
    ) -> float:
        """Connect one reader for each request, all at once; return when that began."""
        began: float = await self._ask("open", address, requests, end)
        return began

    async def opened(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait until each reader has got a first byte.

        Raises:
            InexactText: not all have, within `deadline_s`.
        """
        silent = await self._ask("opened", deadline_s)
        if silent:
            raise InexactText(f"{silent} readers had no answer within {deadline_s} s")

    async def over(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait until each reader has got the end of its stream.

        Raises:
            InexactText: not all have, within `deadline_s`.
        """
        left = await self._ask("wait", deadline_s)
        if left:
            statuses = await self._ask("statuses")
            raise InexactText(f"{left} readers had no end within {deadline_s} s: {statuses}")

    async def report(
        self, kind: str, answers: Sequence[Sequence[str]], which: Sequence[int] | None = None
    ) -> list[ReaderResult]:
        """Return what each reader got, in the order of `open`, and disconnect the readers.

        Args:
            answers: the tokens of each answer.
            which: the index of the answer of each reader; by default one answer per reader.

        Raises:
            InexactText: a text is not the expected one.
        """
        chosen = range(len(answers)) if which is None else which
        readings: list[ReaderResult] = await self._ask("report", kind, answers, list(chosen))
        wrong = [n for n, reading in enumerate(readings) if not reading.is_exact]
        if wrong:
            statuses, last = await self._ask("statuses"), await self._ask("last_bytes", wrong[0])
            raise InexactText(
                f"{len(wrong)} of {len(readings)} texts are not exact: {statuses}; the first of"
                f" them had {len(readings[wrong[0]].times)} tokens and ends with {last!r}"
            )
        await self.close()
        return readings

    async def count(self, what: bytes) -> int:
        """Return how often the readers have got these bytes so far."""
        found: int = await self._ask("count", what)
        return found

    async def received(self) -> list[bytes]:
        """Return all bytes that each reader got, in the order of `open`; disconnect the readers."""
        found: list[bytes] = await self._ask("received")
        await self.close()
        return found

    async def close(self) -> None:
        """Disconnect all readers and forget them."""
        await self._ask("close")

    async def _ask(self, name: str, *args: Any) -> Any:
        self._pipe.send((name, args))
        if not await asyncio.to_thread(self._pipe.poll, REPLY_S):
            raise InexactText(f"the readers' process does not answer to {name!r}")
        return self._pipe.recv()


# Requests of readers


def get_events(kind: str, generation_id: str) -> ReaderRequest:
    """Return the request that reads a generation from its start."""
    if kind == "ws":
        return ReaderRequest(_HANDSHAKE, _frame({"type": "subscribe", "id": generation_id}))
    path = f"/v1/generations/{generation_id}/events"
    if kind == "poll":
        path += "?wait=30&last_event_id="
        again = get(path + "CURSOR", accept=ACCEPT[kind]).first
        return get(path, accept=ACCEPT[kind])._replace(again=again)
    return get(path, accept=ACCEPT[kind])


def get(path: str, *, accept: str = "text/event-stream") -> ReaderRequest:
    """Return a GET request."""
    return ReaderRequest(
        f"GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n".encode()
    )


def post(path: str, body: dict[str, Any], *, accept: str = "text/event-stream") -> ReaderRequest:
    """Return a POST request with a JSON body."""
    raw = json.dumps(body)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    return ReaderRequest((head + raw).encode())


_HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)


def _frame(fields: dict[str, Any]) -> bytes:
    """Return a client's text frame, masked with zeros."""
    payload = json.dumps(fields).encode()
    assert len(payload) < 126
    return bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload
