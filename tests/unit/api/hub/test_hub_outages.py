"""Redis away, the drain, the probe of the live connection, and the grace."""

from __future__ import annotations

import asyncio
import re

import pytest

from api.dialects.native.events import stream_events
from shared.errors import RequestError, Unavailable
from shared.log.ids import START
from tests.support.hub_harness import END, GENERATION, Client, HubHarness, make_scope, settle
from tests.unit.api.hub.reading import get, parse_sse, read, stop

# Redis away


async def test_while_redis_is_away_readers_stay_and_new_readers_join_a_copy_of_this_node(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    reading = await read(hub_harness)
    hub_harness.log.is_away = True
    late = Client()
    task = asyncio.create_task(get(hub_harness, late))
    await hub_harness.pass_time(16)
    assert parse_sse(late.body) == [("1-1", "token")]
    assert late.body.endswith(b": ping\n")

    hub_harness.log.is_away = False
    hub_harness.log.append(END)
    await task
    await reading.task
    assert reading.ids == ["1-1", "1-2"]


async def test_while_redis_is_away_a_copy_whose_end_came_live_is_served_whole(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    reading = await read(hub_harness)
    hub_harness.log.append(END)
    await reading.task
    hub_harness.log.is_away = True
    await hub_harness.pass_time(8)

    late = Client()
    async with asyncio.timeout(5):
        await get(hub_harness, late)
    assert parse_sse(late.body) == reading.frames


async def test_while_redis_is_away_a_log_without_a_copy_is_answered_503(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.is_away = True
    with pytest.raises(RequestError) as caught:
        await get(hub_harness, Client())
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)


@pytest.mark.parametrize("trouble", ["away", "draining"])
async def test_a_reconnecting_event_source_gets_200_with_a_retry_time_and_is_broken_off(
    hub_harness: HubHarness, trouble: str
) -> None:
    hub_harness.log.create()
    hub_harness.log.is_away = trouble == "away"
    hub_harness.hub.is_draining = trouble == "draining"
    client = Client()
    await get(hub_harness, client, headers={"Last-Event-ID": "1-4", "Accept": "text/event-stream"})

    assert client.status == 200
    assert re.fullmatch(rb"retry: \d+\n\n", client.body)
    assert client.was_aborted
    assert not client.is_finished


async def test_while_redis_is_away_the_connection_counts_as_not_live_and_is_kept(
    hub_harness: HubHarness,
) -> None:
    await hub_harness.pass_time(0.5)
    hub_harness.log.is_away = True
    await hub_harness.pass_time(8)
    assert not hub_harness.hub.is_live
    assert hub_harness.live.drops == 0


async def test_while_redis_is_away_a_generation_with_a_grace_takes_no_first_reader(
    hub_harness: HubHarness,
) -> None:
    meta = hub_harness.log.create(grace_s=5.0)
    hub_harness.log.is_away = True
    with pytest.raises(Unavailable):
        async with hub_harness.hub.reading(meta):
            pass


# The drain


async def test_a_drain_breaks_all_readers_off_and_takes_no_further_readers(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    readings = [await read(hub_harness) for _ in range(5)]
    await hub_harness.hub.drain(0.01)

    for reading in readings:
        await reading.task
        assert reading.client.was_aborted
        assert not reading.client.is_finished
    with pytest.raises(RequestError) as caught:
        await get(hub_harness, Client())
    assert caught.value.code == "draining"


async def test_a_drained_node_reports_that_its_readers_have_left(hub_harness: HubHarness) -> None:
    hub_harness.log.create(grace_s=5.0)
    reading = await read(hub_harness)
    await hub_harness.hub.drain(0)
    await reading.task
    await settle()
    assert hub_harness.log.count("detach") == 1


# The probe


async def test_a_node_is_live_after_it_has_received_its_probe(hub_harness: HubHarness) -> None:
    hub_harness.live.lose()
    hub_harness.log.is_deaf = True
    hub_harness.live.reconnect()
    await settle()
    assert not hub_harness.hub.is_live

    hub_harness.live.lose()
    hub_harness.log.is_deaf = False
    hub_harness.live.reconnect()
    await settle()
    assert hub_harness.hub.is_live, "the probe is sent at once, and not at the next tick"


async def test_a_connection_that_loses_its_probe_is_dropped(hub_harness: HubHarness) -> None:
    await hub_harness.pass_time(0.5)
    hub_harness.log.is_deaf = True
    await hub_harness.pass_time(8)
    assert not hub_harness.hub.is_live
    assert hub_harness.live.drops == 1
    assert hub_harness.hub.statistics().probes_lost == 1

    hub_harness.log.is_deaf = False
    hub_harness.live.reconnect()
    await hub_harness.pass_time(0.5)
    assert hub_harness.hub.is_live


# Grace


async def test_a_node_reports_readers_from_the_first_reader_until_the_last_leaves(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create(grace_s=5.0)
    one = await read(hub_harness)
    assert hub_harness.log.count("attach") == 1
    two = await read(hub_harness)
    assert hub_harness.log.count("attach") == 1
    await hub_harness.pass_time(7)
    assert hub_harness.log.count("attach") == 3
    await stop(one)
    await settle()
    assert hub_harness.log.count("detach") == 0

    await stop(two)
    await settle()
    assert hub_harness.log.count("detach") == 1
    await hub_harness.pass_time(7)
    assert hub_harness.log.count("attach") == 3


async def test_a_reader_that_comes_after_the_grace_gets_the_end(hub_harness: HubHarness) -> None:
    hub_harness.log.create(grace_s=0.0)
    meta = hub_harness.log.known[GENERATION]
    hub_harness.log.append(END)
    hub_harness.log.calls.clear()
    client = Client()
    await stream_events(
        hub_harness.hub,
        make_scope(client),
        client.receive,
        client.send,  # type: ignore[arg-type]
        meta=meta,  # read before the end
        cursor=START,
        transport="sse",
    )
    assert parse_sse(client.body) == [("1-1", "end")]
    assert client.is_finished
