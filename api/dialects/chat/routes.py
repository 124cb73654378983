"""POST /v1/chat/completions: OpenAI's chat completions, streamed or in one piece.

The bytes are api/dialects/chat/fold.py's. Members that this system does not use itself go to the
backend unchanged, also those that OpenAI does not know. Source: docs/protocol.md, "Chat
completions".
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp

from api.dialects.chat.fold import CHAT, completion_object
from api.dialects.chat.request import ChatRequest, parse_chat
from api.dialects.held_stream import held_stream
from api.dialects.openai_errors import GenerationFailed, failure_of, openai_shape
from api.dialects.prompt import accept_post
from api.node import Node
from api.readers.complete_answer import complete_log_or_error
from api.response import error_response, long_json_response
from shared.log.snapshot import Snapshot


class ChatRoutes:
    """The handler of chat completions."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def create(self, request: HttpRequest) -> ASGIApp:
        """POST /v1/chat/completions."""
        meta, parsed = await accept_post(self.node, request, self._parse)
        headers = {"x-generation-id": meta.generation_id}
        if parsed.is_stream:
            return held_stream(self.node.hub, meta, CHAT, headers, failure_of=failure_of)
        snapshot = Snapshot(meta)
        refusal = await complete_log_or_error(
            self.node.hub, meta, request.receive, snapshot.add, openai_shape
        )
        if refusal is not None:
            return refusal
        assert snapshot.end is not None
        failure = failure_of(snapshot.end)
        if failure is not None:
            return error_response(GenerationFailed(failure), openai_shape, headers)
        return await long_json_response(completion_object(meta, snapshot), headers=headers)

    def _parse(self, body: dict[str, Any]) -> ChatRequest:
        return parse_chat(body, grace_s=self.node.settings.grace_s)
