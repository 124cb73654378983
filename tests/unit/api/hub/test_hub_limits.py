"""Limits: slow readers, heartbeats, the age of connections, idle copies, memory."""

from __future__ import annotations

import asyncio
import re

import pytest

from shared.log.ids import EventId
from tests.support.hub_harness import END, GENERATION, OF_EVERY_NODE, HubHarness, settle
from tests.unit.api.hub.reading import read, stop

# Slow readers


async def test_a_blocked_reader_delays_no_other_reader_and_catches_up(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    slow, fast = await read(hub_harness), await read(hub_harness)
    slow.client.block()
    for n in range(100):
        hub_harness.log.tokens(f"{n} ")
        await settle(3)
    assert len(fast.ids) == 100
    assert slow.ids == []

    slow.client.unblock()
    await settle()
    assert slow.ids == fast.ids
    assert len(slow.client.messages) < 6  # it catches up in one slice, not token by token
    await stop(slow)
    await stop(fast)


async def test_a_reader_that_takes_nothing_is_cut_above_the_byte_limit(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    slow, other = await read(hub_harness), await read(hub_harness)
    slow.client.block()
    hub_harness.log.tokens("x" * 700_000)
    await hub_harness.pass_time(3)
    assert not slow.task.done()  # its backlog is below the limit

    hub_harness.log.tokens("x" * 700_000)
    await hub_harness.pass_time(0.5)
    assert slow.client.was_aborted
    await slow.task
    assert not slow.client.is_finished
    assert hub_harness.hub.statistics().cuts == 1
    assert len(other.ids) == 2
    await stop(other)


async def test_a_reader_whose_buffer_shrinks_is_not_cut(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness)
    reading.client.buffer_bytes = 3_000_000
    reading.client.block()
    hub_harness.log.tokens("x")
    await settle()
    for _ in range(40):
        reading.client.buffer_bytes -= 1_000
        await hub_harness.pass_time(0.5)
    assert not reading.task.done()

    await hub_harness.pass_time(1.5)
    await reading.task
    assert reading.client.was_aborted


async def test_a_reader_that_takes_nothing_for_a_minute_is_cut(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness)
    reading.client.block()
    hub_harness.log.tokens("x")
    await hub_harness.pass_time(59)
    assert not reading.task.done()
    await hub_harness.pass_time(2)
    await reading.task
    assert reading.client.was_aborted


async def test_without_a_transport_a_break_off_raises_an_error_to_the_server(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness, with_transport=False)
    await hub_harness.hub.drain(0)
    with pytest.raises(ConnectionAbortedError):
        await reading.task
    assert not reading.client.is_finished


async def test_a_send_that_raises_ends_only_its_own_reader(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    bad, good = await read(hub_harness), await read(hub_harness)

    def refuse(_: object) -> None:
        raise OSError("gone")

    bad.client.on_send = refuse
    hub_harness.log.tokens("a")
    await settle()
    assert good.ids == ["1-1"]
    assert bad.task.done()
    await stop(good)


async def test_a_reader_that_leaves_is_removed_from_the_hub(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness)
    assert hub_harness.hub.statistics().connections == {"sse": 1}
    await stop(reading)
    assert hub_harness.hub.statistics().connections == {}
    assert not hub_harness.hub.relays[GENERATION].readers


# Time


async def test_heartbeats_are_sent_only_after_fifteen_seconds_of_silence(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness)
    await hub_harness.pass_time(14)
    assert reading.client.body == b""
    hub_harness.log.tokens("a")
    await hub_harness.pass_time(14)
    assert b": ping\n" not in reading.client.body
    await hub_harness.pass_time(2)
    assert reading.client.body.endswith(b"\n\n: ping\n")
    await hub_harness.pass_time(15)
    assert reading.client.body.endswith(b": ping\n: ping\n")
    await stop(reading)


async def test_the_ndjson_heartbeat_is_an_empty_line(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness, transport="ndjson")
    await hub_harness.pass_time(15.5)
    assert reading.client.body == b"\n"
    await stop(reading)


async def test_each_connection_is_rotated_at_a_random_age_of_its_own() -> None:
    """Connections that opened together, after a deploy for example, close at different times."""
    async with HubHarness(connection_age_s=1_000.0, heartbeat_s=2.0) as hub_harness:
        hub_harness.log.create()
        readings = [await read(hub_harness) for _ in range(40)]
        began, left = hub_harness.clock.s, list[float]()
        while len(left) < len(readings) and hub_harness.clock.s < began + 1_100:
            await hub_harness.pass_time(2, step_s=2)
            gone = [reading for reading in readings if reading.client.was_aborted]
            left += [hub_harness.clock.s - began] * (len(gone) - len(left))

        assert len(left) == len(readings)
        assert 800 <= left[0] and left[-1] <= 1_004
        assert left[-1] - left[0] > 100, "forty connections close over up to two hundred seconds"
        assert hub_harness.hub.statistics().rotations == 40
        assert not any(reading.client.is_finished for reading in readings)
        for reading in readings:
            await stop(reading)


async def test_an_idle_copy_is_kept_for_a_quick_resume_and_then_closed(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    await stop(await read(hub_harness))
    pages = hub_harness.log.count("page")
    await hub_harness.pass_time(8)
    again = await read(hub_harness, EventId(1, 1))
    hub_harness.log.tokens("b")
    await settle()
    assert again.ids == ["1-2"]
    assert hub_harness.log.count("page") == pages
    await stop(again)

    await hub_harness.pass_time(12)
    assert hub_harness.hub.relays == {}
    assert hub_harness.live.channels == OF_EVERY_NODE


# Memory


async def test_idle_ended_copies_are_closed_above_the_memory_limit() -> None:
    async with HubHarness(hub_bytes_max=50_000) as hub_harness:
        for n in range(5):
            name = f"gen_00000000{n}"
            meta = hub_harness.log.create(name)
            hub_harness.log.tokens("x" * 20_000, generation_id=name)
            hub_harness.log.append(END, generation_id=name)
            meta = hub_harness.log.known[name]
            async with hub_harness.hub.reading(meta):
                pass
            hub_harness.clock.s += 1
        await hub_harness.pass_time(1.25)

        assert list(hub_harness.hub.relays) == ["gen_000000003", "gen_000000004"]
        assert hub_harness.hub.statistics().bytes_kept <= 50_000


@pytest.mark.parametrize("transport", ["sse", "ndjson"])
async def test_events_that_all_readers_have_are_trimmed_and_read_again_on_demand(
    transport: str,
) -> None:
    async with HubHarness(hub_bytes_max=20_000) as hub_harness:
        hub_harness.log.create()
        first = await read(hub_harness, transport=transport)
        for n in range(100):
            hub_harness.log.tokens(f"{n} " + "x" * 400)
        await settle()
        await hub_harness.pass_time(1.25)
        assert hub_harness.hub.statistics().bytes_kept < 20_000
        hub_harness.log.tokens("tip")
        await settle()

        pages = hub_harness.log.count("page")
        late = [await read(hub_harness, transport=transport) for _ in range(10)]
        await settle(200)
        assert hub_harness.log.count("page") - pages < 10  # read once for all
        hub_harness.log.append(END)
        await asyncio.gather(first.task, *(reading.task for reading in late))

        bodies = {re.sub(rb"^retry: \d+\n", b"", r.client.body) for r in [first, *late]}
        assert len(bodies) == 1
        assert first.client.body.count(b"xxx") > 100
