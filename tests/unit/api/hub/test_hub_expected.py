"""Generations that this node is about to create: subscribed to, and read only if needed."""

from __future__ import annotations

import pytest

from api.hub import relay as relay_module
from shared.log.events import Start
from tests.support.hub_harness import END, GENERATION, OF_EVERY_NODE, HubHarness, make_meta, settle
from tests.unit.api.hub.reading import read, stop


async def expect(hub_harness: HubHarness) -> None:
    """Announce a generation to the hub, and create the generation."""
    hub_harness.hub.expect_creation(make_meta(status="queued"))
    await settle()
    hub_harness.log.create()


async def test_an_expected_log_is_not_read_if_its_frames_arrive(hub_harness: HubHarness) -> None:
    await expect(hub_harness)
    reading = await read(hub_harness)
    hub_harness.log.append(Start(attempt=1, model="demo"))
    await settle()
    hub_harness.log.tokens("a")
    hub_harness.log.append(END)
    await reading.task

    assert reading.ids == ["1-1", "1-2", "1-3"]
    assert hub_harness.log.count("page") == 0
    assert hub_harness.live.channels == OF_EVERY_NODE


async def test_an_expected_log_is_not_read_after_a_late_confirmation_of_its_channel(
    hub_harness: HubHarness,
) -> None:
    hub_harness.live.confirms = False
    await expect(hub_harness)
    reading = await read(hub_harness)
    hub_harness.live.reconnect()
    hub_harness.log.append(Start(attempt=1, model="demo"))
    await settle()

    assert reading.ids == ["1-1"]
    assert hub_harness.log.count("page") == 0
    await stop(reading)


async def test_events_that_arrive_before_the_first_reader_are_kept(hub_harness: HubHarness) -> None:
    await expect(hub_harness)
    hub_harness.log.append(Start(attempt=1, model="demo"))
    hub_harness.log.tokens("a")
    reading = await read(hub_harness)

    assert reading.ids == ["1-1", "1-2"]
    assert hub_harness.log.count("page") == 0
    await stop(reading)


async def test_an_expected_log_whose_first_frame_was_missed_is_read(
    hub_harness: HubHarness,
) -> None:
    await expect(hub_harness)
    hub_harness.log.is_deaf = True
    hub_harness.log.append(Start(attempt=1, model="demo"))
    hub_harness.log.is_deaf = False
    reading = await read(hub_harness)
    hub_harness.log.tokens("a")
    await settle()

    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)


async def test_an_expected_log_of_which_nothing_arrives_is_read_after_a_moment(
    hub_harness: HubHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "EXPECTED_READ_S", 0.0)
    await expect(hub_harness)
    hub_harness.log.is_deaf = True
    hub_harness.log.append(Start(attempt=1, model="demo"))
    reading = await read(hub_harness)

    assert reading.ids == ["1-1"]
    await stop(reading)


async def test_an_expected_log_is_read_after_a_reconnect(hub_harness: HubHarness) -> None:
    await expect(hub_harness)
    hub_harness.live.lose()
    hub_harness.log.append(Start(attempt=1, model="demo"))
    hub_harness.live.reconnect()
    reading = await read(hub_harness)

    assert reading.ids == ["1-1"]
    await stop(reading)


async def test_the_relay_of_a_generation_that_was_not_created_is_closed(
    hub_harness: HubHarness,
) -> None:
    hub_harness.hub.expect_creation(make_meta(status="queued"))
    hub_harness.hub.cancel_expected(GENERATION)

    assert not hub_harness.hub.relays
    assert hub_harness.live.channels == OF_EVERY_NODE
