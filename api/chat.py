"""POST /v1/chat/completions: OpenAI's chat completions, streamed or whole.

What the body asks for, and how it is answered; the bytes are api/dialects/chat.py's. Members that
are not this system's own go to the backend as they are, also those that OpenAI does not know.
Source: docs/protocol.md, "Chat completions".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from api.body import check_messages, wrong
from api.dialects.chat import CHAT, INCLUDE_USAGE, completion
from api.dialects.openai import as_request_error, failure_of, openai_shape
from api.node import Node, error_response, long_json_response
from api.snapshot import Snapshot
from api.start import Asked, start
from api.stream import stream
from api.whole import whole_or_refusal
from shared.outcomes import Meta
from shared.request import Request

# Everything else is the backend's.
_OURS = frozenset(
    (
        "model", "messages", "stream", "stream_options", "n",
        "session", "metadata", "priority", "on_disconnect",
    )
)  # fmt: skip


@dataclass(frozen=True)
class ChatAsked(Asked):
    """What a body asks for; `is_stream` is of this request alone, not of the generation."""

    is_stream: bool = False


class Chat:
    """The handlers of chat completions."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def create(self, request: HttpRequest) -> ASGIApp:
        """POST /v1/chat/completions."""
        meta, asked = await start(self.node, request, self._parse)
        if asked.is_stream:
            return self._stream(meta)
        snapshot = Snapshot(meta)
        refusal = await whole_or_refusal(
            self.node.hub, meta, request.receive, snapshot.add, openai_shape
        )
        if refusal is not None:
            return refusal
        headers = {"x-generation-id": meta.generation_id}
        assert snapshot.end is not None
        failure = failure_of(snapshot.end)
        if failure is not None:
            return error_response(as_request_error(failure), openai_shape, headers)
        return await long_json_response(completion(meta, snapshot), headers=headers)

    def _parse(self, body: dict[str, Any]) -> ChatAsked:
        return parse_chat(body, grace_s=self.node.settings.grace_s)

    def _stream(self, meta: Meta) -> ASGIApp:
        headers = [(b"x-generation-id", meta.generation_id.encode())]

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await stream(
                self.node.hub, scope, receive, send, meta=meta, dialect=CHAT, headers=headers
            )

        return answer


def parse_chat(body: dict[str, Any], *, grace_s: float) -> ChatAsked:
    """Read the members of a chat completion.

    Raises:
        RequestError: 422.
    """
    if "messages" not in body:
        raise wrong("messages is missing")
    if body.get("n", 1) != 1:
        raise wrong("n: one generation is one answer")
    is_stream = body.get("stream", False)
    if not isinstance(is_stream, bool):
        raise wrong("stream must be true or false")
    options = body.get("stream_options", {})
    if not isinstance(options, dict):
        raise wrong("stream_options must be an object")
    request = Request(
        messages=check_messages(body["messages"]),
        params={name: value for name, value in body.items() if name not in _OURS},
        dialect={INCLUDE_USAGE: True} if options.get(INCLUDE_USAGE) is True else {},
    )
    return ChatAsked(request, grace_s, is_stream=is_stream)
