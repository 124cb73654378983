"""Ends: answers at the end, expired, sealed and lost generations, requeues."""

from __future__ import annotations

import pytest

from shared.errors import Expired, NotFound
from shared.log.ids import EventId
from tests.support.bench import END, GENERATION, Bench
from tests.unit.api.hub.reading import read, stop


async def test_the_id_of_the_end_as_cursor_is_answered_204(bench: Bench) -> None:
    bench.log.create()
    bench.log.append(END)
    for transport in ("sse", "ndjson"):
        reading = await read(bench, EventId(1, 1), transport=transport)
        await reading.task
        assert reading.client.status == 204
        assert reading.client.body == b""


async def test_an_expired_log_is_answered_410(bench: Bench) -> None:
    meta = bench.log.create(status="completed", end=b'{"type":"end"}', ended_at_ms=5)
    with pytest.raises(Expired):
        async with bench.hub.reading(meta):
            pass


async def test_a_copy_is_not_served_after_the_retention_of_its_log(bench: Bench) -> None:
    bench.log.create()
    bench.log.append(END)
    reading = await read(bench)
    await reading.task
    bench.log.now_ms += 3_600_001
    del bench.log.logs[GENERATION]
    with pytest.raises(Expired):
        async with bench.hub.reading(bench.log.known[GENERATION]):
            pass


async def test_a_sealed_generation_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        async with bench.hub.reading(bench.log.create(status="sealed")):
            pass


async def test_a_lost_generation_is_sealed_after_ten_seconds_and_its_readers_get_an_end(
    bench: Bench,
) -> None:
    bench.log.create()
    bench.log.tokens("a")
    reading = await read(bench)
    bench.log.lose()
    await bench.pass_time(9)
    assert reading.ids == ["1-1"]
    assert bench.log.count("seal") == 0

    await bench.pass_time(4)
    assert bench.log.count("seal") == 1
    assert reading.frames == [("1-1", "token"), ("0-0", "end")]
    assert b'"code":"lost"' in reading.client.body
    assert reading.client.is_finished
    with pytest.raises(NotFound):
        async with bench.hub.reading(bench.log.known[GENERATION]):
            pass


async def test_absence_counts_only_while_redis_answers(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    bench.log.lose()
    await bench.pass_time(3)
    bench.log.is_away = True
    await bench.pass_time(30)
    bench.log.is_away = False
    await bench.pass_time(2)
    assert bench.log.count("seal") == 0

    await bench.pass_time(12)
    assert bench.log.count("seal") == 1
    await reading.task


async def test_a_generation_that_is_restored_continues_without_reset(bench: Bench) -> None:
    bench.log.create()
    bench.log.tokens("a", "b")
    reading = await read(bench)
    log = bench.log.logs[GENERATION]
    bench.log.lose()
    bench.live.lose()
    bench.live.reconnect()  # the node reads the log, which is absent
    await bench.pass_time(6)
    bench.log.create()
    bench.log.logs[GENERATION] = log
    bench.log.tokens("c")
    await bench.pass_time(3)

    assert reading.ids == ["1-1", "1-2", "1-3"]
    await stop(reading)


async def test_readers_of_a_log_that_expires_before_its_end_was_read_are_broken_off(
    bench: Bench,
) -> None:
    bench.log.create()
    bench.log.tokens("a")
    reading = await read(bench)
    bench.log.is_deaf = True
    bench.log.append(END)
    del bench.log.logs[GENERATION]
    await bench.pass_time(2)

    assert reading.client.was_aborted
    assert not reading.client.is_finished


async def test_an_abandoned_generation_is_requeued_once_in_thirty_seconds(bench: Bench) -> None:
    bench.log.create(lease_ms=bench.log.now_ms)
    reading = await read(bench)
    await bench.pass_time(5)
    assert bench.log.count("requeue") == 0
    await bench.pass_time(4)
    assert bench.log.count("requeue") == 1
    await bench.pass_time(20)
    assert bench.log.count("requeue") == 1
    await stop(reading)
