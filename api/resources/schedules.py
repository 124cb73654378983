"""Schedules over HTTP: create, list, get, delete.

A body of POST /v1/generations or POST /v1/batches that sets a time becomes a schedule. The body is
checked as if it ran now; when it is due, the jobs role starts it (jobs/schedules.py).
Source: docs/schedules.md.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.errors import request_error
from api.intake.schedule_members import read_timing, without_timing
from api.node import Node
from api.resources.listings import read_before_ms
from api.response import json_response
from shared.config.credentials import EVERYBODY
from shared.errors import NotFound
from shared.later.schedules import PREFIX, Schedule
from shared.later.schedules import Schedules as Store
from shared.log.ids import GENERATION_PREFIX, is_generation_id, new_generation_id
from shared.redis.jobs_wake import wake_jobs

PAGE_SCHEDULES = 100

_canonical = msgspec.json.Encoder(order="deterministic").encode


class ScheduleRoutes:
    """The handlers of /v1/schedules, and `create` for the routes that create schedules."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.store = Store(node.redis, node.settings.schedules_max)

    async def create(
        self, owner: str, kind: str, body: Mapping[str, Any], *, key: str = ""
    ) -> Response:
        """Create a schedule. The caller has checked the body as if it ran now.

        Args:
            kind: one of the kinds in jobs/schedules.py.
            body: the members of the request, with `run_at`, `cron` and `timezone`.
            key: the Idempotency-Key; "": none.

        Returns:
            202 with the schedule; 200 if a request with the same key has created it before.

        Raises:
            RequestError: `too_many_schedules`; `idempotency_mismatch`; 422 for a wrong time.
            NotFound: the schedule was deleted at the same moment.
            Unavailable: Redis did not answer in time.
        """
        timing = read_timing(body, time.time())
        schedule = Schedule(
            id=PREFIX + new_generation_id().removeprefix(GENERATION_PREFIX),
            owner=owner,
            kind=kind,
            body=msgspec.json.encode(without_timing(body)),
            timing=timing,
            created_ms=0,
            next_ms=timing.run_at_ms or timing.next_ms(round(time.time() * 1000)),
            last_ms=0,
            last_id="",
            error=None,
        )
        digest = hashlib.sha256(_canonical([kind, body])).hexdigest()
        async with answer_deadline():
            added = await self.store.add(schedule, key=key, digest=digest)
            if added.how == "full":
                raise _full(self.store.schedules_max)
            if added.how == "mismatch":
                raise request_error(
                    "idempotency_mismatch",
                    "this Idempotency-Key was used with another request: send a new key",
                )
            await wake_jobs(self.node.redis)
            found = await self.store.get(added.schedule_id)
        if found is None:  # another request has deleted it
            raise NotFound("schedule")
        location = {"location": f"/v1/schedules/{found.id}"}
        return json_response(schedule_object(found), 202 if added.how == "ok" else 200, location)

    async def list(self, request: Request) -> ASGIApp:
        """GET /v1/schedules: a page, the newest first; with `owner=*` see `_list_unfinished`."""
        owner, names_owners = self.node.listed_owner(request)
        if owner == EVERYBODY:
            return await self._list_unfinished(request)
        before_ms = read_before_ms(request)
        async with answer_deadline():
            found = await self.store.page(owner, PAGE_SCHEDULES + 1, before_ms=before_ms)
        page = found[:PAGE_SCHEDULES]
        has_more = len(found) > PAGE_SCHEDULES
        return json_response(
            {
                "schedules": [schedule_object(each, names_owner=names_owners) for each in page],
                "next_before": page[-1].created_ms if has_more else None,
            }
        )

    async def _list_unfinished(self, request: Request) -> ASGIApp:
        """Return a page of the unfinished schedules of all owners, the next due one first."""
        after = request.query_params.get("after", "")
        async with answer_deadline():
            found = await self.store.unfinished(PAGE_SCHEDULES + 1, after=after)
        page = found[:PAGE_SCHEDULES]
        has_more = len(found) > PAGE_SCHEDULES
        return json_response(
            {
                "schedules": [schedule_object(each, names_owner=True) for each in page],
                "next_before": None,
                "next_after": page[-1].id if has_more else None,
            }
        )

    async def get(self, request: Request) -> ASGIApp:
        """GET /v1/schedules/{id}."""
        owner = self.node.owner(request)
        async with answer_deadline():
            return json_response(schedule_object(await self._find(request, owner)))

    async def delete(self, request: Request) -> ASGIApp:
        """DELETE /v1/schedules/{id}: it starts nothing more; what it has started goes on."""
        owner = self.node.owner_to_end(request)
        async with answer_deadline():
            schedule = await self._find(request, owner)
            await self.store.delete(schedule)
        return json_response({"id": schedule.id, "object": "schedule", "deleted": True})

    async def _find(self, request: Request, owner: str) -> Schedule:
        schedule_id = request.path_params["id"]
        is_id = schedule_id.startswith(PREFIX) and is_generation_id(schedule_id)
        found = await self.store.get(schedule_id) if is_id else None
        if found is None or owner not in (found.owner, EVERYBODY):
            raise NotFound("schedule")
        return found


def schedule_object(schedule: Schedule, *, names_owner: bool = False) -> dict[str, Any]:
    """Return the JSON members of a schedule. Its request is left out: it may hold a secret."""
    timing = schedule.timing
    error = schedule.error
    return {
        **({"owner": schedule.owner} if names_owner else {}),
        "id": schedule.id,
        "object": "schedule",
        "kind": schedule.kind,
        "run_at": timing.run_at_ms // 1000 or None,
        "cron": timing.cron or None,
        "timezone": timing.timezone if timing.cron else None,
        "next_run_at": schedule.next_ms // 1000 if schedule.next_ms else None,
        "last_run_at": schedule.last_ms // 1000 or None,
        "last_id": schedule.last_id or None,
        "last_error": {"code": error[0], "message": error[1]} if error else None,
        "created_at": schedule.created_ms // 1000,
    }


def _full(schedules_max: int) -> Exception:
    return request_error(
        "too_many_schedules", f"{schedules_max} schedules are waiting already: delete one"
    )
