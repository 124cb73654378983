"""An event stream whose server refuses a write past `send`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from api.dialects.durable_streams.live import EventStream, LiveRequest, LiveStreams
from api.dialects.durable_streams.tail import Frame, Tail
from api.transport.extensions import WIRE
from shared.streams.place import ZERO, after
from shared.streams.record import StreamInfo
from shared.streams.store import Reading
from tests.support.hub_harness import Client, HubHarness, make_scope, settle

INFO = StreamInfo("text/plain", "text/plain", ZERO, ZERO, False, "", "", (), (), 0)
A = after(ZERO, b"first")
B = after(A, b"second")


class RefusingWire:
    """The wire of a connection that uvloop has closed: its `write` raises."""

    is_paused = False

    def __init__(self) -> None:
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        raise RuntimeError("unable to perform operation; the handler is closed")


class OneTail:
    """`Tails` with one tail."""

    def __init__(self) -> None:
        self.tail = Tail()
        self.tail.take(Reading("live", INFO))

    @asynccontextmanager
    async def held(self, owner: str, path: str) -> AsyncIterator[Tail]:
        yield self.tail


async def test_an_entry_that_the_wire_refuses_is_sent_with_send() -> None:
    """The reader leaves the row at the place before the entry, so that no entry is left out."""
    tails, client, wire = OneTail(), Client(), RefusingWire()
    async with HubHarness() as harness:
        live = LiveStreams(harness.hub, None, tails)  # type: ignore[arg-type]
        request = LiveRequest("anonymous", "notes", INFO, ZERO, "")
        scope: dict[str, Any] = make_scope(client)
        scope["extensions"][WIRE] = wire
        app = EventStream(live, request, {})
        task = asyncio.create_task(app(scope, client.receive, client.send))  # type: ignore[arg-type]
        await settle()
        tails.tail.offer(Frame(ZERO, A, False, False, b"first"))
        await settle()
        tails.tail.offer(Frame(A, B, False, False, b"second"))
        await settle()
        client.leave()
        await task

    assert wire.writes == 2
    assert [client.body.count(text) for text in (b"first", b"second")] == [1, 1]
