"""What readers get while the log is written: live events, gaps, and lost frames."""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import replace

from shared.log.events import Start
from shared.log.ids import START
from tests.support.hub_harness import END, GENERATION, OF_EVERY_NODE, HubHarness, settle
from tests.unit.api.hub.reading import read, stop

# The bytes


async def test_a_live_answer_arrives_event_by_event_and_finishes_after_its_end(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness)
    assert reading.client.status == 200
    assert reading.client.body == b""

    hub_harness.log.append(Start(attempt=1, model="demo"))
    hub_harness.log.tokens("Hel", "lo")
    await settle()
    assert reading.ids == ["1-1", "1-2", "1-3"]
    assert not reading.client.is_finished

    hub_harness.log.append(END)
    await reading.task
    assert reading.frames[-1] == ("1-4", "end")
    assert reading.client.is_finished
    assert hub_harness.live.channels == OF_EVERY_NODE


async def test_every_byte_of_the_sse_form(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness)
    hub_harness.log.tokens(' "Hé"\n')
    hub_harness.log.append(END)
    await reading.task

    body = re.sub(rb"^retry: \d+\n", b"", reading.client.body)
    assert (
        body
        == (
            'id: 1-1\nevent: token\ndata: {"text":" \\"Hé\\"\\n"}\n\n'
            'id: 1-2\nevent: end\ndata: {"status":"completed","finish_reason":"stop"}\n\n'
        ).encode()
    )
    assert reading.client.headers == {
        b"content-type": b"text/event-stream; charset=utf-8",
        b"cache-control": b"no-store, no-transform",
        b"x-accel-buffering": b"no",
        b"x-heartbeat-s": b"15",
    }


async def test_readers_that_join_at_any_time_and_cursor_get_the_same_bytes(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    first = await read(hub_harness)
    readings = [await read(hub_harness)]
    ids = [START]
    for n in range(30):
        ids += hub_harness.log.tokens(*(f"{n}.{k} " for k in range(n % 3 + 1)))
        readings.append(await read(hub_harness))
        readings.append(await read(hub_harness, random.choice(ids)))
    hub_harness.log.append(END)
    await asyncio.gather(first.task, *(reading.task for reading in readings))

    whole = first.client.body.partition(b"\n")[2]
    for reading in readings:
        body = reading.client.body.partition(b"\n")[2]
        assert whole.endswith(body)
        assert reading.ids == first.ids[-len(reading.ids) :]
    assert readings[0].client.body.partition(b"\n")[2] == whole


async def test_two_nodes_write_the_same_bytes(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    live = await read(hub_harness, transport="ndjson")
    hub_harness.log.append(Start(attempt=1, model="demo"))
    hub_harness.log.tokens("a", "b")
    hub_harness.log.append(END)
    await live.task
    async with HubHarness() as other:
        other.log.logs, other.log.known = hub_harness.log.logs, hub_harness.log.known
        late = await read(other, transport="ndjson")
        await late.task

    assert late.client.body == live.client.body
    assert [json.loads(line)["id"] for line in late.client.body.splitlines()] == [
        "1-1", "1-2", "1-3", "1-4",
    ]  # fmt: skip


async def test_a_head_request_gets_the_headers_and_no_body(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness, method="HEAD")
    await reading.task
    assert (reading.client.status, reading.client.body) == (200, b"")
    assert reading.client.is_finished


async def test_a_relay_keeps_and_counts_a_request_that_was_read_once(
    hub_harness: HubHarness,
) -> None:
    """A dialect that returns the request may begin its fold after a reader that read no request."""
    whole = hub_harness.log.create(request=b"x" * 1_000)
    async with hub_harness.hub.reading(whole) as relay:
        before = relay.bytes_kept
        async with hub_harness.hub.reading(replace(whole, request=b"", attempt=7)):
            assert (relay.meta.request, relay.meta.attempt) == (whole.request, 7)
        assert relay.bytes_kept == before >= 1_000


# What was missed


async def test_an_event_that_is_published_during_the_first_read_is_not_lost(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    hub_harness.log.pages_held = asyncio.Event()
    reading = await read(hub_harness)
    hub_harness.log.tokens("b")  # arrives live while the page is on its way
    await settle()
    hub_harness.log.pages_held.set()
    await settle()

    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)


async def test_a_gap_is_read_from_the_log_once_for_all_readers(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    readings = [await read(hub_harness) for _ in range(20)]
    hub_harness.log.tokens("a")
    await settle()
    pages = hub_harness.log.count("page")
    hub_harness.log.is_deaf = True
    hub_harness.log.tokens("lost")
    hub_harness.log.is_deaf = False
    hub_harness.log.tokens("c")
    await settle()

    assert all(reading.ids == ["1-1", "1-2", "1-3"] for reading in readings)
    assert hub_harness.log.count("page") == pages + 1
    assert hub_harness.hub.statistics().repairs >= 1
    for reading in readings:
        await stop(reading)


async def test_a_lost_last_frame_is_found_within_two_seconds(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness)
    hub_harness.log.is_deaf = True
    hub_harness.log.append(END)
    await settle()
    assert reading.ids == []

    await hub_harness.pass_time(2.0)
    assert reading.ids == ["1-1"]
    assert reading.task.done()


async def test_the_tops_of_all_silent_logs_are_read_in_one_call(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.create("gen_other00000")
    reading = await read(hub_harness)
    async with hub_harness.hub.reading(hub_harness.log.known["gen_other00000"]):
        await hub_harness.pass_time(1.25)
        calls = [what for name, what in hub_harness.log.calls if name == "tops"]

    assert sorted(calls[-1].split(",")) == [GENERATION, "gen_other00000"]
    await stop(reading)


async def test_a_reconnect_reads_the_missed_events_from_the_log(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness)
    hub_harness.log.tokens("a")
    hub_harness.live.lose()
    hub_harness.log.tokens("b")
    hub_harness.live.reconnect()
    await settle()

    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)


async def test_a_log_is_read_when_its_subscription_is_never_confirmed(
    hub_harness: HubHarness,
) -> None:
    hub_harness.live.confirms = False
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    reading = await read(hub_harness)
    assert reading.ids == []

    await hub_harness.pass_time(2.5)
    hub_harness.log.is_deaf = True
    hub_harness.log.tokens("b")
    await hub_harness.pass_time(2.5)
    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)
