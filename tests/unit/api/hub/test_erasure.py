"""Deleted generations: every node drops its copy at once, and readers get an end."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from shared.errors import NotFound
from shared.log.events import Start
from shared.log.ids import START, EventId
from tests.support.hub_harness import END, GENERATION, Client, HubHarness, settle
from tests.unit.api.hub.reading import read

SECRET = "a word that must be gone"


async def test_a_notice_drops_an_idle_copy(hub_harness: HubHarness) -> None:
    hub_harness.log.create(request=SECRET.encode())
    hub_harness.log.tokens(SECRET)
    hub_harness.log.append(END)
    reading = await read(hub_harness)
    await reading.task
    relay = hub_harness.hub.relays[GENERATION]

    hub_harness.log.delete()

    assert hub_harness.hub.relays == {}
    assert relay.feed.raws == [] and relay.meta.request == b""
    assert holds_of(relay) == []


@pytest.mark.parametrize("cursor", [START, EventId(1, 2)], ids=["from-the-start", "from-a-cursor"])
@pytest.mark.parametrize("transport", ["sse", "ndjson"])
async def test_readers_of_a_running_answer_get_an_end(
    hub_harness: HubHarness, transport: str, cursor: EventId
) -> None:
    hub_harness.log.create()
    hub_harness.log.append(Start(attempt=1, model="demo"))
    hub_harness.log.tokens("a", "b")
    reading = await read(hub_harness, cursor, transport=transport)

    hub_harness.log.delete()
    await reading.task

    assert reading.client.is_finished
    last = reading.client.body.splitlines()[-1 if transport == "ndjson" else -2]
    assert b'"code":"deleted"' in last and b'"status":"cancelled"' in last
    assert reading.client.body.count(b'"deleted"') == 1


async def test_a_reader_that_is_behind_gets_no_more_text(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.append(Start(attempt=1, model="demo"))
    hub_harness.log.append(END)
    await (await read(hub_harness)).task
    client = Client()
    client.on_send = lambda message: client.block()  # takes the head, and then nothing
    behind = await read(hub_harness, client=client)

    hub_harness.log.delete()
    client.unblock()
    await settle()

    assert not behind.client.is_finished and behind.client.was_aborted
    assert b"completed" not in behind.client.body


async def test_a_notice_that_was_missed_is_made_up_for_by_the_next_connection(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.append(END)
    await (await read(hub_harness)).task
    hub_harness.live.lose()
    hub_harness.log.delete()
    assert GENERATION in hub_harness.hub.relays

    hub_harness.live.reconnect()
    await settle()

    assert hub_harness.hub.relays == {}


async def test_a_lost_generation_is_not_taken_for_a_deleted_one(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.append(END)
    await (await read(hub_harness)).task
    hub_harness.log.known[GENERATION] = hub_harness.log.create(status="sealed")
    hub_harness.live.lose()
    hub_harness.live.reconnect()
    await settle()

    assert GENERATION in hub_harness.hub.relays


async def test_the_recheck_finds_a_deletion_whose_notice_was_lost(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    reading = await read(hub_harness)
    hub_harness.log.delete(is_told=False)

    await hub_harness.pass_time(3)
    await reading.task

    assert b'"code":"deleted"' in reading.client.body
    assert b'"lost"' not in reading.client.body


async def test_a_page_that_arrives_after_the_deletion_is_not_kept(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens(SECRET)
    hub_harness.log.pages_held = asyncio.Event()
    reading = await read(hub_harness)
    relay = hub_harness.hub.relays[GENERATION]

    hub_harness.log.delete()
    hub_harness.log.pages_held.set()
    await reading.task

    assert relay.feed.raws == []
    assert SECRET.encode() not in reading.client.body


async def test_a_deleted_generation_is_not_found_again(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.append(END)
    await (await read(hub_harness)).task
    hub_harness.log.delete()

    hub_harness.log.is_away = True
    assert hub_harness.hub.find_held_meta(GENERATION) is None
    hub_harness.log.is_away = False
    with pytest.raises(NotFound):
        await hub_harness.hub.hold(hub_harness.log.known[GENERATION])


def holds_of(relay: Any) -> list[str]:
    """Return the names of attributes of the relay and its logs that still hold the text."""
    gc.collect()
    found = []
    for log in relay._encoded._logs.values():
        for name in log.__slots__:
            value = getattr(log, name)
            if isinstance(value, bytes | bytearray) and SECRET.encode() in value:
                found.append(name)
    return found
