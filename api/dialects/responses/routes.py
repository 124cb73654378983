"""/v1/responses: OpenAI's Responses, in the foreground and in the background.

The bytes are api/dialects/responses/fold.py's. While the log is kept, a client can read on with
`starting_after` at any node, in the foreground and in the background. A response with `store:
false` exists only for the request that created it. Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deadline import answer_deadline
from api.dialects.held_stream import held_stream
from api.dialects.openai_errors import GenerationFailed, failure_of, openai_shape
from api.dialects.prompt import accept_post
from api.dialects.responses.fold import RESPONSES
from api.dialects.responses.ignored import IGNORED_HEADER, ignored_header
from api.dialects.responses.repeats import Repeats
from api.dialects.responses.request import ResponseRequest, parse_response
from api.dialects.responses.response_object import (
    response_id,
)
from api.dialects.responses.stored import CompleteResponse, StoredResponses, input_items
from api.hub.relay import Relay
from api.intake.body import invalid_request
from api.intake.paging import read_limit, read_number
from api.node import Node
from api.readers.chunk_number import locate
from api.readers.complete_answer import complete_log_or_error
from api.readers.http_stream import Begin, Beginning, stream
from api.response import error_response, json_response, long_json_response
from shared.config.credentials import Identity
from shared.erasure.generations import GenerationEraser
from shared.errors import NotFound
from shared.log.events import End, Failure
from shared.log.ids import EventId
from shared.log.records import Meta
from shared.queue.endings import cancel

log = logging.getLogger(__name__)

PAGE_ITEMS, PAGE_ITEMS_MAX = 20, 100  # the default and the bound of `limit`


class ResponsesRoutes:
    """The handlers of /v1/responses and of the paths below it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.stored = StoredResponses(node)
        self.repeats = Repeats(node, self.stored)
        self.eraser = GenerationEraser(node.redis, node.store, node.settings)

    async def create(self, request: HttpRequest) -> ASGIApp:
        """POST /v1/responses."""
        meta, parsed = await accept_post(
            self.node, request, self._parse, complete=self._complete, needs_request=True
        )
        headers = {"x-generation-id": meta.generation_id, **ignored_header(parsed.ignored)}
        if parsed.ignored:
            log.warning("left out parts of a request", extra={
                "generation_id": meta.generation_id, "places": headers[IGNORED_HEADER],
            })  # fmt: skip
        if parsed.is_stream and not parsed.is_background:
            return held_stream(self.node.hub, meta, RESPONSES, headers, failure_of=_failure_of)
        if parsed.is_stream:
            raw = [(name.encode(), value.encode()) for name, value in headers.items()]
            return self._stream(meta, headers=raw)
        if parsed.is_background:
            async with answer_deadline():
                response = await self.stored.response(meta)
            return await long_json_response(response, headers=headers)
        fold = CompleteResponse(meta)
        refusal = await complete_log_or_error(
            self.node.hub, meta, request.receive, fold.add, openai_shape
        )
        if refusal is not None:
            return refusal
        failure = None if fold.end is None else _failure_of(fold.end)
        if failure is not None:
            return error_response(GenerationFailed(failure), openai_shape, headers)
        return await long_json_response(fold.response(), headers=headers)

    def _parse(self, body: dict[str, Any]) -> ResponseRequest:
        return parse_response(body, grace_s=self.node.settings.grace_s)

    async def _complete(self, parsed: ResponseRequest, viewer: Identity) -> ResponseRequest:
        return await self.repeats.with_turn(await self.stored.complete(parsed, viewer), viewer)

    async def get(self, request: HttpRequest) -> ASGIApp:
        """GET /v1/responses/{id}: the object, or with `stream=true` the events."""
        viewer, response = self.node.identity(request), request.path_params["id"]
        query = request.query_params
        is_stream = _read_flag("stream", query.get("stream", ""))
        after = query.get("starting_after", "")
        number = read_number("starting_after", after) + 1 if after else 0
        since_s = asyncio.get_running_loop().time()
        if not is_stream:
            async with answer_deadline():
                return await long_json_response(
                    await self.stored.response(await self.stored.find(response, viewer))
                )
        if not number:
            return self._stream(
                await self.stored.with_request(await self.stored.find(response, viewer))
            )

        async def begin(relay: Relay) -> Beginning:
            async with answer_deadline(since_s):
                place = await locate(self.node.hub, relay, RESPONSES, number)
            return Beginning(place.cursor, head=place.head)

        # A client with a number has seen the response: wait if Redis has just lost it.
        meta = await self.stored.find(response, viewer, EventId(1, 1))
        return self._stream(await self.stored.with_request(meta), begin)

    async def cancel(self, request: HttpRequest) -> ASGIApp:
        """POST /v1/responses/{id}/cancel: stop the generation and keep its output so far."""
        viewer = self.node.identity(request)
        async with answer_deadline():
            before = await self.stored.find(request.path_params["id"], viewer)
            by = self.node.asker(viewer, before)
            meta = await cancel(self.node.store, before.generation_id, by=by) or before
            return await long_json_response(await self.stored.response(meta))

    async def delete(self, request: HttpRequest) -> ASGIApp:
        """DELETE /v1/responses/{id}: cancel the generation and delete it for every dialect."""
        viewer = self.node.identity(request)
        async with answer_deadline():
            meta = await self.stored.find(request.path_params["id"], viewer)
            await self.eraser.erase(meta)
        content = {"id": response_id(meta.generation_id), "object": "response", "deleted": True}
        return json_response(content)

    async def input_items(self, request: HttpRequest) -> ASGIApp:
        """GET /v1/responses/{id}/input_items."""
        viewer, query = self.node.identity(request), request.query_params
        limit = read_limit(query, PAGE_ITEMS, PAGE_ITEMS_MAX)
        order = query.get("order") or "desc"
        if order not in ("asc", "desc"):
            raise invalid_request("order must be asc or desc")
        async with answer_deadline():
            meta = await self.stored.with_request(
                await self.stored.find(request.path_params["id"], viewer)
            )
        items = input_items(meta)
        if order == "desc":
            items.reverse()
        return json_response(_page(items, query.get("after", ""), limit))

    def _stream(
        self,
        meta: Meta,
        begin: Begin | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await stream(
                self.node.hub, scope, receive, send,
                meta=meta, dialect=RESPONSES, headers=headers or (), begin=begin,
            )  # fmt: skip

        return answer


def _failure_of(end: End) -> Failure | None:
    """Return why a generation failed. None: it did not; a cancelled response is no failure."""
    return failure_of(end) if end.status == "failed" else None


def _page(items: list[dict[str, Any]], after: str, limit: int) -> dict[str, Any]:
    ids = [item["id"] for item in items]
    if after:
        if after not in ids:
            raise NotFound("item of this response")
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > limit,
    }


def _read_flag(name: str, value: str) -> bool:
    if value not in ("", "true", "false"):
        raise invalid_request(f"{name} must be true or false")
    return value == "true"
