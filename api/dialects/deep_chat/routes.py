"""POST /deep-chat: a request of the chat component deep-chat, streamed or in one piece.

The bytes are api/dialects/deep_chat/fold.py's. Source: docs/protocol.md, "deep-chat".
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dialects.deep_chat.fold import DEEP_CHAT, CompleteAnswer, deep_chat_shape
from api.dialects.deep_chat.form import read_form
from api.dialects.deep_chat.request import parse_deep_chat
from api.dialects.failure import client_refusal, shown
from api.dialects.prompt import accept_post
from api.intake.dialect_request import DialectRequest
from api.intake.negotiation import names_event_stream
from api.node import Node
from api.readers.complete_answer import complete_log_or_error
from api.readers.http_stream import stream
from api.response import error_response, long_json_response
from shared.errors import RequestError
from shared.log.events import Failure
from shared.log.records import Meta


class DeepChatRoutes:
    """The handler of POST /deep-chat."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def create(self, request: HttpRequest) -> ASGIApp:
        """POST /deep-chat."""
        meta, _ = await accept_post(self.node, request, self._parse, read_form=read_form)
        if names_event_stream(request.headers.get("accept", "")):
            return self._stream(meta)
        answer = CompleteAnswer(meta)
        refusal = await complete_log_or_error(
            self.node.hub, meta, request.receive, answer.add, deep_chat_shape
        )
        if refusal is not None:
            return refusal
        headers = {"x-generation-id": meta.generation_id}
        failure = answer.failure
        if failure is not None:
            return error_response(_failed(failure), deep_chat_shape, headers)
        return await long_json_response(answer.response, headers=headers)

    def _parse(self, body: dict[str, Any]) -> DialectRequest:
        return parse_deep_chat(body, grace_s=self.node.settings.grace_s)

    def _stream(self, meta: Meta) -> ASGIApp:
        headers = [(b"x-generation-id", meta.generation_id.encode())]

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await stream(
                self.node.hub, scope, receive, send, meta=meta, dialect=DEEP_CHAT, headers=headers
            )

        return answer


def _failed(failure: Failure) -> RequestError:
    refusal, told = client_refusal(failure), shown(failure)
    status = (refusal and refusal.status) or HTTPStatus.BAD_GATEWAY
    return RequestError(status, told.code, told.message, retryable=told.retryable)
