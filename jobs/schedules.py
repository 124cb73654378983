"""Schedules: starts what is due, once for each due time.

The steps of a firing may be cut between any two, and be taken by two processes at once: it is
begun, the thing is made under an id that follows from schedule and due time, and only then the
schedule moves on. Whoever tries again makes the same thing, which is there already.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from arq.worker import Function, func

from api.intake.body import parse_new_generation
from jobs.owners import HOLD_S, Owners
from jobs.source import Job
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import RequestError, Unavailable
from shared.later.schedules import Schedule, Schedules
from shared.log.store import Store
from shared.queue.accept import Acceptor
from shared.redis.counts import count

log = logging.getLogger(__name__)

DUE_MAX = 100
TIMEOUT_S = 20.0
AGAIN_S = 5.0  # after a refusal that may pass: the queue is full
LATE_S = 60.0

Fields = dict[str, str | int]
# (schedule, due ms, whether it may have been made before) -> the id of what was made
Create = Callable[[Schedule, int, bool], Awaitable[str]]


class Firings:
    """The schedules that are due.

    Args:
        kinds: what can be scheduled, by name. Each creates under an id that follows from schedule
            and due time (`Schedule.made_id`), returns it, and leaves what is there as it is.
        owners: whose schedules fire; those of others are held.
    """

    def __init__(
        self, store: Store, schedules: Schedules, kinds: Mapping[str, Create], owners: Owners
    ) -> None:
        self.store = store
        self.schedules = schedules
        self.kinds = dict(kinds)
        self.owners = owners
        self.functions: Sequence[Function] = [
            func(self.fire, name="fire_schedule", timeout=TIMEOUT_S, max_tries=1)
        ]

    async def due(self) -> list[Job]:
        now_ms = await self.store.now_ms()
        # An id for each second: that of a process which died is taken for a while.
        return [
            Job("fire_schedule", (schedule_id, due_ms), f"{schedule_id}:{due_ms}:{now_ms // 1000}")
            for schedule_id, due_ms in await self.schedules.due(now_ms, DUE_MAX)
        ]

    async def fire(self, ctx: dict[Any, Any], schedule_id: str, due_ms: int) -> None:
        """Start what one schedule is due for, unless that has been done."""
        try:
            schedule = await self.schedules.get(schedule_id, with_body=True)
            if schedule is not None:
                await self._fire(schedule, due_ms)
        except Unavailable:
            pass  # it is due still

    async def _fire(self, schedule: Schedule, due_ms: int) -> None:
        create, now_ms = self.kinds.get(schedule.kind), await self.store.now_ms()
        if create is None:  # of a newer version, which runs beside this one
            await self.schedules.postpone(schedule.id, now_ms + round(AGAIN_S * 1000))
            return
        if not self.owners.is_known(schedule.owner):  # what it is due for stays, and is caught up
            await self.schedules.postpone(schedule.id, now_ms + round(HOLD_S * 1000))
            self.owners.say_schedule_held(schedule.owner, schedule.id)
            return
        firing = await self.schedules.begin(schedule, due_ms)
        if not firing:
            return
        data = {"schedule": schedule.id, "late_s": round((now_ms - due_ms) / 1000, 3)}
        try:
            made_id = await create(schedule, due_ms, firing == "repeat")
        except RequestError as exc:
            await self._refuse(schedule, due_ms, now_ms, exc)
            return
        fields: Fields = {"last": now_ms, "last_id": made_id, "error_code": "", "error_message": ""}
        if await self.schedules.finish(schedule, due_ms, now_ms, fields):
            late = int(now_ms - due_ms > LATE_S * 1000)
            await count(self.schedules.redis, {"schedules_fired": 1, "schedules_late": late})
            log.info("schedule fired", extra={**data, "made": made_id})

    async def _refuse(
        self, schedule: Schedule, due_ms: int, now_ms: int, error: RequestError
    ) -> None:
        """What may pass is tried again; else this due time is over, and the schedule says why."""
        data = {"schedule": schedule.id, "code": error.code}
        if error.retryable:
            await self.schedules.postpone(schedule.id, now_ms + round(AGAIN_S * 1000))
        else:
            fields: Fields = {
                "last": now_ms,
                "error_code": error.code,
                "error_message": error.message,
            }
            if await self.schedules.finish(schedule, due_ms, now_ms, fields):
                await count(self.schedules.redis, {"schedules_refused": 1})
        log.warning("schedule refused", extra=data)


def generations(acceptor: Acceptor, models: Mapping[str, Model], settings: Settings) -> Create:
    """Return what starts generations."""

    async def create(schedule: Schedule, due_ms: int, is_repeat: bool) -> str:
        new = parse_new_generation(
            schedule.request(), owner=schedule.owner, models=models, settings=settings
        )
        generation_id = schedule.made_id("gen_", due_ms)
        await acceptor.accept_as(generation_id, new, is_repeat=is_repeat)
        return generation_id

    return create
