"""Rows of a log whose memory was trimmed: a late reader has it folded again, and no row stops."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from api.dialects.native.fold import NDJSON, SSE
from shared.log.fold import FOLD_ENTRIES_MAX
from shared.log.ids import EventId
from tests.support.hub_harness import END, GENERATION, HubHarness, settle
from tests.support.wait import until
from tests.unit.api.hub.reading import Reading, Wire, read, stop

ENTRIES = 6 * FOLD_ENTRIES_MAX
LATE_TURNS = 3_000  # of the loop: far more than the late reader needs


@pytest.fixture
async def hub_harness() -> AsyncIterator[HubHarness]:
    """A hub without room, which gives one batch of rows and one sink a turn in each pass."""
    async with HubHarness(hub_bytes_max=20_000) as hub_harness:
        time_s = itertools.count()
        hub_harness.hub._pump._clock = lambda: float(next(time_s))
        yield hub_harness


async def trimmed_row(hub_harness: HubHarness) -> tuple[Reading, Wire]:
    """Return a reader that follows in a row of a log that was trimmed."""
    hub_harness.log.create()
    wire = Wire()
    follower = await read(hub_harness, transport="ndjson", wire=wire)
    for n in range(0, ENTRIES, 100):
        hub_harness.log.tokens(*map(str, range(n, n + 100)))
        await settle(4)
    assert len(wire.ids) == ENTRIES
    await hub_harness.pass_time(1.25)
    relay = hub_harness.hub.relays[GENERATION]
    assert relay.feed.base == ENTRIES - 1
    return follower, wire


async def late_reader(hub_harness: HubHarness) -> tuple[Reading, Wire]:
    """Return a reader that has the log folded again, in the middle of that."""
    wire = Wire()
    hub_harness.log.pages_held = asyncio.Event()
    reading = await read(hub_harness, transport="ndjson", wire=wire)
    hub_harness.log.pages_held.set()
    for _ in range(LATE_TURNS):
        if wire.got:
            break
        await asyncio.sleep(0)
    assert 0 < hub_harness.hub.relays[GENERATION].encoded_log(NDJSON).count < ENTRIES
    return reading, wire


def all_ids(count: int) -> list[str]:
    return [f"1-{n}" for n in range(1, count + 1)]


@pytest.mark.parametrize("is_late_blocked", [False, True])
async def test_an_end_that_arrives_while_the_log_is_folded_again_reaches_the_row(
    hub_harness: HubHarness, is_late_blocked: bool
) -> None:
    follower, wire = await trimmed_row(hub_harness)
    late, late_wire = await late_reader(hub_harness)
    late_wire.is_paused = is_late_blocked
    hub_harness.log.append(END)
    await settle(400)

    assert wire.ids == all_ids(ENTRIES + 1)
    assert follower.client.is_finished
    if is_late_blocked:
        await stop(late)
    else:
        assert late_wire.ids == wire.ids and late.client.is_finished


async def test_a_row_goes_on_after_the_reader_left_for_whom_the_log_was_folded_again(
    hub_harness: HubHarness,
) -> None:
    follower, wire = await trimmed_row(hub_harness)
    late, _ = await late_reader(hub_harness)
    await stop(late)
    await hub_harness.pass_time(2.5)
    relay = hub_harness.hub.relays[GENERATION]
    assert relay.bytes_kept < 20_000, "the rows fold on, so that the memory can be freed"
    hub_harness.log.tokens(*("more" for _ in range(50)))
    await settle(400)
    assert len(wire.ids) == ENTRIES + 50

    hub_harness.log.append(END)
    await settle(400)
    assert wire.ids == all_ids(ENTRIES + 51)
    assert follower.client.is_finished


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_a_reader_that_resumes_at_the_top_in_another_dialect_gets_what_follows(
    encoding: str,
) -> None:
    """Its log was never folded, and needs entries that were trimmed."""
    async with HubHarness(stream_encodings="gzip") as hub_harness:
        hub_harness.log.create()
        hub_harness.log.tokens("a", "b", "c")
        follower = await read(hub_harness, wire=Wire())
        hub_harness.hub.relays[GENERATION].trim()
        wire = Wire()
        late = await read(
            hub_harness,
            EventId(1, 3),
            transport="ndjson",
            wire=wire,
            headers={"accept-encoding": encoding},
        )
        hub_harness.log.tokens("d")
        await settle()
        got = len(wire.got)
        hub_harness.log.append(END)
        await settle()

        assert got and late.client.is_finished and follower.client.is_finished
        if not encoding:
            assert wire.ids == ["1-4", "1-5"]


async def test_a_log_that_is_behind_a_reader_is_emptied_and_stays_the_log_of_its_rows(
    hub_harness: HubHarness,
) -> None:
    """A reader keeps its log. A second log of the dialect would write to rows of its own."""
    async with HubHarness() as hub_harness:
        meta = hub_harness.log.create()
        hub_harness.log.tokens("a", "b", "c")
        async with hub_harness.hub.reading(meta) as relay:
            reading = await read(hub_harness)
            log, group = relay.encoded_log(NDJSON), relay.broadcast_group(NDJSON, is_chunked=True)
            relay.trim()

            assert relay.encoded_log(SSE).base == 3
            assert relay.encoded_log(NDJSON) is log
            assert relay.broadcast_group(NDJSON, is_chunked=True) is group
            assert log.is_refill_needed(0) and log.is_refill_needed(3)
            await stop(reading)


async def test_a_trim_keeps_the_fold_of_a_log_that_is_behind() -> None:
    """A reader of this log may wait for the next refill, and each trim comes a second later."""
    async with HubHarness() as hub_harness:
        meta = hub_harness.log.create()
        hub_harness.log.tokens(*map(str, range(2 * FOLD_ENTRIES_MAX)))
        async with hub_harness.hub.reading(meta) as relay:
            await until(lambda: relay.feed.count == 2 * FOLD_ENTRIES_MAX, 5, "the log")
            log, unused = relay.encoded_log(NDJSON), relay.encoded_log(SSE)
            log.encode()
            folds = log.fold, unused.fold
            for _ in range(2):
                relay.trim()

            assert (log.count, log.base) == (FOLD_ENTRIES_MAX, FOLD_ENTRIES_MAX)
            assert log.is_refill_needed(FOLD_ENTRIES_MAX)
            assert (log.fold, unused.fold) == folds
