"""Fires schedules: starts what is due, once for each due time.

A firing has three steps: begin it, create the generation or batch under an id derived from the
schedule and the due time, and set the next due time. A crash may come between any two steps, and
two processes may do the same firing. A repeat uses the same id, and finds what exists.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from arq.worker import Function, func

from api.intake.body import parse_new_generation
from jobs.owners import HOLD_S, Owners
from jobs.source import Job
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import RequestError, Unavailable
from shared.later.schedules import Schedule, Schedules
from shared.log.ids import GENERATION_PREFIX
from shared.log.store import Store
from shared.queue.accept import Acceptor
from shared.queue.allowance import OverLimit
from shared.redis.counts import count

log = logging.getLogger(__name__)

DUE_MAX = 100  # schedules of one poll
FIRING_S_MAX = 20.0  # one firing
RETRY_S = 5.0  # after a temporary refusal, for example a full queue
RETRY_S_MAX = 600.0  # of an owner over a limit: an operator may raise the limit meanwhile
FIRING_LATE_S = 60.0  # a firing this long after its due time counts as late

Fields = dict[str, str | int]
# (schedule, due time in ms, whether it may exist already) -> the id of the generation or batch
Create = Callable[[Schedule, int, bool], Awaitable[str]]


class Firings:
    """The firings of due schedules.

    Args:
        kinds: by name, what a schedule can start. A `Create` uses the id of `Schedule.made_id`,
            returns it, and changes nothing that exists.
        owners: schedules of other owners are held.
    """

    def __init__(
        self, store: Store, schedules: Schedules, kinds: Mapping[str, Create], owners: Owners
    ) -> None:
        self.store = store
        self.schedules = schedules
        self.kinds = dict(kinds)
        self.owners = owners
        self.functions: Sequence[Function] = [
            func(self.fire, name="fire_schedule", timeout=FIRING_S_MAX, max_tries=1)
        ]

    async def due(self) -> list[Job]:
        """Return a job for each schedule that is due."""
        now_ms = await self.store.now_ms()
        # A new job id each second: arq reserves the id of a dead process for a while.
        return [
            Job("fire_schedule", (schedule_id, due_ms), f"{schedule_id}:{due_ms}:{now_ms // 1000}")
            for schedule_id, due_ms in await self.schedules.due(now_ms, DUE_MAX)
        ]

    async def fire(self, ctx: dict[Any, Any], schedule_id: str, due_ms: int) -> None:
        """Fire one schedule for one due time, unless this has been done."""
        try:
            schedule = await self.schedules.get(schedule_id, with_body=True)
            if schedule is not None:
                await self._fire(schedule, due_ms)
        except Unavailable:
            pass  # the schedule is still due

    async def _fire(self, schedule: Schedule, due_ms: int) -> None:
        create, now_ms = self.kinds.get(schedule.kind), await self.store.now_ms()
        if create is None:  # a kind of a newer version, which runs beside this one
            await self.schedules.postpone(schedule.id, now_ms + round(RETRY_S * 1000))
            return
        if not await self.owners.is_known(schedule.owner):  # the due time stays, and fires later
            await self.schedules.postpone(schedule.id, now_ms + round(HOLD_S * 1000))
            self.owners.log_schedule_held(schedule.owner, schedule.id)
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
            late = int(now_ms - due_ms > FIRING_LATE_S * 1000)
            await count(self.schedules.redis, {"schedules_fired": 1, "schedules_late": late})
            log.info("schedule fired", extra={**data, "made": made_id})

    async def _refuse(
        self, schedule: Schedule, due_ms: int, now_ms: int, error: RequestError
    ) -> None:
        """Retry a temporary refusal later; otherwise end the firing, and record the error."""
        data = {"schedule": schedule.id, "code": error.code}
        if error.retryable or isinstance(error, OverLimit):
            pause_s = max(RETRY_S, min(error.retry_after_s or 0, RETRY_S_MAX))
            await self.schedules.postpone(schedule.id, now_ms + round(pause_s * 1000))
        else:
            fields: Fields = {
                "last": now_ms,
                "error_code": error.code,
                "error_message": error.message,
            }
            if await self.schedules.finish(schedule, due_ms, now_ms, fields):
                await count(self.schedules.redis, {"schedules_refused": 1})
        log.warning("schedule refused", extra=data)


def generations(
    acceptor: Acceptor, models: Mapping[str, Model], settings: Settings, owners: Owners
) -> Create:
    """Return the `Create` of generations."""

    async def create(schedule: Schedule, due_ms: int, is_repeat: bool) -> str:
        new = parse_new_generation(
            schedule.request(), owner=schedule.owner, models=models, settings=settings
        )
        new = replace(new, limits=owners.limits_of(schedule.owner))
        generation_id = schedule.made_id(GENERATION_PREFIX, due_ms)
        await acceptor.accept_as(generation_id, new, is_repeat=is_repeat)
        return generation_id

    return create
