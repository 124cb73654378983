"""/v1/break: the faults that the chat page of `tailrace up` asks for, and what has happened.

Only a node that the supervisor of `tailrace up` has started has these routes (api/app.py). The node
asks the supervisor (cli/up/break_control.py) and does nothing itself.

A stranger must not kill processes, so each request must come from this machine, without a proxy in
between, under a loopback name. A POST also carries the page's token, which only a page of the same
origin can read: another page of the same browser may send requests here, and cannot see answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from api.edge.host_names import is_loopback, read_host
from api.errors import request_error
from api.intake.body import invalid_request
from api.node import Node
from api.response import json_response
from api.transport.peer import is_passed_on, read_address
from shared.errors import NotFound

TOKEN_HEADER = "x-break-token"
CONTROL_S = 40.0  # a slot with many keys, and its tool, on a slow machine
REPLY_BYTES_MAX = 262_144
ACTIONS = ("node", "worker", "freeze", "redis", "slot")


class FaultRoutes:
    """The handlers of /v1/break.

    Attributes:
        control: where the supervisor listens, HOST:PORT/TOKEN; empty: this node has no supervisor,
            or can be reached by other machines.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        settings = node.settings
        self.control = settings.break_control if settings.is_loopback else ""
        self.token = secrets.token_hex(16)

    async def state(self, request: Request) -> ASGIApp:
        """GET /v1/break: the token, the faults that can be asked for, and what has happened.

        Query: `after`, the number of the last note that the page has.
        """
        self._check(request)
        after = request.query_params.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) < 10):
            raise invalid_request("after must be the number of a note")
        told = await self._ask({"do": "notes", "after": int(after)})
        return json_response({"token": self.token, **told})

    async def known_text(self, request: Request) -> ASGIApp:
        """GET /v1/break/{id}: the checksum of the demo's text for this generation."""
        self._check(request)
        meta = await self.node.meta(request.path_params["what"], self.node.identity(request))
        return json_response(await self._ask({"do": "text", "id": meta.generation_id}))

    async def break_it(self, request: Request) -> ASGIApp:
        """POST /v1/break/{what}: do one fault, for the generation of the query's `id`."""
        self._check(request)
        given = request.headers.get(TOKEN_HEADER, "")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            raise request_error("forbidden", f"{TOKEN_HEADER} is not the token of GET /v1/break")
        what = request.path_params["what"]
        if what not in ACTIONS:
            raise NotFound(f"fault: {what!r}; this node has {', '.join(ACTIONS)}")
        asked: dict[str, Any] = {"do": what, "pid": os.getpid()}
        if what != "node":
            identity = self.node.identity(request)
            meta = await self.node.meta(request.query_params.get("id", ""), identity)
            asked["id"] = meta.generation_id
            if what in ("worker", "freeze"):
                writer = await self.node.store.writer(meta.generation_id)
                if meta.is_ended or not writer or not meta.lease_ms:
                    raise invalid_request("no worker writes this answer now: ask something first")
                asked["worker"] = writer
        return json_response(await self._ask(asked), 202)

    def _check(self, request: Request) -> None:
        """Refuse every request that is not of this machine and of this node's own page.

        Raises:
            RequestError: 403.
        """
        address = read_address(request.client.host if request.client else "")
        host = read_host(request.headers.get("host", ""))
        is_near = address is not None and address.is_loopback
        is_own_name = host is not None and is_loopback(host)
        if (
            not is_near
            or not is_own_name
            or is_passed_on(request.headers.raw)
            or request.headers.get("sec-fetch-site", "same-origin") != "same-origin"
        ):
            raise request_error("forbidden", "faults are only for the page of this machine itself")

    async def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Ask the supervisor; return its answer.

        Raises:
            RequestError: 422, the supervisor refuses; 503, it does not answer.
        """
        place, _, token = self.control.partition("/")
        host, _, port = place.rpartition(":")
        try:
            async with asyncio.timeout(CONTROL_S):
                reader, writer = await asyncio.open_connection(
                    host, int(port), limit=REPLY_BYTES_MAX
                )
                try:
                    writer.write(json.dumps({"token": token, **asked}).encode() + b"\n")
                    told: dict[str, Any] = json.loads(await reader.readline())
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as exc:
            raise request_error("unavailable", "the supervisor does not answer") from exc
        if "refused" in told:
            raise invalid_request(str(told["refused"]))
        return told
