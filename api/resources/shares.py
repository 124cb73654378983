"""/v1/share: tokens that read one generation or one session. Source: docs/protocol.md, "Shares"."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.intake.arriving_body import read_body
from api.intake.body import invalid_request, read_object, read_session
from api.node import Node
from api.response import json_response
from shared.errors import NotFound
from shared.later.shares import TTL_S_MAX

BODY_BYTES_MAX = 65_536  # the request names one generation or session
TTL_S = 3_600  # without `ttl_s`


class ShareRoutes:
    """The handlers of /v1/share and of the paths below it."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def create(self, request: Request) -> ASGIApp:
        """POST /v1/share."""
        identity = self.node.identity(request)
        async with self.node.bodies.body() as hold:
            raw = await read_body(
                request.headers, request.receive, bytes_max=BODY_BYTES_MAX, hold=hold
            )
        body = read_object(bytes(raw), bytes_max=BODY_BYTES_MAX)
        generation, session = _read_subject(body)
        ttl_s = _read_ttl_s(body.get("ttl_s", TTL_S))
        async with answer_deadline():
            if generation:
                await self.node.meta(generation, identity)
            share_id, token, expires_at = await self.node.shares.create(
                identity, generation=generation, session=session, ttl_s=ttl_s
            )
        return json_response({"id": share_id, "token": token, "expires_at": expires_at}, 201)

    async def delete(self, request: Request) -> ASGIApp:
        """DELETE /v1/share/{id}: of the caller; of any owner for an operator."""
        identity, share_id = self.node.identity(request), request.path_params["id"]
        owner = None if identity.is_operator else identity.owner
        async with answer_deadline():
            if not await self.node.shares.delete(share_id, owner):
                raise NotFound("share")
        self.node.share_watch.end(share_id)
        return json_response({"id": share_id, "deleted": True})


def _read_subject(body: dict[str, Any]) -> tuple[str, str]:
    """Return the generation and the session, one of which is empty."""
    given = [name for name in ("generation", "session") if name in body]
    if len(given) != 1:
        raise invalid_request("give either generation or session")
    if not isinstance(body[given[0]], str) or not body[given[0]]:
        raise invalid_request(f"{given[0]} must be a string that is not empty")
    return body.get("generation", ""), read_session(body)


def _read_ttl_s(value: Any) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 1 <= value <= TTL_S_MAX:
        raise invalid_request(f"ttl_s: a number of seconds from 1 to {TTL_S_MAX}")
    return int(value)
