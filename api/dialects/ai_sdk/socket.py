"""GET /ai-sdk/ws: the AI SDK's WebSocketChatTransport.

This module gives the frames of a client their meaning; the bytes are api/dialects/ai_sdk/fold.py's.
A request has a `requestId`, and chats have the same ids as over HTTP. When a socket is lost, its
answers go on; `abort` cancels an answer, on whatever node it was started. Source: docs/protocol.md,
"AI SDK".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from starlette.types import Scope, Send

from api.access import FRAMES
from api.dialects.ai_sdk.fold import AiSdkFrameFold
from api.dialects.ai_sdk.request import parse_ai_sdk
from api.dialects.prompt import accept_members
from api.errors import request_error
from api.intake.body import check_idempotency_key, read_object
from api.node import Node
from api.readers.conversation import SUBSCRIPTIONS_MAX, Command, Conversation, Frame
from api.readers.socket_endpoint import SocketEndpoint
from shared.config.credentials import Identity
from shared.errors import Draining, RequestError
from shared.log.records import Meta
from shared.queue.chats import Chats
from shared.queue.endings import cancel

PATH = "/ai-sdk/ws"
REQUEST_ID_CHARACTERS_MAX = 256
IDEMPOTENCY_KEY = "idempotency-key"


def ai_sdk_socket(node: Node) -> SocketEndpoint:
    """Return the ASGI application of /ai-sdk/ws."""
    return SocketEndpoint(node, PATH, AiSdkConversation)


class AiSdkConversation(Conversation):
    """The AI SDK's protocol. A subscription has its `requestId` as its key."""

    def __init__(self, node: Node, identity: Identity, scope: Scope, send: Send) -> None:
        super().__init__(node, identity, scope, send)
        self.chats = Chats(node.redis, node.store, node.settings, by=node.asker(""))
        # By `requestId`: the generation's id. Kept for a while after the end of the answer.
        self._runs: dict[str, str] = {}

    def send_error(self, frame: Any, error: RequestError) -> None:
        sent_id = frame.get("requestId") if isinstance(frame, dict) else None
        # The client closes the socket when a frame lacks this member.
        request_id = sent_id if isinstance(sent_id, str) else ""
        text = f"{error.message} ({error.code})"
        self.socket.say(type="error", requestId=request_id, errorText=text)

    async def _send_messages(self, frame: Frame) -> None:
        request_id = _read_request_id(frame)
        if self.hub.is_draining:
            raise Draining()
        if request_id not in self.socket.subscriptions:
            self.check_subscription_limit()
        own = {"id": frame.get("id"), "messages": frame.get("messages")}
        sent = {**_read_object_member(frame, "body"), **own}
        body = read_object(sent, bytes_max=self.node.settings.body_bytes_max)
        parsed = await self.step(lambda: parse_ai_sdk(body))
        stops = await self.chats.stops(self.owner, parsed.chat) if parsed.chat else 0
        meta = await accept_members(
            self.node, self.identity, body, parsed,
            size=self.frame_bytes, idempotency_key=_read_idempotency_key(frame),
        )  # fmt: skip
        if parsed.chat:
            await self.chats.add(parsed.chat, meta, stops)
        await self._open_run(request_id, meta)

    async def _resume(self, frame: Frame) -> None:
        """Send the chat's running answer from its start: this client keeps nothing of it."""
        request_id, chat = _read_request_id(frame), frame.get("id")
        if not isinstance(chat, str):
            raise request_error("invalid_request", "id must be a chat's")
        if request_id not in self.socket.subscriptions:
            self.check_subscription_limit()
        meta = await self.chats.running(self.identity, chat)
        if meta is None:
            self.socket.say(type="no-active", requestId=request_id)
        else:
            await self._open_run(request_id, meta)

    async def _open_run(self, request_id: str, meta: Meta) -> None:
        """Send the answer under `request_id`, and forget the oldest requests that have ended."""
        for old in list(self._runs)[: max(0, len(self._runs) - 2 * SUBSCRIPTIONS_MAX)]:
            if old not in self.socket.subscriptions:
                del self._runs[old]
        self._runs[request_id] = meta.generation_id
        await self.open(request_id, meta, AiSdkFrameFold(meta, request_id))

    async def _abort(self, frame: Frame) -> None:
        """Cancel the answer of a request; an unknown request is ignored."""
        generation_id = self._runs.get(_read_request_id(frame))
        if generation_id is not None:
            await cancel(self.node.store, generation_id, by=self.node.asker(self.owner))

    scopes = FRAMES[PATH]
    commands: ClassVar[Mapping[str, Command]] = {
        "send": _send_messages,
        "resume": _resume,
        "abort": _abort,
    }


def _read_request_id(frame: Frame) -> str:
    value = frame.get("requestId")
    if not isinstance(value, str) or not 0 < len(value) <= REQUEST_ID_CHARACTERS_MAX:
        raise request_error(
            "invalid_request", f"requestId: 1 to {REQUEST_ID_CHARACTERS_MAX} characters"
        )
    return value


def _read_object_member(frame: Frame, name: str) -> dict[str, Any]:
    value = frame.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise request_error("invalid_request", f"{name} must be an object")
    return value


def _read_idempotency_key(frame: Frame) -> str:
    """Return the key in the frame's `headers`; empty: there is none.

    Raises:
        RequestError: 400, as for the header Idempotency-Key of an HTTP request.
    """
    for name, value in _read_object_member(frame, "headers").items():
        if name.lower() == IDEMPOTENCY_KEY and value is not None:
            return check_idempotency_key(value if isinstance(value, str) else "")
    return ""
