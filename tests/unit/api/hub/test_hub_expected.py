"""Generations that this node is about to create: subscribed to, and read only if needed."""

from __future__ import annotations

import pytest

from api.hub import relay as relay_module
from shared.log.events import Start
from tests.support.bench import END, GENERATION, Bench, make_meta, settle
from tests.unit.api.hub.reading import read, stop


async def expect(bench: Bench) -> None:
    """Announce a generation to the hub, and create the generation."""
    bench.hub.expect_creation(make_meta(status="queued"))
    await settle()
    bench.log.create()


async def test_an_expected_log_is_not_read_if_its_frames_arrive(bench: Bench) -> None:
    await expect(bench)
    reading = await read(bench)
    bench.log.append(Start(attempt=1, model="demo"))
    await settle()
    bench.log.tokens("a")
    bench.log.append(END)
    await reading.task

    assert reading.ids == ["1-1", "1-2", "1-3"]
    assert bench.log.count("page") == 0
    assert bench.live.channels == {b"tr:probe:n1"}


async def test_an_expected_log_is_not_read_after_a_late_confirmation_of_its_channel(
    bench: Bench,
) -> None:
    bench.live.confirms = False
    await expect(bench)
    reading = await read(bench)
    bench.live.reconnect()
    bench.log.append(Start(attempt=1, model="demo"))
    await settle()

    assert reading.ids == ["1-1"]
    assert bench.log.count("page") == 0
    await stop(reading)


async def test_events_that_arrive_before_the_first_reader_are_kept(bench: Bench) -> None:
    await expect(bench)
    bench.log.append(Start(attempt=1, model="demo"))
    bench.log.tokens("a")
    reading = await read(bench)

    assert reading.ids == ["1-1", "1-2"]
    assert bench.log.count("page") == 0
    await stop(reading)


async def test_an_expected_log_whose_first_frame_was_missed_is_read(bench: Bench) -> None:
    await expect(bench)
    bench.log.is_deaf = True
    bench.log.append(Start(attempt=1, model="demo"))
    bench.log.is_deaf = False
    reading = await read(bench)
    bench.log.tokens("a")
    await settle()

    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)


async def test_an_expected_log_of_which_nothing_arrives_is_read_after_a_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "EXPECTED_READ_S", 0.0)
    await expect(bench)
    bench.log.is_deaf = True
    bench.log.append(Start(attempt=1, model="demo"))
    reading = await read(bench)

    assert reading.ids == ["1-1"]
    await stop(reading)


async def test_an_expected_log_is_read_after_a_reconnect(bench: Bench) -> None:
    await expect(bench)
    bench.live.lose()
    bench.log.append(Start(attempt=1, model="demo"))
    bench.live.reconnect()
    reading = await read(bench)

    assert reading.ids == ["1-1"]
    await stop(reading)


async def test_the_relay_of_a_generation_that_was_not_created_is_closed(bench: Bench) -> None:
    bench.hub.expect_creation(make_meta(status="queued"))
    bench.hub.cancel_expected(GENERATION)

    assert not bench.hub.relays
    assert bench.live.channels == {b"tr:probe:n1"}
