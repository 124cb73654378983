"""What readers get while the log is written: live events, gaps, and lost frames."""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import replace

from shared.log.events import Start
from shared.log.ids import START
from tests.support.bench import END, GENERATION, Bench, settle
from tests.unit.api.hub.reading import read, stop

# The bytes


async def test_a_live_answer_arrives_event_by_event_and_finishes_after_its_end(
    bench: Bench,
) -> None:
    bench.log.create()
    reading = await read(bench)
    assert reading.client.status == 200
    assert reading.client.body == b""

    bench.log.append(Start(attempt=1, model="demo"))
    bench.log.tokens("Hel", "lo")
    await settle()
    assert reading.ids == ["1-1", "1-2", "1-3"]
    assert not reading.client.is_finished

    bench.log.append(END)
    await reading.task
    assert reading.frames[-1] == ("1-4", "end")
    assert reading.client.is_finished
    assert bench.live.channels == {b"tr:probe:n1"}


async def test_every_byte_of_the_sse_form(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    bench.log.tokens(' "Hé"\n')
    bench.log.append(END)
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


async def test_readers_that_join_at_any_time_and_cursor_get_the_same_bytes(bench: Bench) -> None:
    bench.log.create()
    first = await read(bench)
    readings = [await read(bench)]
    ids = [START]
    for n in range(30):
        ids += bench.log.tokens(*(f"{n}.{k} " for k in range(n % 3 + 1)))
        readings.append(await read(bench))
        readings.append(await read(bench, random.choice(ids)))
    bench.log.append(END)
    await asyncio.gather(first.task, *(reading.task for reading in readings))

    whole = first.client.body.partition(b"\n")[2]
    for reading in readings:
        body = reading.client.body.partition(b"\n")[2]
        assert whole.endswith(body)
        assert reading.ids == first.ids[-len(reading.ids) :]
    assert readings[0].client.body.partition(b"\n")[2] == whole


async def test_two_nodes_write_the_same_bytes(bench: Bench) -> None:
    bench.log.create()
    live = await read(bench, transport="ndjson")
    bench.log.append(Start(attempt=1, model="demo"))
    bench.log.tokens("a", "b")
    bench.log.append(END)
    await live.task
    async with Bench() as other:
        other.log.logs, other.log.known = bench.log.logs, bench.log.known
        late = await read(other, transport="ndjson")
        await late.task

    assert late.client.body == live.client.body
    assert [json.loads(line)["id"] for line in late.client.body.splitlines()] == [
        "1-1", "1-2", "1-3", "1-4",
    ]  # fmt: skip


async def test_a_head_request_gets_the_headers_and_no_body(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench, method="HEAD")
    await reading.task
    assert (reading.client.status, reading.client.body) == (200, b"")
    assert reading.client.is_finished


async def test_a_relay_keeps_and_counts_a_request_that_was_read_once(bench: Bench) -> None:
    """A dialect that returns the request may begin its fold after a reader that read no request."""
    whole = bench.log.create(request=b"x" * 1_000)
    async with bench.hub.reading(whole) as relay:
        before = relay.bytes_kept
        async with bench.hub.reading(replace(whole, request=b"", attempt=7)):
            assert (relay.meta.request, relay.meta.attempt) == (whole.request, 7)
        assert relay.bytes_kept == before >= 1_000


# What was missed


async def test_an_event_that_is_published_during_the_first_read_is_not_lost(bench: Bench) -> None:
    bench.log.create()
    bench.log.tokens("a")
    bench.log.pages_held = asyncio.Event()
    reading = await read(bench)
    bench.log.tokens("b")  # arrives live while the page is on its way
    await settle()
    bench.log.pages_held.set()
    await settle()

    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)


async def test_a_gap_is_read_from_the_log_once_for_all_readers(bench: Bench) -> None:
    bench.log.create()
    readings = [await read(bench) for _ in range(20)]
    bench.log.tokens("a")
    await settle()
    pages = bench.log.count("page")
    bench.log.is_deaf = True
    bench.log.tokens("lost")
    bench.log.is_deaf = False
    bench.log.tokens("c")
    await settle()

    assert all(reading.ids == ["1-1", "1-2", "1-3"] for reading in readings)
    assert bench.log.count("page") == pages + 1
    assert bench.hub.statistics().repairs >= 1
    for reading in readings:
        await stop(reading)


async def test_a_lost_last_frame_is_found_within_two_seconds(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    bench.log.is_deaf = True
    bench.log.append(END)
    await settle()
    assert reading.ids == []

    await bench.pass_time(2.0)
    assert reading.ids == ["1-1"]
    assert reading.task.done()


async def test_the_tops_of_all_silent_logs_are_read_in_one_call(bench: Bench) -> None:
    bench.log.create()
    bench.log.create("gen_other00000")
    reading = await read(bench)
    async with bench.hub.reading(bench.log.known["gen_other00000"]):
        await bench.pass_time(1.25)
        calls = [what for name, what in bench.log.calls if name == "tops"]

    assert sorted(calls[-1].split(",")) == [GENERATION, "gen_other00000"]
    await stop(reading)


async def test_a_reconnect_reads_the_missed_events_from_the_log(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    bench.log.tokens("a")
    bench.live.lose()
    bench.log.tokens("b")
    bench.live.reconnect()
    await settle()

    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)


async def test_a_log_is_read_when_its_subscription_is_never_confirmed(bench: Bench) -> None:
    bench.live.confirms = False
    bench.log.create()
    bench.log.tokens("a")
    reading = await read(bench)
    assert reading.ids == []

    await bench.pass_time(2.5)
    bench.log.is_deaf = True
    bench.log.tokens("b")
    await bench.pass_time(2.5)
    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)
