"""GET /ai-sdk/ws: the AI SDK's WebSocketChatTransport.

What each frame of a client means; the bytes are api/dialects/ai_sdk/fold.py's. Requests are named
by their `requestId`, chats as over HTTP. A lost socket stops nothing; `abort` does, on whatever
node the answer was started. Source: docs/protocol.md, "AI SDK".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from starlette.types import Scope, Send

from api.dialects.ai_sdk.fold import AiSdkFrames
from api.dialects.ai_sdk.request import parse_ai_sdk
from api.errors import request_error
from api.intake.body import new_generation, read_object
from api.node import Node
from api.readers.conversation import SUBSCRIPTIONS_MAX, Command, Conversation, Frame, SocketEndpoint
from shared.errors import Draining, RequestError
from shared.log.records import Meta
from shared.queue.chats import Chats
from shared.queue.endings import cancel

PATH = "/ai-sdk/ws"
REQUEST_ID_CHARACTERS_MAX = 256
KEY = "idempotency-key"


def ai_sdk_socket(node: Node) -> SocketEndpoint:
    """Return the ASGI application of /ai-sdk/ws."""
    return SocketEndpoint(node, PATH, AiSdkConversation)


class AiSdkConversation(Conversation):
    """Readings are named by the client's request."""

    def __init__(self, node: Node, owner: str, scope: Scope, send: Send) -> None:
        super().__init__(node, owner, scope, send)
        self.chats = Chats(node.redis, node.store, node.settings)
        self._runs: dict[str, str] = {}  # request -> generation, also a while after its end

    def say_error(self, frame: Any, error: RequestError) -> None:
        named = frame.get("requestId") if isinstance(frame, dict) else None
        # The client closes the socket at a frame without this member.
        request_id = named if isinstance(named, str) else ""
        text = f"{error.message} ({error.code})"
        self.socket.say(type="error", requestId=request_id, errorText=text)

    async def _send_messages(self, frame: Frame) -> None:
        request_id = _request_id(frame)
        if self.hub.is_draining:
            raise Draining()
        if request_id not in self.socket.subscriptions:
            self.check_room()
        sent = {**_object(frame, "body"), "id": frame.get("id"), "messages": frame.get("messages")}
        body = read_object(sent, bytes_max=self.node.settings.body_bytes_max)
        asked = await self.step(lambda: parse_ai_sdk(body))
        stops = await self.chats.stops(self.owner, asked.chat) if asked.chat else 0
        new = await self.step(
            lambda: new_generation(
                body,
                asked.request,
                owner=self.owner,
                models=self.node.models,
                settings=self.node.settings,
                idempotency_key=_idempotency_key(frame),
            )
        )
        accepted = await self.node.accept(new, is_read=True)
        meta = accepted.meta or await self.find(accepted.generation_id)
        if asked.chat:
            await self.chats.add(asked.chat, meta, stops)
        await self._tell(request_id, meta)

    async def _resume(self, frame: Frame) -> None:
        """Read the chat's running answer from its start, as this client always wants it."""
        request_id, chat = _request_id(frame), frame.get("id")
        if not isinstance(chat, str):
            raise request_error("invalid_request", "id must be a chat's")
        if request_id not in self.socket.subscriptions:
            self.check_room()
        meta = await self.chats.running(self.owner, chat)
        if meta is None:
            self.socket.say(type="no-active", requestId=request_id)
        else:
            await self._tell(request_id, meta)

    async def _tell(self, request_id: str, meta: Meta) -> None:
        for old in list(self._runs)[: max(0, len(self._runs) - 2 * SUBSCRIPTIONS_MAX)]:
            if old not in self.socket.subscriptions:
                del self._runs[old]
        self._runs[request_id] = meta.generation_id
        await self.open(request_id, meta, AiSdkFrames(meta, request_id))

    async def _abort(self, frame: Frame) -> None:
        """Cancel; of a request that nobody knows there is nothing to cancel."""
        generation_id = self._runs.get(_request_id(frame))
        if generation_id is not None:
            await cancel(self.node.store, generation_id)

    commands: ClassVar[Mapping[str, Command]] = {
        "send": _send_messages,
        "resume": _resume,
        "abort": _abort,
    }


def _request_id(frame: Frame) -> str:
    value = frame.get("requestId")
    if not isinstance(value, str) or not 0 < len(value) <= REQUEST_ID_CHARACTERS_MAX:
        raise request_error(
            "invalid_request", f"requestId: 1 to {REQUEST_ID_CHARACTERS_MAX} characters"
        )
    return value


def _object(frame: Frame, name: str) -> dict[str, Any]:
    value = frame.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise request_error("invalid_request", f"{name} must be an object")
    return value


def _idempotency_key(frame: Frame) -> str:
    """Return the key that the frame's `headers` carry."""
    for name, value in _object(frame, "headers").items():
        if name.lower() == KEY and isinstance(value, str):
            return value
    return ""
