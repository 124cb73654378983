"""Long polls on a hub with a fake log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.dialects.native.long_poll import long_poll, parse_wait
from shared.errors import RequestError
from shared.log.event_bytes import LOST
from shared.log.ids import START, EventId
from tests.support.hub_harness import END, GENERATION, Client, HubHarness, settle


@pytest.fixture
async def hub_harness() -> AsyncIterator[HubHarness]:
    async with HubHarness() as hub_harness:
        yield hub_harness


async def poll(
    hub_harness: HubHarness, cursor: EventId = START, wait_s: float = 0, **more: Any
) -> Any:
    meta = hub_harness.log.known[GENERATION]
    return json.loads(await long_poll(hub_harness.hub, meta, cursor, wait_s, **more))


async def test_events_that_exist_are_returned_at_once(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a", "b")
    assert await poll(hub_harness, wait_s=60) == {
        "events": [
            {"id": "1-1", "type": "token", "text": "a"},
            {"id": "1-2", "type": "token", "text": "b"},
        ],
        "last_event_id": "1-2",
        "done": False,
    }


async def test_without_new_events_the_reply_is_empty_and_keeps_the_cursor(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    assert await poll(hub_harness, EventId(1, 1)) == {
        "events": [], "last_event_id": "1-1", "done": False,
    }  # fmt: skip


async def test_a_poll_waits_for_the_next_event(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    polling = asyncio.create_task(poll(hub_harness, wait_s=60))
    await settle()
    assert hub_harness.hub.statistics().connections == {"long_poll": 1}
    hub_harness.log.tokens("a")
    assert (await polling)["last_event_id"] == "1-1"
    assert hub_harness.hub.statistics().connections == {}


async def test_done_is_true_with_the_end_and_after_the_end(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    hub_harness.log.append(END)
    first = await poll(hub_harness)
    assert ([e["type"] for e in first["events"]], first["done"]) == (["token", "end"], True)
    assert await poll(hub_harness, EventId(1, 2), 60) == {
        "events": [], "last_event_id": "1-2", "done": True,
    }  # fmt: skip


async def test_a_reply_is_bounded_and_the_next_poll_continues_after_it(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens(*("x" * 400_000 for _ in range(4)))
    hub_harness.log.append(END)
    cursor, sizes, done = START, [], False
    while not done:
        reply = await poll(hub_harness, cursor)
        sizes.append(len(reply["events"]))
        cursor = EventId(*map(int, reply["last_event_id"].split("-")))
        done = reply["done"]
    assert sizes == [2, 3]


async def test_a_cursor_that_never_existed_gets_a_reset_and_the_whole_log(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    polling = asyncio.create_task(poll(hub_harness, EventId(4, 4), 60))
    await settle()
    await hub_harness.pass_time(2.5)
    reply = await polling
    assert [e["id"] for e in reply["events"]] == ["0-0", "1-1"]
    assert reply["last_event_id"] == "1-1"


async def test_a_lost_generation_is_reported_and_done(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    polling = asyncio.create_task(poll(hub_harness, wait_s=60))
    await settle()
    hub_harness.log.lose()
    await hub_harness.pass_time(13)
    reply = await polling
    assert [e["error"]["code"] for e in reply["events"]] == ["lost"]
    assert reply["done"]


async def test_a_poll_that_needs_trimmed_entries_of_a_lost_generation_is_done(
    hub_harness: HubHarness,
) -> None:
    meta = hub_harness.log.create()
    hub_harness.log.tokens("a", "b", "c")
    async with hub_harness.hub.reading(meta) as relay:
        await relay.wait_settled()
        relay.trim()
        hub_harness.log.lose()
        polling = asyncio.create_task(
            long_poll(hub_harness.hub, meta, START, 60)  # no entry of the log is left
        )
        await settle()
        relay.end_unlogged(LOST)
        await settle()
        assert polling.done()
        reply = json.loads(await polling)

    assert [event["error"]["code"] for event in reply["events"]] == ["lost"]
    assert reply["done"]


async def test_a_drain_answers_waiting_polls(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    polling = asyncio.create_task(poll(hub_harness, wait_s=60))
    await settle()
    await hub_harness.hub.drain(0)
    assert await polling == {"events": [], "last_event_id": "0-0", "done": False}


async def test_a_client_that_disconnects_releases_the_relay(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    client = Client()
    polling = asyncio.create_task(poll(hub_harness, wait_s=60, receive=client.receive))
    await settle()
    client.leave()
    await polling
    assert hub_harness.hub.relays[GENERATION].holds == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("60", 60), ("1.5", 1.5), ("13.19887195625255", 13.19887195625255), ("1e-7", 1e-7)],
)
def test_wait_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_wait(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "61", "nan", "inf", "1e9", "1e", "1_0", "٣", "0x1", "1,5", " 3", "+1"]
)
def test_a_wait_that_is_not_a_number_from_0_to_60_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_wait(text)
    assert (caught.value.status, caught.value.code) == (400, "wait_invalid")
