"""What readers get when Redis has rewritten the log, and when a cursor is not in the log."""

from __future__ import annotations

import asyncio

from shared.log.ids import EventId
from tests.support.hub_harness import END, GENERATION, HubHarness, settle
from tests.unit.api.hub.reading import read, stop


async def test_a_reader_of_rolled_back_events_gets_reset_and_the_whole_log(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness)
    hub_harness.log.tokens("a", "b", "c")
    await settle()
    hub_harness.log.roll_back(2)
    hub_harness.log.tokens("B", "C", "D")
    await settle()
    hub_harness.log.append(END)
    await hub_harness.pass_time(3)

    assert reading.frames == [
        ("1-1", "token"), ("1-2", "token"), ("1-3", "token"),
        ("0-0", "reset"),
        ("1-1", "token"), ("2-2", "token"), ("2-3", "token"), ("2-4", "token"), ("2-5", "end"),
    ]  # fmt: skip
    assert b'id: 0-0\nevent: reset\ndata: {"reason":"log_rewritten"}\n\n' in reading.client.body
    assert hub_harness.hub.statistics().resets == 1


async def test_a_reader_that_was_given_only_kept_events_continues_without_reset(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    fast, slow = await read(hub_harness), await read(hub_harness)
    slow.client.block()
    hub_harness.log.tokens("b", "c")  # the first write of slow waits
    await settle()
    hub_harness.log.tokens("d")
    await settle()
    hub_harness.log.roll_back(1)
    hub_harness.log.tokens("D", "E")
    await settle()
    slow.client.unblock()
    await hub_harness.pass_time(3)

    assert slow.ids == ["1-1", "1-2", "1-3", "2-4", "2-5"]
    assert fast.ids == ["1-1", "1-2", "1-3", "1-4", "0-0", "1-1", "1-2", "1-3", "2-4", "2-5"]
    await stop(fast)
    await stop(slow)


async def test_a_lost_tail_that_is_restored_causes_no_reset(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    reading = await read(hub_harness)
    hub_harness.log.tokens("a", "b", "c")
    await settle()
    tail = hub_harness.log.logs[GENERATION][1:]
    del hub_harness.log.logs[GENERATION][1:]
    await hub_harness.pass_time(1.5)  # the recheck finds the loss
    hub_harness.log.logs[GENERATION] += tail
    hub_harness.log.say(b"top 1-3")
    await settle()
    hub_harness.log.tokens("d")
    await hub_harness.pass_time(3)

    assert reading.ids == ["1-1", "1-2", "1-3", "1-4"]
    await stop(reading)


async def test_a_cursor_above_the_top_waits_two_seconds_for_its_entry(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    reading = await read(hub_harness, EventId(1, 2))
    assert reading.client.status == 200
    await hub_harness.pass_time(1)
    hub_harness.log.is_deaf = True
    hub_harness.log.tokens("b", "c")
    await hub_harness.pass_time(1.5)
    assert reading.ids == ["1-3"]
    await stop(reading)


async def test_a_cursor_that_never_existed_gets_reset_after_two_seconds(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    reading = await read(hub_harness, EventId(7, 9))
    await hub_harness.pass_time(1.5)
    assert reading.ids == []

    await hub_harness.pass_time(1)
    assert reading.ids == ["0-0", "1-1"]
    await stop(reading)


async def test_a_cursor_that_the_copy_lacks_makes_the_node_read_the_log_first(
    hub_harness: HubHarness,
) -> None:
    """This node missed a rollback, and the reader comes from a node that did not."""
    hub_harness.log.create()
    first = await read(hub_harness)
    hub_harness.log.tokens("a", "b")
    await settle()
    hub_harness.log.is_deaf = True
    hub_harness.log.roll_back(1)
    hub_harness.log.tokens("B", "C")
    reading = await read(hub_harness, EventId(2, 2))
    await settle()

    assert reading.ids == ["2-3"]
    await stop(reading)
    await stop(first)


async def test_a_cursor_that_is_not_in_an_ended_log_gets_reset_at_once(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    hub_harness.log.append(END)
    reading = await read(hub_harness, EventId(1, 9))
    await reading.task
    assert reading.ids == ["0-0", "1-1", "1-2"]
    assert reading.client.is_finished


async def test_a_copy_with_another_end_than_redis_has_is_read_anew(hub_harness: HubHarness) -> None:
    """Redis lost the end after this node had received it, and the generation ended again."""
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    first = await read(hub_harness)
    hub_harness.log.append(END)
    await first.task
    hub_harness.log.roll_back(1)
    hub_harness.log.tokens("other")
    hub_harness.log.append(b'{"type":"end","status":"cancelled","finish_reason":"cancelled"}')
    second = await read(hub_harness)
    await second.task
    assert second.ids == ["1-1", "2-2", "2-3"]


async def test_a_rewrite_during_the_read_of_trimmed_entries_causes_a_reset() -> None:
    async with HubHarness(hub_bytes_max=1_000) as hub_harness:
        hub_harness.log.create()
        first = await read(hub_harness)
        hub_harness.log.tokens(*("x" * 100 for _ in range(20)))
        await settle()
        await hub_harness.pass_time(1.25)
        assert hub_harness.hub.relays[GENERATION].feed.base > 0
        hub_harness.log.pages_held = asyncio.Event()
        late = await read(hub_harness)
        hub_harness.log.roll_back(20)
        hub_harness.log.tokens("B", "C")
        hub_harness.log.pages_held.set()
        await hub_harness.pass_time(4)
        hub_harness.log.append(END)
        await asyncio.gather(first.task, late.task)

        assert first.ids[-4:] == ["0-0", "2-1", "2-2", "2-3"]
        assert late.ids[-3:] == ["2-1", "2-2", "2-3"]
