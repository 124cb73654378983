"""Producers outside of the workers: they write the log of a generation through any API node.

    POST /v1/generations  {"producer": true, …}   begin, and get the holder's token
    POST /v1/generations/{id}/events              append, and extend the lease
    POST /v1/generations/{id}/producer            take over from another producer

A node holds nothing of a producer: the log has the numbers of the events, and meta the token and
the lease. So each request may go to another node, and may be repeated. Source: docs/producers.md.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.dialects.denial import deny
from api.dialects.prompt import note_allowance
from api.errors import request_error
from api.intake.arriving_body import read_body
from api.intake.body import CheckedMembers, invalid_request, read_object
from api.intake.large_body import generation_in_steps
from api.intake.outside_events import APPEND_BYTES_MAX, CheckedAppend, check_append
from api.intake.producer_members import check_produced
from api.node import Node
from api.response import json_response
from shared.errors import Unavailable
from shared.log.ids import EventId
from shared.log.producing import (
    Appended,
    Denied,
    OutsideEvents,
    Tenure,
    append_outside,
    begin_producing,
    draw_token,
    initial_holder_token,
)
from shared.log.records import Meta
from shared.log.snapshot import events_url
from shared.queue.extension import Extensions
from shared.queue.leaving import forget
from shared.queue.producer_bytes import count_bytes
from shared.queue.time_limits import watch_producer

TOKEN_HEADER = "x-producer-token"
TAKE_OVER_BYTES_MAX = 65_536
ATTEMPT_DIGITS_MAX = 16  # below 2^53
TOKEN_CHARACTERS_MAX = 64


class ProducerRoutes:
    """The handlers of producers."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._extensions = Extensions(node.store)

    async def create(
        self, request: Request, body: dict[str, Any], *, key: str, size: int
    ) -> Response:
        """Create a generation and begin it, for POST /v1/generations with `producer`.

        Args:
            body: without the members that are null.
            key: the Idempotency-Key, or empty.
            size: bytes of the body.
        """
        node = self.node
        identity = node.identity(request)

        def check() -> CheckedMembers:
            return check_produced(
                body, owner=identity.owner, settings=node.settings, idempotency_key=key
            )

        new = await generation_in_steps(node.large, size, check)
        accepted = await node.acceptance.accept(
            new, identity, is_read=False, note=note_allowance(request)
        )
        generation_id = accepted.generation_id
        assert new.producer is not None
        async with answer_deadline():
            token = new.producer.initial_holder_token
            if not accepted.is_new:
                token = await initial_holder_token(node.store, generation_id)
            tenure = await begin_producing(node.store, generation_id, token, is_first=True)
            if isinstance(tenure, Denied):
                if tenure.reason == "absent":
                    raise Unavailable("Redis lost the generation just after its creation")
                deny(tenure)
        content = {
            **_tenure_members(tenure),
            "model": new.model,
            "session": new.session or None,
            "created_at": accepted.created_at_ms // 1000,
        }
        location = {"location": f"/v1/generations/{generation_id}"}
        return json_response(content, 201 if accepted.is_new else 200, location)

    async def take_over(self, request: Request) -> ASGIApp:
        """POST /v1/generations/{id}/producer: a new attempt; it fences the producer before it."""
        node = self.node
        async with answer_deadline():
            meta = await self._own(request)
        body = await self._body(request, TAKE_OVER_BYTES_MAX, may_be_empty=True)
        is_reset = body.get("reset", False)
        if not isinstance(is_reset, bool):
            raise invalid_request("reset must be true or false")
        async with answer_deadline():
            tenure = await begin_producing(
                node.store, meta.generation_id, draw_token(), is_first=False, is_reset=is_reset
            )
            if isinstance(tenure, Denied):
                await self._note_end(meta, tenure)
                deny(tenure)
            await watch_producer(node.store, meta.generation_id, tenure.lease_s)
        return json_response(_tenure_members(tenure))

    async def append(self, request: Request) -> ASGIApp:
        """POST /v1/generations/{id}/events."""
        async with answer_deadline():
            meta = await self._own(request)
        attempt, token = read_producer_token(request.headers.get(TOKEN_HEADER, ""))
        checked = check_append(await self._body(request, APPEND_BYTES_MAX))
        async with answer_deadline():
            return await self._append(meta, attempt, token, checked)

    async def _append(
        self, meta: Meta, attempt: int, token: str, checked: CheckedAppend
    ) -> Response:
        store = self.node.store
        outcome = await append_outside(
            store,
            OutsideEvents(
                meta.generation_id, token, attempt,
                checked.first_seq, checked.entries, checked.status,
            ),
        )  # fmt: skip
        if isinstance(outcome, Denied):
            await self._note_end(meta, outcome)
            deny(outcome)
        status = outcome.status
        if status == "running":
            status = await count_bytes(store, meta, outcome)
            await self._extensions.note(meta.generation_id, outcome)
        if status != "running":
            await forget(store, meta.generation_id)
        return json_response(_append_members(meta.generation_id, outcome, status))

    async def _own(self, request: Request) -> Meta:
        """Return a generation of the caller. Others who may read it may not write it.

        Raises:
            RequestError: 403; NotFound: the caller may not see it.
        """
        identity = self.node.identity(request)
        meta = await self.node.meta(request.path_params["id"], identity)
        if meta.owner != identity.owner:
            raise request_error("forbidden", "only the owner of this generation may write it")
        return meta

    async def _note_end(self, meta: Meta, denied: Denied) -> None:
        """Remove a generation from the indexes whose time or readers were over just now."""
        if denied.reason == "ended" and not meta.is_ended:
            await forget(self.node.store, meta.generation_id)

    async def _body(
        self, request: Request, bytes_max: int, *, may_be_empty: bool = False
    ) -> dict[str, Any]:
        node, empty = self.node, b"{}" if may_be_empty else b""
        async with node.bodies.body() as hold:
            raw = await read_body(
                request.headers, request.receive,
                bytes_max=bytes_max, hold=hold, is_any_type=may_be_empty,
            )  # fmt: skip
            return await node.large.step(
                len(raw), lambda: read_object(bytes(raw) or empty, bytes_max=bytes_max)
            )


def producer_token(attempt: int, token: str) -> str:
    """Return the token that a producer sends: its attempt, and the holder's token."""
    return f"{attempt}.{token}"


def read_producer_token(header: str) -> tuple[int, str]:
    """Return the attempt and the holder's token of the header `X-Producer-Token`.

    Raises:
        RequestError: 422, it is missing or not a producer's token.
    """
    attempt, _, token = header.partition(".")
    is_number = attempt.isascii() and attempt.isdigit() and len(attempt) <= ATTEMPT_DIGITS_MAX
    if not is_number or not 0 < len(token) <= TOKEN_CHARACTERS_MAX or not token.isalnum():
        raise invalid_request("send the header X-Producer-Token with producer_token of the answer")
    return int(attempt), token


def _tenure_members(tenure: Tenure) -> dict[str, Any]:
    return {
        "id": tenure.generation_id,
        "status": "running",
        "producer_token": producer_token(tenure.attempt, tenure.token),
        "attempt": tenure.attempt,
        "next_seq": tenure.next_seq,
        "lease_s": tenure.lease_s,
        "events_url": events_url(tenure.generation_id),
    }


def _append_members(generation_id: str, outcome: Appended, status: str) -> dict[str, Any]:
    top: EventId = outcome.top
    return {
        "id": generation_id,
        "status": status,
        "last_event_id": str(top),
        "next_seq": top.seq + 1,
    }
