"""Redis away, the drain, the probe of the live connection, and the grace."""

from __future__ import annotations

import asyncio
import re

import pytest

from api.dialects.native.events import stream_events
from shared.errors import RequestError, Unavailable
from shared.log.ids import START
from tests.support.bench import END, GENERATION, Bench, Client, make_scope, settle
from tests.unit.api.hub.reading import get, parse_sse, read, stop

# Redis away


async def test_while_redis_is_away_readers_stay_and_new_readers_join_a_copy_of_this_node(
    bench: Bench,
) -> None:
    bench.log.create()
    bench.log.tokens("a")
    reading = await read(bench)
    bench.log.is_away = True
    late = Client()
    task = asyncio.create_task(get(bench, late))
    await bench.pass_time(16)
    assert parse_sse(late.body) == [("1-1", "token")]
    assert late.body.endswith(b": ping\n")

    bench.log.is_away = False
    bench.log.append(END)
    await task
    await reading.task
    assert reading.ids == ["1-1", "1-2"]


async def test_while_redis_is_away_a_log_without_a_copy_is_answered_503(bench: Bench) -> None:
    bench.log.create()
    bench.log.is_away = True
    with pytest.raises(RequestError) as caught:
        await get(bench, Client())
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)


@pytest.mark.parametrize("trouble", ["away", "draining"])
async def test_a_reconnecting_event_source_gets_200_with_a_retry_time_and_is_broken_off(
    bench: Bench, trouble: str
) -> None:
    bench.log.create()
    bench.log.is_away = trouble == "away"
    bench.hub.is_draining = trouble == "draining"
    client = Client()
    await get(bench, client, headers={"Last-Event-ID": "1-4", "Accept": "text/event-stream"})

    assert client.status == 200
    assert re.fullmatch(rb"retry: \d+\n\n", client.body)
    assert client.was_aborted
    assert not client.is_finished


async def test_while_redis_is_away_the_connection_counts_as_not_live_and_is_kept(
    bench: Bench,
) -> None:
    await bench.pass_time(0.5)
    bench.log.is_away = True
    await bench.pass_time(8)
    assert not bench.hub.is_live
    assert bench.live.drops == 0


async def test_while_redis_is_away_a_generation_with_a_grace_takes_no_first_reader(
    bench: Bench,
) -> None:
    meta = bench.log.create(grace_s=5.0)
    bench.log.is_away = True
    with pytest.raises(Unavailable):
        async with bench.hub.reading(meta):
            pass


# The drain


async def test_a_drain_breaks_all_readers_off_and_takes_no_further_readers(bench: Bench) -> None:
    bench.log.create()
    readings = [await read(bench) for _ in range(5)]
    await bench.hub.drain(0.01)

    for reading in readings:
        await reading.task
        assert reading.client.was_aborted
        assert not reading.client.is_finished
    with pytest.raises(RequestError) as caught:
        await get(bench, Client())
    assert caught.value.code == "draining"


async def test_a_drained_node_reports_that_its_readers_have_left(bench: Bench) -> None:
    bench.log.create(grace_s=5.0)
    reading = await read(bench)
    await bench.hub.drain(0)
    await reading.task
    await settle()
    assert bench.log.count("detach") == 1


# The probe


async def test_a_node_is_live_after_it_has_received_its_probe(bench: Bench) -> None:
    assert not bench.hub.is_live
    await bench.pass_time(0.5)
    assert bench.hub.is_live


async def test_a_connection_that_loses_its_probe_is_dropped(bench: Bench) -> None:
    await bench.pass_time(0.5)
    bench.log.is_deaf = True
    await bench.pass_time(8)
    assert not bench.hub.is_live
    assert bench.live.drops == 1
    assert bench.hub.statistics().probes_lost == 1

    bench.log.is_deaf = False
    bench.live.reconnect()
    await bench.pass_time(0.5)
    assert bench.hub.is_live


# Grace


async def test_a_node_reports_readers_from_the_first_reader_until_the_last_leaves(
    bench: Bench,
) -> None:
    bench.log.create(grace_s=5.0)
    one = await read(bench)
    assert bench.log.count("attach") == 1
    two = await read(bench)
    assert bench.log.count("attach") == 1
    await bench.pass_time(7)
    assert bench.log.count("attach") == 3
    await stop(one)
    await settle()
    assert bench.log.count("detach") == 0

    await stop(two)
    await settle()
    assert bench.log.count("detach") == 1
    await bench.pass_time(7)
    assert bench.log.count("attach") == 3


async def test_a_reader_that_comes_after_the_grace_gets_the_end(bench: Bench) -> None:
    bench.log.create(grace_s=0.0)
    meta = bench.log.known[GENERATION]
    bench.log.append(END)
    bench.log.calls.clear()
    client = Client()
    await stream_events(
        bench.hub,
        make_scope(client),
        client.receive,
        client.send,  # type: ignore[arg-type]
        meta=meta,  # read before the end
        cursor=START,
        transport="sse",
    )
    assert parse_sse(client.body) == [("1-1", "end")]
    assert client.is_finished
