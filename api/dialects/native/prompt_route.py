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
from api.dialects.native.producers import ProducerRoutes
from api.dialects.prompt import find_accepted, note_allowance
from api.errors import request_error
from api.intake.arriving_body import Buffer, read_body
from api.intake.audio_members import refuse_audio
from api.intake.body import CheckedMembers, check_idempotency_key, check_native
from api.intake.large_body import generation_in_steps, read_members
from api.intake.negotiation import choose_form
from api.intake.producer_members import is_produced
from api.intake.schedule_members import check_schedule_size, is_scheduled, without_timing
from api.intake.time_limit_members import with_timeout_header
from api.node import Node
from api.readers.lookup import read_cursor
from api.readers.place import take_place
from api.response import json_response
from shared.config.credentials import SCHEDULES
from shared.later.schedules import PREFIX, marked
from shared.log.records import Meta
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
        self._producers = ProducerRoutes(node)

    async def create(self, request: Request) -> ASGIApp:
        """POST /v1/generations.

        The checks always come in this order, so that a request with two mistakes always gets the
        same answer: credentials, draining, the form of the answer, the cursor, the body.
        """
        owner = self.node.owner(request)
        self.node.refuse_while_draining()
        form = choose_form(request.headers.get("accept"), "json")
        cursor = read_cursor(request.headers, request.query_params)
        key = request.headers.get("idempotency-key")
        if key is not None:
            check_idempotency_key(key)
        node = self.node
        async with node.bodies.body() as hold:
            raw = await read_body(
                request.headers, request.receive,
                bytes_max=node.settings.body_bytes_max, hold=hold,
            )  # fmt: skip
            async with node.bodies.turn(len(raw)):
                meta = await self._take(request, raw, owner, key=key or "", form=form)
        if isinstance(meta, Response):
            return meta
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

    async def _take(
        self, request: Request, raw: Buffer, owner: str, *, key: str, form: str
    ) -> Response | Meta:
        """Accept a body, and return its generation, or the complete response if `form` is json."""
        node = self.node
        body = await read_members(node.large, raw, bytes_max=node.settings.body_bytes_max)
        body = with_timeout_header(body, request.headers)
        if is_produced(body):
            if form != "json":
                raise request_error("not_acceptable", "producer is answered in application/json")
            return await self._producers.create(request, body, key=key, size=len(raw))
        if is_scheduled(body):
            if form != "json":
                raise request_error("not_acceptable", "a schedule is answered in application/json")
            node.require(request, SCHEDULES)
            async with answer_deadline():
                await node.note_planner(request)
            return await self._schedule(owner, body, key, len(raw))
        new = await self._parse(body, owner, key, len(raw))
        if form != "json":
            await take_place(request.scope)
        accepted = await node.acceptance.accept(
            new, node.identity(request), is_read=form != "json", note=note_allowance(request)
        )
        if form == "json":
            return _accepted_response(accepted, new)
        return await find_accepted(node, owner, accepted)

    async def _parse(self, body: dict[str, Any], owner: str, key: str, size: int) -> NewGeneration:
        node = self.node

        def check() -> CheckedMembers:
            return check_native(
                body, owner=owner, models=node.models, settings=node.settings, idempotency_key=key
            )

        return await generation_in_steps(node.large, size, check)

    async def _schedule(self, owner: str, body: dict[str, Any], key: str, size: int) -> Response:
        """Keep the request until it is due. A request that is invalid is refused now."""
        check_schedule_size(size)
        request = without_timing(body)
        refuse_audio(request, "when a schedule is due, no client is there to send audio")
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
