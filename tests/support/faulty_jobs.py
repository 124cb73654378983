"""A jobs role in a hurry that dies where a schedule's prompt says so: `python -m … jobs`.

    die before begin     the schedule is due, and nothing has happened
    die after begin      the firing has begun, and nothing has been made
    die after create     it has been made, and the schedule does not know
    die after finish     the schedule has moved on; nobody has counted it

A death is SIGKILL and meets a schedule once, whoever comes first. Attempts of webhooks have shorter
leases and pauses, so that a test can see what otherwise takes minutes. Everything else is the real
jobs role: the product has no hooks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jobs.webhooks
from jobs import role
from shared.config.settings import Settings
from shared.later.schedules import Firing, Schedule, Schedules
from tests.support.faulty_worker import die

LEASE_S = 3.0
DELIVERY_PAUSES_S = (0.5,) * 7


class FaultySchedules(Schedules):
    """The schedules of a process that dies between two steps."""

    async def begin(self, schedule: Schedule, due_ms: int) -> Firing:
        await self.die_at("die before begin", schedule)
        firing = await super().begin(schedule, due_ms)
        await self.die_at("die after begin", schedule)
        return firing

    async def finish(
        self, schedule: Schedule, due_ms: int, now_ms: int, fields: Mapping[str, str | int]
    ) -> bool:
        await self.die_at("die after create", schedule)
        is_news = await super().finish(schedule, due_ms, now_ms, fields)
        await self.die_at("die after finish", schedule)
        return is_news

    async def die_at(self, where: str, schedule: Schedule) -> None:
        if where.encode() in schedule.body and await self.redis.set(
            f"odd:{schedule.id}", "died", nx=True
        ):
            die()


if __name__ == "__main__":
    told: Any = role
    told.Schedules = FaultySchedules
    jobs.webhooks.LEASE_S = LEASE_S
    jobs.webhooks.DELIVERY_PAUSES_S = DELIVERY_PAUSES_S
    sys.exit(role.serve(Settings.from_env()))
