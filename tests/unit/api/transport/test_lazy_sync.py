"""The small substitutes for asyncio's event and queue."""

from __future__ import annotations

import asyncio

from api.transport.lazy_sync import LazyEvent, SingleConsumerQueue
from tests.support.hub_harness import settle


async def test_set_releases_all_waiting_tasks() -> None:
    event = LazyEvent()
    waiting = [asyncio.ensure_future(event.wait()) for _ in range(2)]
    await settle()
    assert not any(task.done() for task in waiting)
    event.set()
    event.clear()  # does not stop the released tasks
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    later = asyncio.ensure_future(event.wait())
    await settle()

    assert not event.is_set() and not later.done()
    event.set()
    await later
    await event.wait()


async def test_a_queue_keeps_order_and_calls_on_put_only_while_no_task_waits() -> None:
    queue = SingleConsumerQueue()
    lengths: list[int] = []
    queue.on_put = lambda: lengths.append(len(queue))
    getting = asyncio.ensure_future(queue.get())
    await settle()
    queue.put_nowait("a")
    queue.put_nowait("b")
    assert await getting == "a" and lengths == []
    queue.put_nowait("c")

    assert lengths == [2]
    assert [await queue.get(), await queue.get()] == ["b", "c"]
    assert queue.empty()


async def test_a_cancelled_get_takes_no_item() -> None:
    queue = SingleConsumerQueue()
    getting = asyncio.ensure_future(queue.get())
    await settle()
    queue.put_nowait("a")
    getting.cancel()
    await settle()

    assert getting.cancelled()
    assert await queue.get() == "a"
