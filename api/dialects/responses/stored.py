"""Reads the responses that a request names: the response itself, its items, its conversation.

Over HTTP a response with `store: false` exists only for the request that created it. A socket may
name more of them: those that it has created or resumed (`known`), and for a `response.resume` all
of its owner. Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Any

import msgspec

from api.deadline import answer_deadline
from api.dialects.responses.fold import ResponsesFold
from api.dialects.responses.input import items_of, messages_of
from api.dialects.responses.references import find_items
from api.dialects.responses.request import ResponseRequest
from api.dialects.responses.response_object import INSTRUCTED, UNSTORED, generation_id
from api.errors import request_error
from api.intake.body import invalid_request
from api.node import Node
from api.readers.lookup import find_generation
from shared.config.credentials import Identity
from shared.errors import Expired, NotFound
from shared.log.events import End
from shared.log.ids import GENERATION_PREFIX, START, EventId
from shared.log.log_reader import read_log
from shared.log.records import Meta
from shared.log.request import decode_request, dialect_of
from shared.text.json_values import has_too_many_values
from shared.text.large import LongTexts

NOTHING: frozenset[str] = frozenset()


class CompleteResponse:
    """The response object of a whole log: `ResponsesFold` without its events."""

    def __init__(self, meta: Meta) -> None:
        self._fold = ResponsesFold(meta)
        self.response = self._fold.response

    def add(self, event_id: EventId, raw: bytes) -> None:
        self._fold.add(event_id, raw)

    @property
    def end(self) -> End | None:
        return self._fold.end


class StoredResponses:
    """The responses of one node's Redis."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def find(
        self,
        response: str,
        viewer: Identity,
        cursor: EventId = START,
        *,
        known: Container[str] = NOTHING,
    ) -> Meta:
        """Return the generation of a response, without its request.

        Args:
            response: the id of the response.
            cursor: other than `START`, wait a moment for a generation that Redis has lost.
            known: ids of responses that the viewer may name although they were not stored.

        Raises:
            NotFound: the viewer sees no such response, or it was not stored.
            Unavailable: Redis did not answer.
        """
        hub, store = self.node.hub, self.node.store
        try:
            meta = await find_generation(hub, store, viewer, generation_id(response), cursor)
        except NotFound:
            raise NotFound("response") from None
        if UNSTORED in dialect_of(meta) and response not in known:
            raise NotFound("response")
        return meta

    async def with_request(self, meta: Meta) -> Meta:
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

    async def response(self, meta: Meta) -> dict[str, Any]:
        """Return the response object after the entries that the log has now.

        Raises:
            Expired: the log is past its retention.
            NotFound, RequestError, Unavailable: as `with_request`.
        """
        fold = CompleteResponse(await self.with_request(meta))
        async with self.node.heavy_reads.turn(meta.owner):
            last = await read_log(self.node.store, meta.generation_id, fold.add)
        if meta.is_ended and last == START:
            raise Expired
        return fold.response()

    async def complete(self, parsed: ResponseRequest, viewer: Identity) -> ResponseRequest:
        """Add what the request only names: items, and the conversation of the previous response.

        Raises:
            RequestError: as `add_items` and `add_conversation`.
            Unavailable: Redis did not answer in time.
        """
        return await self.add_conversation(await self.add_items(parsed, viewer), viewer)

    async def add_items(self, parsed: ResponseRequest, viewer: Identity) -> ResponseRequest:
        """Add the items of stored responses that the input names.

        Raises:
            RequestError: as `find_items`, or the request has become too large.
            Unavailable: Redis did not answer in time.
        """
        if not parsed.references:
            return parsed
        async with answer_deadline():
            found = await find_items(
                parsed.references, lambda response: self._items_of_ended(response, viewer)
            )
        parsed = parsed.with_items(found)
        await self._check_size(parsed.request.messages)
        return parsed

    async def add_conversation(
        self, parsed: ResponseRequest, viewer: Identity, *, known: Container[str] = NOTHING
    ) -> ResponseRequest:
        """Put the conversation of the previous response before the input of the new one.

        Args:
            known: as of `find`.

        Raises:
            RequestError: 404, 422 or 413: the previous response does not exist or has not ended, or
                the conversation has become too large.
            Unavailable: Redis did not answer in time.
        """
        if not parsed.previous:
            return parsed
        async with answer_deadline():
            meta = await self.find(parsed.previous, viewer, known=known)
            if not meta.is_ended:
                raise invalid_request("previous_response_id: that response has not ended yet")
            meta = await self.with_request(meta)
            previous = decode_request(meta.request)
            output = (await self.response(meta))["output"]
        # The instructions of a response do not apply to the responses that continue it.
        earlier = previous.messages[1 if INSTRUCTED in previous.dialect else 0 :]
        earlier += messages_of(msgspec.json.decode(msgspec.json.encode(output)))
        own = parsed.request
        place = 1 if INSTRUCTED in own.dialect else 0
        messages = [*own.messages[:place], *earlier, *own.messages[place:]]
        await self._check_size(messages)
        return replace(parsed, request=msgspec.structs.replace(own, messages=messages))

    async def _items_of_ended(self, response: str, viewer: Identity) -> list[dict[str, Any]]:
        """Return the input items and the output items of a response that has ended.

        Raises:
            NotFound: the viewer sees no such response, or it was not stored.
            Expired: its log is past its retention.
            RequestError: it has not ended, or too many large reads are running.
            Unavailable: Redis did not answer.
        """
        meta = await self.with_request(await self.find(response, viewer))
        if not meta.is_ended:
            raise invalid_request("input: an item_reference to a response that has not ended yet")
        output = (await self.response(meta))["output"]
        found: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(output))
        return input_items(meta) + found

    async def _check_size(self, messages: list[dict[str, Any]]) -> None:
        texts = LongTexts()
        encoded = msgspec.json.encode(await texts.taken(messages))
        size = sum(map(len, texts.parts(encoded)))
        if size > self.node.settings.body_bytes_max or has_too_many_values(encoded):
            raise request_error("body_too_large", "the conversation has become too large")


def input_items(meta: Meta) -> list[dict[str, Any]]:
    """Return the input of a response, without its instructions, as items with ids."""
    stored = decode_request(meta.request)
    messages = stored.messages[1 if INSTRUCTED in stored.dialect else 0 :]
    return items_of(messages, meta.generation_id.removeprefix(GENERATION_PREFIX))
