"""POST /lobe-gateway/api/operations/…: LobeHub's server feeds an operation.

Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.dialects.lobe_gateway.asked import CONFIRMATION, TOOL_RESULT, USER_INPUT
from api.dialects.lobe_gateway.feed_body import (
    BODY_BYTES_MAX,
    Entries,
    FeedBody,
    confirmation_asked,
    executed,
    input_asked,
    pushed,
    read_feed,
    read_meta,
    read_operation,
    read_wait_s,
    status_told,
)
from api.dialects.lobe_gateway.feeder import Feeder
from api.dialects.lobe_gateway.patience import until_redis_answers
from api.dialects.lobe_gateway.replies import ReplyWaits
from api.dialects.prompt import note_allowance
from api.intake.arriving_body import read_body
from api.intake.body import check_idempotency_key
from api.readers.lookup import read_query
from api.response import json_response
from shared.log.feeding import draw_repeat_key, repeat_key

IDEMPOTENCY = "idempotency-key"
TIMEOUT, GATEWAY_TIMEOUT = "TIMEOUT", 504
EVENTS = "push"


class FeedRoutes:
    """The handlers of a feeder."""

    def __init__(self, feeder: Feeder) -> None:
        self.feeder = feeder
        self.node = feeder.node
        self.waits = ReplyWaits(feeder.node)

    async def init(self, request: Request) -> ASGIApp:
        """POST …/init: begin an operation; a repeat finds it."""
        identity = self.node.identity(request)
        self.node.refuse_while_draining()
        body = await self._body(request)
        generation_id = await self.feeder.begin(
            identity, body.operation, body.members.get("userId"), read_meta(body.members),
            note=note_allowance(request),
        )  # fmt: skip
        return _success(generation_id)

    async def push(self, request: Request) -> ASGIApp:
        """POST …/push-event and …/push-events."""
        return await self._put(request, pushed, EVENTS)

    async def update_status(self, request: Request) -> ASGIApp:
        """POST …/update-status."""
        return await self._put(request, status_told, "status")

    async def execute_tool(self, request: Request) -> ASGIApp:
        """POST …/tool-execute: a client runs a tool. With `timeout` the answer has the result."""
        body = await self._body(request)
        if "timeout" not in body.members:
            return _success(await self._write(request, body, executed(body), "execute"))
        entries = executed(body)
        call = str(body.members["data"]["toolCallId"])
        generation_id, reply = await self._ask(
            request, body, entries, "execute", wanted=(TOOL_RESULT, call)
        )
        if reply is None:
            return json_response({"success": False, "error": TIMEOUT}, GATEWAY_TIMEOUT)
        return json_response({"success": True, "generationId": generation_id, "result": reply})

    async def request_confirmation(self, request: Request) -> ASGIApp:
        """POST …/request-confirmation: answered when a client has confirmed or refused."""
        body = await self._body(request)
        entries, call = confirmation_asked(body)
        _, reply = await self._ask(
            request, body, entries, "confirmation", wanted=(CONFIRMATION, call)
        )
        if reply is None:
            return json_response({"approved": False, "error": TIMEOUT}, GATEWAY_TIMEOUT)
        return json_response({"approved": reply["approved"]})

    async def request_input(self, request: Request) -> ASGIApp:
        """POST …/request-input: answered when a client has sent a text."""
        body = await self._body(request)
        sent = request.headers.get(IDEMPOTENCY)
        entries, name = input_asked(body, "" if sent is None else check_idempotency_key(sent))
        _, reply = await self._ask(request, body, entries, "input", wanted=(USER_INPUT, name))
        if reply is None:
            return json_response({"content": "", "error": TIMEOUT}, GATEWAY_TIMEOUT)
        return json_response({"content": reply["content"]})

    async def status(self, request: Request) -> ASGIApp:
        """GET …/status: of an operation of this feeder."""
        operation = read_operation(read_query(request.scope).get("operationId"))
        async with answer_deadline():
            return json_response(await self.feeder.status(self.node.identity(request), operation))

    async def health(self, request: Request) -> ASGIApp:
        """GET …/health, for the probes of a deployment that had LobeHub's own gateway."""
        return PlainTextResponse("OK", headers={"cache-control": "no-store"})

    async def _put(
        self, request: Request, read: Callable[[FeedBody], Entries], kind: str
    ) -> ASGIApp:
        ticket = self.feeder.order.ticket()
        body = await self._body(request)
        return _success(await self._write(request, body, read(body), kind, ticket=ticket))

    async def _write(
        self, request: Request, body: FeedBody, entries: Entries, kind: str, *, ticket: int = -1
    ) -> str:
        """Write what a POST says; return the generation."""
        sent = request.headers.get(IDEMPOTENCY)
        name = entries.name
        if sent is not None:
            # Redis keeps no digest beside the key, so the same key with another body is another
            # POST: an event must not vanish.
            name = f"{check_idempotency_key(sent)} {body.digest()}"
        # Drawn once: a further try must not write again.
        key = repeat_key(kind, name) if name else draw_repeat_key()
        place = ticket if ticket >= 0 else self.feeder.order.ticket()
        identity = self.node.identity(request)

        async def write() -> str:
            generation_id = await self.feeder.find(
                identity, body.operation, is_early=kind == EVENTS
            )
            await self.feeder.put(generation_id, entries, ticket=place, repeat_key=key)
            return generation_id

        return await until_redis_answers(write)

    async def _ask(
        self,
        request: Request,
        body: FeedBody,
        entries: Entries,
        kind: str,
        *,
        wanted: tuple[str, str],
    ) -> tuple[str, dict[str, Any] | None]:
        """Write a question and wait for its reply; return the generation and the reply."""
        wait_s = read_wait_s(body.members)
        with self.waits.place():
            generation_id = await self._write(request, body, entries, kind)
            reply = await self.waits.first(
                generation_id, *wanted, wait_s=wait_s, receive=request.receive
            )
        return generation_id, reply

    async def _body(self, request: Request) -> FeedBody:
        node = self.node
        async with node.bodies.body() as hold:
            raw = await read_body(
                request.headers, request.receive, bytes_max=BODY_BYTES_MAX, hold=hold
            )
            return await node.large.step(len(raw), lambda: read_feed(bytes(raw)))


def _success(generation_id: str) -> Response:
    return json_response({"success": True, "generationId": generation_id})
