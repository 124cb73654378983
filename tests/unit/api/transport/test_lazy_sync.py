"""What stands in for asyncio's events and queues on a connection."""

from __future__ import annotations

import asyncio

from api.transport.lazy_sync import LeanEvent, LeanQueue
from tests.support.bench import settle


async def test_all_who_wait_for_an_event_go_on() -> None:
    event = LeanEvent()
    waiting = [asyncio.ensure_future(event.wait()) for _ in range(2)]
    await settle()
    assert not any(task.done() for task in waiting)
    event.set()
    event.clear()  # who was let go stays so
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    later = asyncio.ensure_future(event.wait())
    await settle()

    assert not event.is_set() and not later.done()
    event.set()
    await later
    await event.wait()


async def test_a_queue_gives_in_order_and_tells_who_does_not_wait() -> None:
    queue = LeanQueue()
    told: list[int] = []
    queue.on_put = lambda: told.append(len(queue))
    getting = asyncio.ensure_future(queue.get())
    await settle()
    queue.put_nowait("a")
    queue.put_nowait("b")
    assert await getting == "a" and told == []
    queue.put_nowait("c")

    assert told == [2]
    assert [await queue.get(), await queue.get()] == ["b", "c"]
    assert queue.empty()


async def test_who_stops_waiting_takes_nothing() -> None:
    queue = LeanQueue()
    getting = asyncio.ensure_future(queue.get())
    await settle()
    queue.put_nowait("a")
    getting.cancel()
    await settle()

    assert getting.cancelled()
    assert await queue.get() == "a"
