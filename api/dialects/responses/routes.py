"""/v1/responses: OpenAI's Responses, in the foreground and in the background.

Who may have what, and how it is answered; the bytes are api/dialects/responses/fold.py's. Reading
goes on by `starting_after` on any node as long as the log is kept, foreground or background. A
response with `store: false` is there for its own request only. Source: docs/protocol.md,
"Responses".
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dialects.openai_errors import as_request_error, failure_of, openai_shape
from api.dialects.responses.fold import RESPONSES, ResponsesFold
from api.dialects.responses.input import items_of, messages_of
from api.dialects.responses.request import ResponseRequest, parse_response
from api.dialects.responses.response_object import (
    INSTRUCTED,
    UNSTORED,
    generation_id,
    response_id,
)
from api.dialects.start import start
from api.errors import request_error
from api.hub.relay import Relay
from api.intake.body import wrong
from api.intake.paging import read_limit, read_number
from api.node import Node, answering, error_response, json_response, long_json_response
from api.readers.chunk_number import locate
from api.readers.complete_answer import whole_or_refusal
from api.readers.http_stream import Begin, Beginning, stream
from api.readers.lookup import find
from shared.errors import Expired, NotFound
from shared.log.ids import START, EventId
from shared.log.log_reader import read_log
from shared.log.records import Meta
from shared.log.request import decode_request, dialect_of
from shared.queue.endings import cancel
from shared.text.json_values import has_too_many_values

LIMIT, LIMIT_MAX = 20, 100  # items of a page


class ResponsesRoutes:
    """The handlers of /v1/responses and what is below it."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def create(self, request: HttpRequest) -> ASGIApp:
        """POST /v1/responses."""
        meta, asked = await start(
            self.node, request, self._parse, complete=self._go_on, needs_request=True
        )
        if asked.is_stream:
            return self._stream(meta, headers=[(b"x-generation-id", meta.generation_id.encode())])
        headers = {"x-generation-id": meta.generation_id}
        if asked.is_background:
            async with answering():
                response = await self._response(meta)
            return await long_json_response(response, headers=headers)
        fold = _CompleteResponse(meta)
        refusal = await whole_or_refusal(
            self.node.hub, meta, request.receive, fold.add, openai_shape
        )
        if refusal is not None:
            return refusal
        end = fold.end
        failure = failure_of(end) if end is not None and end.status == "failed" else None
        if failure is not None:
            return error_response(as_request_error(failure), openai_shape, headers)
        return await long_json_response(fold.response(), headers=headers)

    def _parse(self, body: dict[str, Any]) -> ResponseRequest:
        return parse_response(body, grace_s=self.node.settings.grace_s)

    async def _go_on(self, asked: ResponseRequest, owner: str) -> ResponseRequest:
        """Put the conversation that a new response goes on from before its own input."""
        if not asked.previous:
            return asked
        async with answering():
            meta = await self._meta(asked.previous, owner)
            if not meta.is_ended:
                raise wrong("previous_response_id: that response has not ended yet")
            meta = await self._with_request(meta)
            before = decode_request(meta.request)
            output = (await self._response(meta))["output"]
        # Its instructions were for itself alone.
        known = before.messages[1 if INSTRUCTED in before.dialect else 0 :]
        known += messages_of(msgspec.json.decode(msgspec.json.encode(output)))
        own = asked.request
        place = 1 if INSTRUCTED in own.dialect else 0
        messages = [*own.messages[:place], *known, *own.messages[place:]]
        encoded = msgspec.json.encode(messages)
        if len(encoded) > self.node.settings.body_bytes_max or has_too_many_values(encoded):
            raise request_error("body_too_large", "the conversation has become too large")
        return replace(asked, request=msgspec.structs.replace(own, messages=messages))

    async def get(self, request: HttpRequest) -> ASGIApp:
        """GET /v1/responses/{id}: the object, or with `stream=true` the events."""
        owner, named = self.node.owner(request), request.path_params["id"]
        query = request.query_params
        is_stream = _is_true("stream", query.get("stream", ""))
        after = query.get("starting_after", "")
        number = read_number("starting_after", after) + 1 if after else 0
        since_s = asyncio.get_running_loop().time()
        if not is_stream:
            async with answering():
                return await long_json_response(
                    await self._response(await self._meta(named, owner))
                )
        if not number:
            return self._stream(await self._with_request(await self._meta(named, owner)))

        async def begin(relay: Relay) -> Beginning:
            async with answering(since_s):
                place = await locate(self.node.hub, relay, RESPONSES, number)
            return Beginning(place.cursor, head=place.head)

        # Whoever counts has seen it: what Redis has just lost is waited for.
        meta = await self._meta(named, owner, EventId(1, 1))
        return self._stream(await self._with_request(meta), begin)

    async def cancel(self, request: HttpRequest) -> ASGIApp:
        """POST /v1/responses/{id}/cancel: what has been generated stays."""
        owner = self.node.owner(request)
        async with answering():
            before = await self._meta(request.path_params["id"], owner)
            meta = await cancel(self.node.store, before.generation_id) or before
            return await long_json_response(await self._response(meta))

    async def delete(self, request: HttpRequest) -> ASGIApp:
        """DELETE /v1/responses/{id}: stopped, and gone for every dialect."""
        owner, store = self.node.owner(request), self.node.store
        async with answering():
            meta = await self._meta(request.path_params["id"], owner)
            if not meta.is_ended:
                await cancel(store, meta.generation_id)  # its readers are told an end
            await store.delete(meta.generation_id)
        named = {"id": response_id(meta.generation_id), "object": "response", "deleted": True}
        return json_response(named)

    async def input_items(self, request: HttpRequest) -> ASGIApp:
        """GET /v1/responses/{id}/input_items."""
        owner, query = self.node.owner(request), request.query_params
        limit = read_limit(query, LIMIT, LIMIT_MAX)
        order = query.get("order") or "desc"
        if order not in ("asc", "desc"):
            raise wrong("order must be asc or desc")
        async with answering():
            meta = await self._with_request(await self._meta(request.path_params["id"], owner))
        asked = decode_request(meta.request)
        messages = asked.messages[1 if INSTRUCTED in asked.dialect else 0 :]
        items = items_of(messages, meta.generation_id.removeprefix("gen_"))
        if order == "desc":
            items.reverse()
        return json_response(_page(items, query.get("after", ""), limit))

    # What they share

    async def _meta(self, named: str, owner: str, cursor: EventId = START) -> Meta:
        """Return the generation of a response that was stored, without its request.

        Raises:
            NotFound, Unavailable.
        """
        hub, store = self.node.hub, self.node.store
        try:
            meta = await find(hub, store, owner, generation_id(named), cursor)
        except NotFound:
            raise NotFound("response") from None
        if UNSTORED in dialect_of(meta):
            raise NotFound("response")
        return meta

    async def _with_request(self, meta: Meta) -> Meta:
        """Return the generation with what was asked for, which a response says back.

        Raises:
            NotFound, RequestError, Unavailable.
        """
        if meta.request:
            return meta
        async with self.node.heavy_reads.turn(meta.owner):
            found = await self.node.store.with_request(meta)
        if found is None:
            raise NotFound("response")
        return found

    async def _response(self, meta: Meta) -> dict[str, Any]:
        fold = _CompleteResponse(await self._with_request(meta))
        async with self.node.heavy_reads.turn(meta.owner):
            last = await read_log(self.node.store, meta.generation_id, fold.add)
        if meta.is_ended and last == START:
            raise Expired
        return fold.response()

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


class _CompleteResponse:
    """The same fold, for who wants the object and none of the events."""

    def __init__(self, meta: Meta) -> None:
        self._fold = ResponsesFold(meta)
        self.response = self._fold.response

    def add(self, event_id: EventId, raw: bytes) -> None:
        self._fold.add(event_id, raw)

    @property
    def end(self) -> Any:
        return self._fold.end


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


def _is_true(name: str, value: str) -> bool:
    if value not in ("", "true", "false"):
        raise wrong(f"{name} must be true or false")
    return value == "true"
