"""Generations over HTTP: start one, look at it, read its events, cancel it.

Each handler checks in the same order, so that the answer to a request that is wrong twice is always
the same: credentials, draining, what it wants to be answered in, then what it asks for. Streams are
api/dialects/native/events.py's; this module decides who may have one.
"""

from __future__ import annotations

from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dialects.native.events import events, stream_events
from api.errors import request_error
from api.intake.body import check_idempotency_key, parse_new_generation, read_body, read_object
from api.intake.negotiation import AnswerForm, choose_form
from api.intake.schedule_members import is_scheduled, without_timing
from api.node import Node, answering, json_response, long_json_response
from api.readers.lookup import read_cursor
from shared.errors import Expired, NotFound
from shared.later.schedules import PREFIX, marked
from shared.log.ids import START, EventId
from shared.log.log_reader import read_log
from shared.log.records import Meta
from shared.log.snapshot import Snapshot, events_url
from shared.queue.accept import Accepted, NewGeneration
from shared.queue.endings import cancel


class KeepSchedule(Protocol):
    """Keeps a request until it is due, and answers with the schedule."""

    async def __call__(
        self, owner: str, kind: str, body: dict[str, Any], *, key: str
    ) -> Response: ...


class GenerationRoutes:
    """The handlers of /v1/generations and what is below it.

    Args:
        keep_schedule: is given a body that says when, under the kind `generation`.
    """

    def __init__(self, node: Node, keep_schedule: KeepSchedule) -> None:
        self.node = node
        self._keep_schedule = keep_schedule

    async def create(self, request: Request) -> ASGIApp:
        """POST /v1/generations."""
        owner = self.node.owner(request)
        self.node.refuse_while_draining()
        form = choose_form(request.headers.get("accept"), "json")
        cursor = read_cursor(request.headers, request.query_params)
        body, key, size = await self._read(request)
        if is_scheduled(body):
            if form != "json":
                raise request_error("not_acceptable", "a schedule is answered in application/json")
            return await self._schedule(owner, body, key, size)
        new = await self._parse(body, owner, key, size)
        accepted = await self.node.accept(new, is_read=form != "json")
        if form == "json":
            return _accepted_response(accepted, new)
        async with answering():
            meta = accepted.meta or await self.node.meta(accepted.generation_id, owner)
        headers = [
            (b"location", f"/v1/generations/{meta.generation_id}".encode()),
            (b"x-generation-id", meta.generation_id.encode()),
        ]
        return self._stream(meta, cursor, form, headers)

    async def _read(self, request: Request) -> tuple[dict[str, Any], str, int]:
        """Return the members, the Idempotency-Key, and how many bytes the body had."""
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
        """Keep it until it is due; what would be refused now is refused now."""
        request = without_timing(body)
        await self._parse(request, owner, "", size)
        # As it will be then: larger.
        await self._parse(marked(request, PREFIX + "0" * 26), owner, "", size)
        return await self._keep_schedule(owner, "generation", body, key=key)

    async def snapshot(self, request: Request) -> ASGIApp:
        """GET /v1/generations/{id}."""
        owner = self.node.owner(request)
        async with answering():
            meta = await self.node.meta(request.path_params["id"], owner)
            async with self.node.heavy_reads.turn(owner):
                snapshot = await self._fold(meta)
        return await long_json_response(snapshot.fields())

    async def _fold(self, meta: Meta) -> Snapshot:
        whole = await self.node.store.with_request(meta)
        if whole is None:
            raise NotFound
        snapshot = Snapshot(whole)
        await read_log(self.node.store, meta.generation_id, snapshot.add)
        if meta.is_ended and snapshot.last_event_id == START:
            raise Expired
        return snapshot

    async def cancel(self, request: Request) -> ASGIApp:
        """POST /v1/generations/{id}/cancel."""
        owner = self.node.owner(request)
        async with answering():
            before = await self.node.meta(request.path_params["id"], owner)
            meta = await cancel(self.node.store, before.generation_id) or before
        return json_response({"id": meta.generation_id, "status": meta.status}, 202)

    async def events(self, request: Request) -> ASGIApp:
        """GET /v1/generations/{id}/events."""
        owner, generation_id = self.node.owner(request), request.path_params["id"]

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            await events(
                scope, receive, send,
                hub=self.node.hub, store=self.node.store, owner=owner, generation_id=generation_id,
            )  # fmt: skip

        return stream

    def _stream(
        self, meta: Meta, cursor: EventId, form: AnswerForm, headers: list[tuple[bytes, bytes]]
    ) -> ASGIApp:
        assert form != "json"

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            await stream_events(
                self.node.hub, scope, receive, send,
                meta=meta, cursor=cursor, transport=form, extra_headers=headers,
            )  # fmt: skip

        return stream


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
