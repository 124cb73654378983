"""GET /lobe/ws: the WebSocket protocol that front ends know from articles.

What each frame of a client means; the bytes are api/dialects/lobe/fold.py's. A `messageId` is the
client's name for a generation. It is kept as an idempotency key of its owner, so every node knows
it, starting it again finds what is there, and it lives as long as the generation.
Source: docs/protocol.md, "The protocol of /lobe/ws".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

from api.dialects.lobe.fold import LobeFrames
from api.errors import request_error
from api.intake.body import parse_new_generation
from api.node import Node
from api.readers.conversation import Command, Conversation, Frame, SocketEndpoint, error_frame
from api.readers.lookup import find
from shared.errors import Draining, NotFound, RequestError
from shared.log.ids import START, EventId, new_generation_id, parse_cursor
from shared.log.records import Meta
from shared.queue.endings import cancel

PATH = "/lobe/ws"
MESSAGE_ID_CHARACTERS_MAX = 256
GENERATION_PREFIX = "gen_"


def lobe_socket(node: Node) -> SocketEndpoint:
    """Return the ASGI application of /lobe/ws."""
    return SocketEndpoint(node, PATH, LobeConversation)


class LobeConversation(Conversation):
    """Readings are named by their message."""

    def say_error(self, frame: Any, error: RequestError) -> None:
        named = frame.get("messageId") if isinstance(frame, dict) else None
        names = {"messageId": named} if isinstance(named, str) else {}
        self.socket.say(**error_frame(error, **names))

    def take_binary(self) -> None:
        self.say_error(None, request_error("invalid_request", "frames are text: one JSON object"))
        super().take_binary()

    async def _start(self, frame: Frame) -> None:
        """Start a message, or read the one that this `messageId` has started."""
        body = {name: value for name, value in frame.items() if value is not None}
        message_id = _message_id(body.pop("messageId", new_message_id()))
        session = body.pop("sessionId", "")
        if not isinstance(session, str):
            raise request_error("invalid_request", "sessionId must be a string")
        if self.hub.is_draining:
            raise Draining()
        if message_id not in self.socket.subscriptions:
            self.check_room()
        new = await self.step(
            lambda: parse_new_generation(
                {**body, "session": session} if session else body,
                owner=self.owner,
                models=self.node.models,
                settings=self.node.settings,
                idempotency_key=key_of(message_id),
            )
        )
        accepted = await self.node.accept(new)
        # What is being read here goes on: the client would be told twice what it has.
        if message_id not in self.socket.subscriptions:
            meta = accepted.meta or await self.find(accepted.generation_id)
            await self.open(message_id, meta, LobeFrames(meta, message_id))

    async def _resume(self, frame: Frame) -> None:
        message_id, cursor = _message_id(frame.get("messageId")), _cursor(frame)
        if message_id not in self.socket.subscriptions:
            self.check_room()
        meta = await self._message(message_id, cursor)
        await self.open(message_id, meta, LobeFrames(meta, message_id, is_resumed=True), cursor)

    async def _cancel(self, frame: Frame) -> None:
        meta = await self._message(_message_id(frame.get("messageId")))
        await cancel(self.node.store, meta.generation_id)

    async def _ping(self, frame: Frame) -> None:
        self.socket.say(type="pong")

    async def _message(self, message_id: str, cursor: EventId = START) -> Meta:
        """Return the generation of a message; one that was started natively has its own id."""
        found = await self.node.acceptor.find(self.owner, key_of(message_id))
        if found is None and not message_id.startswith(GENERATION_PREFIX):
            raise NotFound("message")
        return await find(self.hub, self.node.store, self.owner, found or message_id, cursor)

    commands: ClassVar[Mapping[str, Command]] = {
        "startConversation": _start,
        "resume": _resume,
        "cancel": _cancel,
        "ping": _ping,
    }


def key_of(message_id: str) -> str:
    """Return the idempotency key of a message: any text becomes visible ASCII."""
    return "lobe:" + hashlib.sha256(message_id.encode()).hexdigest()


def new_message_id() -> str:
    return "msg_" + new_generation_id().removeprefix(GENERATION_PREFIX)


def _message_id(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MESSAGE_ID_CHARACTERS_MAX:
        raise request_error(
            "invalid_request", f"messageId: 1 to {MESSAGE_ID_CHARACTERS_MAX} characters"
        )
    return value


def _cursor(frame: Frame) -> EventId:
    value = frame.get("lastEventId")
    if value is None or value == "":
        return START
    if not isinstance(value, str):
        raise request_error("cursor_invalid", "lastEventId must be a string, for example 1-42")
    return parse_cursor(value)
