"""Ends: answers at the end, expired, sealed and lost generations, requeues."""

from __future__ import annotations

import pytest

from shared.errors import Expired, NotFound
from shared.log.ids import EventId
from tests.support.hub_harness import END, GENERATION, HubHarness
from tests.unit.api.hub.reading import read, stop


async def test_the_id_of_the_end_as_cursor_is_answered_204(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.append(END)
    for transport in ("sse", "ndjson"):
        reading = await read(hub_harness, EventId(1, 1), transport=transport)
        await reading.task
        assert reading.client.status == 204
        assert reading.client.body == b""


async def test_an_expired_log_is_answered_410(hub_harness: HubHarness) -> None:
    meta = hub_harness.log.create(status="completed", end=b'{"type":"end"}', ended_at_ms=5)
    with pytest.raises(Expired):
        async with hub_harness.hub.reading(meta):
            pass


async def test_a_copy_is_not_served_after_the_retention_of_its_log(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.append(END)
    reading = await read(hub_harness)
    await reading.task
    hub_harness.log.now_ms += 3_600_001
    del hub_harness.log.logs[GENERATION]
    with pytest.raises(Expired):
        async with hub_harness.hub.reading(hub_harness.log.known[GENERATION]):
            pass


async def test_a_sealed_generation_is_not_found(hub_harness: HubHarness) -> None:
    with pytest.raises(NotFound):
        async with hub_harness.hub.reading(hub_harness.log.create(status="sealed")):
            pass


async def test_a_lost_generation_is_sealed_after_ten_seconds_and_its_readers_get_an_end(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    reading = await read(hub_harness)
    hub_harness.log.lose()
    await hub_harness.pass_time(9)
    assert reading.ids == ["1-1"]
    assert hub_harness.log.count("seal") == 0

    await hub_harness.pass_time(4)
    assert hub_harness.log.count("seal") == 1
    assert reading.frames == [("1-1", "token"), ("0-0", "end")]
    assert b'"code":"lost"' in reading.client.body
    assert reading.client.is_finished
    with pytest.raises(NotFound):
        async with hub_harness.hub.reading(hub_harness.log.known[GENERATION]):
            pass


@pytest.mark.parametrize("transport", ["sse", "ndjson"])
async def test_a_reader_that_needs_trimmed_entries_of_a_lost_generation_gets_the_end(
    hub_harness: HubHarness, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """Nobody can read these entries again, so the reader must not wait for them."""
    monkeypatch.setattr("api.hub.relay.REFILL_RETRY_S", 0.0)
    hub_harness.log.create()
    hub_harness.log.tokens("a", "b", "c")
    first = await read(hub_harness, transport=transport)
    relay = hub_harness.hub.relays[GENERATION]
    relay.trim()
    assert relay.feed.base == 2
    hub_harness.log.lose()
    late = await read(hub_harness, transport=transport, with_meta=relay.meta)
    await hub_harness.pass_time(9)
    assert hub_harness.log.count("page") > 5 and not late.client.is_finished
    await hub_harness.pass_time(4)
    pages = hub_harness.log.count("page")
    await hub_harness.pass_time(3)

    for reading in (first, late):
        assert reading.task.done()
        assert b'"code":"lost"' in reading.client.body and reading.client.is_finished
    assert hub_harness.log.count("page") == pages, "no further read of the log"


async def test_absence_counts_only_while_redis_answers(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness)
    hub_harness.log.lose()
    await hub_harness.pass_time(3)
    hub_harness.log.is_away = True
    await hub_harness.pass_time(30)
    hub_harness.log.is_away = False
    await hub_harness.pass_time(2)
    assert hub_harness.log.count("seal") == 0

    await hub_harness.pass_time(12)
    assert hub_harness.log.count("seal") == 1
    await reading.task


async def test_a_generation_that_is_restored_continues_without_reset(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a", "b")
    reading = await read(hub_harness)
    log = hub_harness.log.logs[GENERATION]
    hub_harness.log.lose()
    hub_harness.live.lose()
    hub_harness.live.reconnect()  # the node reads the log, which is absent
    await hub_harness.pass_time(6)
    hub_harness.log.create()
    hub_harness.log.logs[GENERATION] = log
    hub_harness.log.tokens("c")
    await hub_harness.pass_time(3)

    assert reading.ids == ["1-1", "1-2", "1-3"]
    await stop(reading)


async def test_readers_of_a_log_that_expires_before_its_end_was_read_are_broken_off(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    reading = await read(hub_harness)
    hub_harness.log.is_deaf = True
    hub_harness.log.append(END)
    del hub_harness.log.logs[GENERATION]
    await hub_harness.pass_time(2)

    assert reading.client.was_aborted
    assert not reading.client.is_finished


async def test_an_abandoned_generation_is_requeued_once_in_thirty_seconds(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create(lease_ms=hub_harness.log.now_ms)
    reading = await read(hub_harness)
    await hub_harness.pass_time(5)
    assert hub_harness.log.count("requeue") == 0
    await hub_harness.pass_time(4)
    assert hub_harness.log.count("requeue") == 1
    await hub_harness.pass_time(20)
    assert hub_harness.log.count("requeue") == 1
    await stop(reading)
