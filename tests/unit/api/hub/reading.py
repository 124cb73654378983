"""Requests for the events of one generation, for the tests of the hub."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from api.dialects.native.events import respond_with_events, stream_events
from api.transport.extensions import WIRE
from shared.log.ids import START, EventId
from shared.log.records import Meta
from tests.support.hub_harness import GENERATION, Client, HubHarness, make_scope, settle


class Wire:
    """A connection that takes bytes past `send`."""

    is_paused = False

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.write = self.got.append
        self.release()

    def release(self) -> None:
        self.on_paused = self.on_resumed = lambda: None

    @property
    def ids(self) -> list[str]:
        """The ids of the events in NDJSON."""
        return re.findall(r'"id":"([0-9]+-[0-9]+)","type"', b"".join(self.got).decode())


class Reading:
    """A request whose response is being read."""

    def __init__(self, hub_harness: HubHarness, client: Client, task: asyncio.Task[None]) -> None:
        self.hub_harness, self.client, self.task = hub_harness, client, task

    @property
    def frames(self) -> list[tuple[str, str]]:
        return parse_sse(self.client.body)

    @property
    def ids(self) -> list[str]:
        return [event_id for event_id, _ in self.frames]


def parse_sse(body: bytes) -> list[tuple[str, str]]:
    """Return (id, event type) of each block of server-sent events."""
    text = body.decode()
    return re.findall(r"^id: (\S+)\nevent: (\S+)\ndata: ", text, re.MULTILINE)


async def read(
    hub_harness: HubHarness,
    cursor: EventId = START,
    *,
    transport: str = "sse",
    client: Client | None = None,
    wire: Wire | None = None,
    with_meta: Meta | None = None,
    **scope_parts: Any,
) -> Reading:
    """Start a request for the events after `cursor`, and let it join.

    Args:
        wire: takes the events instead of `client`, and lets the reader follow in a row.
        with_meta: for a generation that Redis has lost.
    """
    client = client or Client()
    meta = with_meta or await hub_harness.log.meta(GENERATION)
    assert meta is not None
    scope = make_scope(client, **scope_parts)
    if wire is not None:
        scope["extensions"][WIRE] = wire
    task = asyncio.create_task(
        stream_events(
            hub_harness.hub,
            scope,
            client.receive,
            client.send,  # type: ignore[arg-type]
            meta=meta,
            cursor=cursor,
            transport=transport,
        )
    )
    await settle()
    return Reading(hub_harness, client, task)


async def stop(reading: Reading) -> None:
    """Close the connection as its client does, and await the end of the request."""
    reading.client.leave()
    await reading.task


async def get(hub_harness: HubHarness, client: Client, **scope: Any) -> None:
    """Serve a whole request, from the look-up of its generation on."""
    await respond_with_events(
        make_scope(client, **scope),
        client.receive,
        client.send,  # type: ignore[arg-type]
        hub=hub_harness.hub,
        store=hub_harness.log,  # type: ignore[arg-type]
        viewer="anonymous",
        generation_id=GENERATION,
    )
