"""POST /v1/generations: accepts a prompt, answered with JSON or with the stream itself.

A body that says when it is due is kept as a schedule instead. Source: docs/protocol.md, "HTTP".
"""

from __future__ import annotations

from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deadline import answer_deadline
from api.dialects.native.events import stream_events
from api.dialects.prompt import find_accepted
from api.errors import request_error
from api.intake.body import check_idempotency_key, parse_new_generation, read_body, read_object
from api.intake.negotiation import choose_form
from api.intake.schedule_members import is_scheduled, without_timing
from api.node import Node
from api.readers.lookup import read_cursor
from api.response import json_response
from shared.config.credentials import SCHEDULES
from shared.later.schedules import PREFIX, marked
from shared.log.snapshot import events_url
from shared.queue.accept import Accepted, NewGeneration


class KeepSchedule(Protocol):
    """Keeps a request until it is due, and answers with the schedule."""

    async def __call__(
        self, owner: str, kind: str, body: dict[str, Any], *, key: str
    ) -> Response: ...


class PromptRoute:
    """The handler of POST /v1/generations.

    Args:
        keep_schedule: keeps a body that says when it is due, under the kind `generation`.
    """

    def __init__(self, node: Node, keep_schedule: KeepSchedule) -> None:
        self.node = node
        self._keep_schedule = keep_schedule

    async def create(self, request: Request) -> ASGIApp:
        """POST /v1/generations.

        The checks always come in this order, so that a request with two mistakes always gets the
        same answer: credentials, draining, the form of the answer, the cursor, the body.
        """
        owner = self.node.owner(request)
        self.node.refuse_while_draining()
        form = choose_form(request.headers.get("accept"), "json")
        cursor = read_cursor(request.headers, request.query_params)
        body, key, size = await self._read(request)
        if is_scheduled(body):
            if form != "json":
                raise request_error("not_acceptable", "a schedule is answered in application/json")
            self.node.require(request, SCHEDULES)
            async with answer_deadline():
                await self.node.note_planner(request)
            return await self._schedule(owner, body, key, size)
        new = await self._parse(body, owner, key, size)
        accepted = await self.node.acceptance.accept(new, is_read=form != "json")
        if form == "json":
            return _accepted_response(accepted, new)
        meta = await find_accepted(self.node, owner, accepted)
        headers = [
            (b"location", f"/v1/generations/{meta.generation_id}".encode()),
            (b"x-generation-id", meta.generation_id.encode()),
        ]

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            await stream_events(
                self.node.hub, scope, receive, send,
                meta=meta, cursor=cursor, transport=form, extra_headers=headers,
            )  # fmt: skip

        return stream

    async def _read(self, request: Request) -> tuple[dict[str, Any], str, int]:
        """Return the members, the Idempotency-Key, and the size of the body in bytes."""
        key = request.headers.get("idempotency-key")
        if key is not None:
            check_idempotency_key(key)
        bytes_max = self.node.settings.body_bytes_max
        raw = await read_body(request.headers, request.receive, bytes_max=bytes_max)
        body = await self.node.large.step(len(raw), lambda: read_object(raw, bytes_max=bytes_max))
        return body, key or "", len(raw)

    async def _parse(self, body: dict[str, Any], owner: str, key: str, size: int) -> NewGeneration:
        node = self.node

        def parse() -> NewGeneration:
            return parse_new_generation(
                body, owner=owner, models=node.models, settings=node.settings, idempotency_key=key
            )

        return await node.large.step(size, parse)

    async def _schedule(self, owner: str, body: dict[str, Any], key: str, size: int) -> Response:
        """Keep the request until it is due. A request that is invalid is refused now."""
        request = without_timing(body)
        await self._parse(request, owner, "", size)
        # When it is due, the request is larger: its metadata then names the schedule.
        await self._parse(marked(request, PREFIX + "0" * 26), owner, "", size)
        return await self._keep_schedule(owner, "generation", body, key=key)


def _accepted_response(accepted: Accepted, new: NewGeneration) -> Response:
    content = {
        "id": accepted.generation_id,
        "status": accepted.status,
        "model": new.model,
        "session": new.session or None,
        "created_at": accepted.created_at_ms // 1000,
        "events_url": events_url(accepted.generation_id),
    }
    location = {"location": f"/v1/generations/{accepted.generation_id}"}
    return json_response(content, 202 if accepted.is_new else 200, location)
