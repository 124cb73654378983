"""A stream in a dialect: its opening, its end, and events that the dialect cannot express."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.hub.relay import Relay
from api.readers.chunk_number import locate
from api.readers.http_stream import Beginning, stream
from shared.log.events import Progress, Reset, Start
from shared.log.fold import Dialect
from tests.support.hub_harness import END, GENERATION, Client, HubHarness, make_scope, settle
from tests.support.numbered_dialect import DONE, RESET_WORDS, TOY, NumberedFold
from tests.unit.api.hub.reading import Wire

OPENING = NumberedFold.opening(NumberedFold(None))  # type: ignore[arg-type]


class Reading:
    """One reader of the numbered dialect."""

    def __init__(self, hub_harness: HubHarness, *, dialect: Dialect = TOY, **more: Any) -> None:
        self.client = Client()
        self.wire = more.pop("wire", None)
        scope = make_scope(self.client)
        if self.wire is not None:
            scope["extensions"]["tailrace.wire"] = self.wire
        self.task = asyncio.ensure_future(
            stream(
                hub_harness.hub, scope, self.client.receive, self.client.send,  # type: ignore[arg-type]
                meta=hub_harness.log.known[GENERATION], dialect=dialect, **more,
            )
        )  # fmt: skip

    async def ended(self) -> bytes:
        async with asyncio.timeout(5):
            await self.task
        return self.client.body

    @property
    def body(self) -> bytes:
        return self.client.body


@pytest.fixture
async def hub_harness() -> AsyncIterator[HubHarness]:
    async with HubHarness() as hub_harness:
        hub_harness.log.create()
        yield hub_harness


async def test_the_opening_leaves_before_the_first_entry(hub_harness: HubHarness) -> None:
    reading = Reading(hub_harness, headers=[(b"x-generation-id", b"g")])
    await settle()
    assert reading.body == OPENING
    assert reading.client.headers[b"x-generation-id"] == b"g"
    hub_harness.log.append(END)

    assert await reading.ended() == OPENING + b'data: {"n":2,"at":"1-1","part":0}\n\n' + DONE
    assert reading.client.is_finished


async def test_a_dialect_may_end_before_its_log(hub_harness: HubHarness) -> None:
    reading = Reading(hub_harness)
    await settle()
    hub_harness.log.append(Start(1, "demo"), Reset("takeover"))
    hub_harness.log.tokens("and", "on")
    body = await reading.ended()

    assert body.endswith(b'{"n":4,"at":"1-2","part":0}\n\n' + DONE)
    assert reading.client.is_finished
    # A reader that joins later, before or after the log's end, gets the same bytes.
    assert await Reading(hub_harness).ended() == body
    hub_harness.log.append(END)
    assert await Reading(hub_harness).ended() == body


@pytest.mark.parametrize("is_last_entry", [True, False])
async def test_readers_in_a_row_are_finished_when_the_dialect_ends(
    hub_harness: HubHarness, is_last_entry: bool
) -> None:
    wires = [Wire() for _ in range(3)]
    readings = [Reading(hub_harness, wire=wire) for wire in wires]
    hub_harness.log.append(Start(1, "demo"))
    await settle()
    hub_harness.log.append(Progress("silent", 1, 2, 50.0))
    await settle()
    if is_last_entry:
        hub_harness.log.append(Reset("takeover"))
    else:
        hub_harness.log.append(Reset("takeover"), Start(2, "demo"))
    for reading, wire in zip(readings, wires, strict=True):
        await reading.ended()

        assert reading.client.is_finished
        chunks = b"".join(wire.got)
        assert chunks.endswith(b'{"n":4,"at":"1-3","part":0}\n\n' + DONE + b"\r\n")
        assert b"0\r\n\r\n" not in chunks  # an empty chunk would end the body
        assert b"" not in wire.got


@pytest.mark.parametrize("has_wire", [True, False])
async def test_a_dialect_that_cannot_restart_finishes_after_a_reset(
    hub_harness: HubHarness, has_wire: bool
) -> None:
    hub_harness.log.append(Start(1, "demo"))
    hub_harness.log.tokens("a", "b")
    wire = Wire() if has_wire else None
    reading = Reading(hub_harness, wire=wire)
    await settle()
    hub_harness.log.roll_back(1)
    hub_harness.log.append(Start(2, "demo"))
    hub_harness.log.tokens("B", "c")
    body = await reading.ended() + (b"".join(wire.got) if wire else b"")

    assert RESET_WORDS in body
    assert not body.partition(RESET_WORDS)[2].strip(b"\r\n")
    assert reading.client.is_finished
    assert hub_harness.hub.counters.resets == 1


async def test_last_words_wait_while_the_socket_takes_nothing(hub_harness: HubHarness) -> None:
    hub_harness.log.append(Start(1, "demo"))
    reading = Reading(hub_harness)
    await settle()
    reading.client.block()
    relay = hub_harness.hub.relays[GENERATION]
    relay.end_unlogged(b'{"type":"end","status":"failed","finish_reason":"error"}')
    await settle()
    assert not reading.task.done()
    reading.client.unblock()

    body = await reading.ended()
    assert body.endswith(DONE) and body.count(DONE) == 1
    assert reading.client.is_finished


async def test_an_event_without_bytes_in_the_dialect_breaks_off(hub_harness: HubHarness) -> None:
    class Mute(NumberedFold):
        def aside(self, raw: bytes) -> bytes:
            return None  # type: ignore[return-value]

    reading = Reading(hub_harness, dialect=Dialect("mute", Mute))
    await settle()
    hub_harness.hub.relays[GENERATION].end_unlogged(b'{"type":"end"}')
    await reading.ended()

    assert reading.client.was_aborted
    assert not reading.client.is_finished


async def test_an_empty_aside_writes_no_chunk_and_the_body_is_finished(
    hub_harness: HubHarness,
) -> None:
    """An empty chunk would end the body, and the server would end it a second time."""

    class Silent(NumberedFold):
        def aside(self, raw: bytes) -> bytes:
            return b""

    wire = Wire()
    reading = Reading(hub_harness, dialect=Dialect("silent", Silent), wire=wire)
    await settle()
    hub_harness.hub.relays[GENERATION].end_unlogged(b'{"type":"end"}')
    await reading.ended()

    assert wire.got == []
    assert reading.client.is_finished


async def test_a_stream_may_begin_at_a_chunk_number(hub_harness: HubHarness) -> None:
    hub_harness.log.append(Start(1, "demo"))

    async def begin(relay: Relay) -> Beginning:
        place = await locate(hub_harness.hub, relay, TOY, 3)
        return Beginning(place.cursor, head=place.head, headers=[(b"x-tail", b"3")])

    reading = Reading(hub_harness, begin=begin)
    await settle()
    hub_harness.log.tokens("a")
    hub_harness.log.append(END)

    assert await reading.ended() == b"".join(
        [
            b'data: {"n":3,"at":"1-1","part":1}\n\n',
            b'data: {"n":4,"at":"1-2","part":0}\n\n',
            b'data: {"n":5,"at":"1-3","part":0}\n\n',
            DONE,
        ]
    )
    assert reading.client.headers[b"x-tail"] == b"3"


async def test_the_metrics_label_is_the_dialects_name(hub_harness: HubHarness) -> None:
    reading = Reading(hub_harness)
    await settle()
    assert hub_harness.hub.statistics().connections == {"toy": 1}
    reading.client.leave()
    await reading.ended()
    assert hub_harness.hub.statistics().connections == {}
