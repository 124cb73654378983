"""Notices to subscriptions: one round at a time for each stream, and none is forgotten."""

from __future__ import annotations

import asyncio

from api.dialects.durable_streams.notices import Notices


class Slow:
    """Subscriptions that take their time."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, bool]] = []
        self.go = asyncio.Event()

    async def notify(self, owner: str, path: str, *, is_new: bool = False) -> None:
        self.told.append((owner, path, is_new))
        await self.go.wait()


async def test_many_appends_during_a_round_make_one_more_round() -> None:
    async with asyncio.TaskGroup() as tasks:
        slow = Slow()
        notices = Notices(slow, tasks.create_task)
        notices.give("o", "a")
        await asyncio.sleep(0)
        for n in range(50):
            notices.give("o", "a", is_new=n == 7)
        notices.give("o", "b")
        await asyncio.sleep(0)
        assert slow.told == [("o", "a", False), ("o", "b", False)]
        slow.go.set()

    assert slow.told == [("o", "a", False), ("o", "b", False), ("o", "a", True)]
