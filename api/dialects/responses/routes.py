"""/v1/responses: OpenAI's Responses, in the foreground and in the background.

The bytes are api/dialects/responses/fold.py's. While the log is kept, a client can read on with
`starting_after` at any node, in the foreground and in the background. A response with `store:
false` exists only for the request that created it. Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deadline import answer_deadline
from api.dialects.held_stream import held_stream
from api.dialects.openai_errors import GenerationFailed, failure_of, openai_shape
from api.dialects.prompt import accept_post
from api.dialects.responses.fold import RESPONSES, ResponsesFold
from api.dialects.responses.ignored import IGNORED_HEADER, ignored_header
from api.dialects.responses.input import items_of, messages_of
from api.dialects.responses.references import find_items
from api.dialects.responses.request import ResponseRequest, parse_response
from api.dialects.responses.response_object import (
    INSTRUCTED,
    UNSTORED,
    generation_id,
    response_id,
)
from api.errors import request_error
from api.hub.relay import Relay
from api.intake.body import invalid_request
from api.intake.paging import read_limit, read_number
from api.node import Node
from api.readers.chunk_number import locate
from api.readers.complete_answer import complete_log_or_error
from api.readers.http_stream import Begin, Beginning, stream
from api.readers.lookup import find_generation
from api.response import error_response, json_response, long_json_response
from shared.config.credentials import Identity
from shared.erasure.generations import GenerationEraser
from shared.errors import Expired, NotFound
from shared.log.events import End, Failure
from shared.log.ids import START, EventId
from shared.log.log_reader import read_log
from shared.log.records import Meta
from shared.log.request import decode_request, dialect_of
from shared.queue.endings import cancel
from shared.text.json_values import has_too_many_values
from shared.text.large import LongTexts

log = logging.getLogger(__name__)

PAGE_ITEMS, PAGE_ITEMS_MAX = 20, 100  # the default and the bound of `limit`


class ResponsesRoutes:
    """The handlers of /v1/responses and of the paths below it."""

    def __init__(self, node: Node) -> None:
        self.node = node
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
                response = await self._response(meta)
            return await long_json_response(response, headers=headers)
        fold = _CompleteResponse(meta)
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
        """Add what the request only names: items, and the conversation of the previous response.

        Raises:
            RequestError: as `find_items` and `_add_conversation`.
            Unavailable: Redis did not answer in time.
        """
        if parsed.references:
            async with answer_deadline():
                found = await find_items(
                    parsed.references, lambda response: self._items_of_ended(response, viewer)
                )
            parsed = parsed.with_items(found)
            await self._check_size(parsed.request.messages)
        return await self._add_conversation(parsed, viewer)

    async def _items_of_ended(self, response: str, viewer: Identity) -> list[dict[str, Any]]:
        """Return the input items and the output items of a response that has ended.

        Raises:
            NotFound: the viewer sees no such response, or it was not stored.
            Expired: its log is past its retention.
            RequestError: it has not ended, or too many large reads are running.
            Unavailable: Redis did not answer.
        """
        meta = await self._with_request(await self._find_stored(response, viewer))
        if not meta.is_ended:
            raise invalid_request("input: an item_reference to a response that has not ended yet")
        output = (await self._response(meta))["output"]
        found: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(output))
        return _input_items(meta) + found

    async def _check_size(self, messages: list[dict[str, Any]]) -> None:
        texts = LongTexts()
        encoded = msgspec.json.encode(await texts.taken(messages))
        size = sum(map(len, texts.parts(encoded)))
        if size > self.node.settings.body_bytes_max or has_too_many_values(encoded):
            raise request_error("body_too_large", "the conversation has become too large")

    async def _add_conversation(self, parsed: ResponseRequest, viewer: Identity) -> ResponseRequest:
        """Put the conversation of the previous response before the input of the new one.

        Raises:
            RequestError: 404, 422 or 413: the previous response does not exist or has not ended, or
                the conversation has become too large.
            Unavailable: Redis did not answer in time.
        """
        if not parsed.previous:
            return parsed
        async with answer_deadline():
            meta = await self._find_stored(parsed.previous, viewer)
            if not meta.is_ended:
                raise invalid_request("previous_response_id: that response has not ended yet")
            meta = await self._with_request(meta)
            previous = decode_request(meta.request)
            output = (await self._response(meta))["output"]
        # The instructions of a response do not apply to the responses that continue it.
        earlier = previous.messages[1 if INSTRUCTED in previous.dialect else 0 :]
        earlier += messages_of(msgspec.json.decode(msgspec.json.encode(output)))
        own = parsed.request
        place = 1 if INSTRUCTED in own.dialect else 0
        messages = [*own.messages[:place], *earlier, *own.messages[place:]]
        await self._check_size(messages)
        return replace(parsed, request=msgspec.structs.replace(own, messages=messages))

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
                    await self._response(await self._find_stored(response, viewer))
                )
        if not number:
            return self._stream(await self._with_request(await self._find_stored(response, viewer)))

        async def begin(relay: Relay) -> Beginning:
            async with answer_deadline(since_s):
                place = await locate(self.node.hub, relay, RESPONSES, number)
            return Beginning(place.cursor, head=place.head)

        # A client with a number has seen the response: wait if Redis has just lost it.
        meta = await self._find_stored(response, viewer, EventId(1, 1))
        return self._stream(await self._with_request(meta), begin)

    async def cancel(self, request: HttpRequest) -> ASGIApp:
        """POST /v1/responses/{id}/cancel: stop the generation and keep its output so far."""
        viewer = self.node.identity(request)
        async with answer_deadline():
            before = await self._find_stored(request.path_params["id"], viewer)
            by = self.node.asker(viewer, before)
            meta = await cancel(self.node.store, before.generation_id, by=by) or before
            return await long_json_response(await self._response(meta))

    async def delete(self, request: HttpRequest) -> ASGIApp:
        """DELETE /v1/responses/{id}: cancel the generation and delete it for every dialect."""
        viewer = self.node.identity(request)
        async with answer_deadline():
            meta = await self._find_stored(request.path_params["id"], viewer)
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
            meta = await self._with_request(
                await self._find_stored(request.path_params["id"], viewer)
            )
        items = _input_items(meta)
        if order == "desc":
            items.reverse()
        return json_response(_page(items, query.get("after", ""), limit))

    # Shared by the handlers

    async def _find_stored(self, response: str, viewer: Identity, cursor: EventId = START) -> Meta:
        """Return the generation of a response that was stored, without its request.

        Args:
            response: the id of the response.
            cursor: other than `START`, wait a moment for a generation that Redis has lost.

        Raises:
            NotFound: the viewer sees no such response, or it was not stored.
            Unavailable: Redis did not answer.
        """
        hub, store = self.node.hub, self.node.store
        try:
            meta = await find_generation(hub, store, viewer, generation_id(response), cursor)
        except NotFound:
            raise NotFound("response") from None
        if UNSTORED in dialect_of(meta):
            raise NotFound("response")
        return meta

    async def _with_request(self, meta: Meta) -> Meta:
        """Return the generation with its request, which a response object repeats.

        Raises:
            NotFound: the generation has been deleted or lost.
            RequestError: too many large reads are running.
            Unavailable: Redis did not answer.
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
    """The response object of a whole log: `ResponsesFold` without its events."""

    def __init__(self, meta: Meta) -> None:
        self._fold = ResponsesFold(meta)
        self.response = self._fold.response

    def add(self, event_id: EventId, raw: bytes) -> None:
        self._fold.add(event_id, raw)

    @property
    def end(self) -> End | None:
        return self._fold.end


def _failure_of(end: End) -> Failure | None:
    """Return why a generation failed. None: it did not; a cancelled response is no failure."""
    return failure_of(end) if end.status == "failed" else None


def _input_items(meta: Meta) -> list[dict[str, Any]]:
    stored = decode_request(meta.request)
    messages = stored.messages[1 if INSTRUCTED in stored.dialect else 0 :]
    return items_of(messages, meta.generation_id.removeprefix("gen_"))


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
