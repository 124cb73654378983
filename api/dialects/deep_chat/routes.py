"""POST /deep-chat and GET /deep-chat/ws: the chat component deep-chat, pointed at a node.

What its requests ask for, and how they are answered; the bytes are
api/dialects/deep_chat/fold.py's. On a socket one answer is under way at a time, because two would
grow one bubble; what is asked meanwhile waits, and what is wrong is said when its turn comes. The
socket is refused at the handshake or served: deep-chat comes back at once when an accepted one is
closed. Source: docs/protocol.md, "deep-chat".
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dialects.deep_chat.fold import (
    DEEP_CHAT,
    STATUS_ROLE,
    CompleteDeepChat,
    DeepChatFrames,
    deep_chat_shape,
)
from api.dialects.deep_chat.form import member, read_form
from api.dialects.start import start
from api.errors import CODES, request_error, unavailable
from api.intake.body import check_params, new_generation, wrong
from api.intake.dialect_request import DialectRequest
from api.intake.negotiation import names_event_stream
from api.node import Node, answering, error_response, long_json_response
from api.readers.complete_answer import whole_or_refusal
from api.readers.conversation import Conversation, Frame, SocketEndpoint
from api.readers.http_stream import stream
from api.readers.lookup import read_query
from shared.errors import Draining, RequestError, Unavailable
from shared.log.records import Meta
from shared.log.request import Request

PATH = "/deep-chat/ws"
STOP_KEY = "stop-key"
STOP_KEY_CHARACTERS = (2, 256)
WAITING_MAX = 16  # requests of one socket; what comes beyond them is refused in its turn
TOO_MANY = 1008
ROLES = {"user": "user", "ai": "assistant", "assistant": "assistant", "system": "system"}


class DeepChatRoutes:
    """The handler of POST /deep-chat."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def create(self, request: HttpRequest) -> ASGIApp:
        """POST /deep-chat."""
        meta, _ = await start(self.node, request, self._parse, read_form=read_form)
        if names_event_stream(request.headers.get("accept", "")):
            return self._stream(meta)
        whole = CompleteDeepChat(meta)
        refusal = await whole_or_refusal(
            self.node.hub, meta, request.receive, whole.add, deep_chat_shape
        )
        if refusal is not None:
            return refusal
        headers = {"x-generation-id": meta.generation_id}
        failure = whole.failure
        if failure is not None:
            error = RequestError(502, failure.code, failure.message, retryable=failure.retryable)
            return error_response(error, deep_chat_shape, headers)
        return await long_json_response(whole.response, headers=headers)

    def _parse(self, body: dict[str, Any]) -> DialectRequest:
        return parse_deep_chat(body, grace_s=self.node.settings.grace_s)

    def _stream(self, meta: Meta) -> ASGIApp:
        headers = [(b"x-generation-id", meta.generation_id.encode())]

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await stream(
                self.node.hub, scope, receive, send, meta=meta, dialect=DEEP_CHAT, headers=headers
            )

        return answer


def deep_chat_socket(node: Node) -> SocketEndpoint:
    """Return the ASGI application of /deep-chat/ws."""
    return SocketEndpoint(node, PATH, DeepChatConversation)


class DeepChatConversation(Conversation):
    """Requests come in, answers go out in the same order, each closed by the stop key."""

    def __init__(self, node: Node, owner: str, scope: Scope, send: Send) -> None:
        super().__init__(node, owner, scope, send)
        self._key = read_stop_key(read_query(scope))
        # A request and its bytes, or what was wrong with it.
        self._waiting: asyncio.Queue[tuple[Frame, int] | RequestError] = asyncio.Queue()

    async def do(self, frame: Frame) -> None:
        if self._waiting.qsize() >= WAITING_MAX:
            raise request_error("rate_limited", f"at most {WAITING_MAX} requests wait on a socket")
        self._waiting.put_nowait((frame, self.frame_bytes))

    def say_error(self, frame: Any, error: RequestError) -> None:
        if self._waiting.qsize() >= 4 * WAITING_MAX:
            self.socket.close(TOO_MANY)
        else:
            self._waiting.put_nowait(error)

    def take_binary(self) -> None:
        self._tell(request_error("invalid_request", "frames are text: one JSON object"))
        super().take_binary()

    def errands(self) -> list[Coroutine[Any, Any, None]]:
        return [self._answer_in_turn()]

    async def _answer_in_turn(self) -> None:
        while True:
            turn = await self._waiting.get()
            try:
                if isinstance(turn, RequestError):
                    raise turn
                await self._answer(*turn)
            except Unavailable:
                self._tell(unavailable())
            except RequestError as exc:
                self._tell(exc)

    async def _answer(self, frame: Frame, size: int) -> None:
        if self.hub.is_draining:
            raise Draining()
        body = {name: value for name, value in frame.items() if value is not None}
        large, grace_s = self.node.large, self.node.settings.grace_s
        asked = await large.step(size, lambda: parse_deep_chat(body, grace_s=grace_s))
        new = await large.step(
            size,
            lambda: new_generation(
                body,
                asked.request,
                owner=self.owner,
                models=self.node.models,
                settings=self.node.settings,
                grace_s=asked.grace_s,
            ),
        )
        accepted = await self.node.accept(new, is_read=True)
        async with answering():
            meta = accepted.meta or await self.find(accepted.generation_id)
            subscription = await self.open("answer", meta, DeepChatFrames(meta, self._key))
        await subscription.ended()

    def _tell(self, error: RequestError) -> None:
        """Say what is wrong, where an answer would stand."""
        self.socket.say(error=error.message)
        self.socket.say(text=self._key)
        if error.code == "draining":
            self.socket.close(CODES["draining"].close)


def read_stop_key(query: dict[str, str]) -> str:
    """Return the text that ends an answer on this socket.

    Raises:
        RequestError: 422; a key of one character could not be told from a piece of an answer.
    """
    key = query.get("stop_key", STOP_KEY)
    least, most = STOP_KEY_CHARACTERS
    if not least <= len(key) <= most or not key.strip():
        raise wrong(f"stop_key: {least} to {most} characters, not only blanks")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise wrong("stop_key must be UTF-8") from None
    return key


def parse_deep_chat(body: dict[str, Any], *, grace_s: float) -> DialectRequest:
    """Read the members of a request of deep-chat's.

    Raises:
        RequestError: 422.
    """
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise wrong("messages must be an array that is not empty")
    read = [_message(f"messages[{index}]", each) for index, each in enumerate(messages)]
    said = [message for message in read if message is not None]
    if not said:
        raise wrong("messages must be an array that is not empty")
    # The one form in which a page can give them for requests with files and without.
    for name in ("params", "metadata"):
        if isinstance(body.get(name), str):
            body[name] = member(name, body[name])
    return DialectRequest(Request(messages=said, params=check_params(body)), grace_s)


def _message(where: str, message: Any) -> dict[str, Any] | None:
    """Return a message as backends take it; None: one that a model has not to do with."""
    if not isinstance(message, dict):
        raise wrong(f"{where} must be an object")
    role = message.get("role", "user")
    if not isinstance(role, str):
        raise wrong(f"{where}.role must be a string")
    # What we or the component have shown, and a client with history sends back.
    if role == STATUS_ROLE or message.get("error") is not None:
        return None
    text = message.get("text")
    if text is None:
        text = message.get("html")
    if text is not None and not isinstance(text, str):
        raise wrong(f"{where}.text must be a string")
    # People in the chat may have names: to a model they are all its user.
    role = ROLES.get(role, "user")
    pictures = _pictures(where, message.get("files")) if role == "user" else []
    if not text and not pictures:
        if message.get("files"):
            return None
        raise wrong(f"{where}.text is missing")
    if not pictures:
        return {"role": role, "content": text}
    parts = [{"type": "text", "text": text}] if text else []
    return {"role": role, "content": [*parts, *pictures]}


def _pictures(where: str, files: Any) -> list[dict[str, Any]]:
    """Return the pictures among the files that came with their content or address."""
    if files is None:
        return []
    if not isinstance(files, list) or not all(isinstance(each, dict) for each in files):
        raise wrong(f"{where}.files must be an array of objects")
    sources = [each.get("src") for each in files if each.get("type") == "image"]
    return [
        {"type": "image_url", "image_url": {"url": source}}
        for source in sources
        if isinstance(source, str)
    ]
