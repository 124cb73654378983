"""GET /lobe/ws: a WebSocket protocol of flat JSON frames, one `messageId` for each answer.

LobeHub's own clients use another protocol: that of its agent gateway (api/dialects/lobe_gateway).

This module gives the frames of a client their meaning; the bytes are api/dialects/lobe/fold.py's. A
`messageId` is the client's name for a generation. It is stored as an idempotency key of its owner:
every node finds the generation by it, a second start with it finds the same generation, and it
expires with the generation.
Source: docs/protocol.md, "The protocol of /lobe/ws".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

from api.access import FRAMES
from api.dialects.lobe.fold import LobeFrameFold
from api.dialects.prompt import find_accepted
from api.errors import request_error
from api.intake.body import check_native
from api.intake.large_body import generation_in_steps
from api.node import Node
from api.readers.conversation import Command, Conversation, Frame, error_frame
from api.readers.lookup import find_generation
from api.readers.socket_endpoint import SocketEndpoint
from shared.errors import Draining, NotFound, RequestError
from shared.log.ids import GENERATION_PREFIX, START, EventId, new_generation_id, parse_cursor
from shared.log.records import Meta
from shared.queue.endings import cancel

PATH = "/lobe/ws"
MESSAGE_ID_CHARACTERS_MAX = 256


def lobe_socket(node: Node) -> SocketEndpoint:
    """Return the ASGI application of /lobe/ws."""
    return SocketEndpoint(node, PATH, LobeConversation)


class LobeConversation(Conversation):
    """The protocol of /lobe/ws. A subscription has its `messageId` as its key."""

    def send_error(self, frame: Any, error: RequestError) -> None:
        message_id = frame.get("messageId") if isinstance(frame, dict) else None
        names = {"messageId": message_id} if isinstance(message_id, str) else {}
        self.socket.say(**error_frame(error, **names))

    def handle_binary(self) -> None:
        self.send_error(None, request_error("invalid_request", "frames are text: one JSON object"))
        super().handle_binary()

    async def _start(self, frame: Frame) -> None:
        """Start a generation, or read the one that an earlier start with this id created."""
        body = {name: value for name, value in frame.items() if value is not None}
        message_id = _read_message_id(body.pop("messageId", new_message_id()))
        session = body.pop("sessionId", "")
        if not isinstance(session, str):
            raise request_error("invalid_request", "sessionId must be a string")
        if self.hub.is_draining:
            raise Draining()
        if message_id not in self.socket.subscriptions:
            self.check_subscription_limit()
        new = await generation_in_steps(
            self.node.large,
            self.frame_bytes,
            lambda: check_native(
                {**body, "session": session} if session else body,
                owner=self.owner,
                models=self.node.models,
                settings=self.node.settings,
                idempotency_key=idempotency_key(message_id),
            ),
        )
        accepted = await self.node.acceptance.accept(new, self.identity, is_read=True)
        # A subscription that is open goes on: a new one would send its frames a second time.
        if message_id not in self.socket.subscriptions:
            meta = await find_accepted(self.node, self.owner, accepted)
            await self.open(message_id, meta, LobeFrameFold(meta, message_id))

    async def _resume(self, frame: Frame) -> None:
        message_id, cursor = _read_message_id(frame.get("messageId")), _read_cursor(frame)
        if message_id not in self.socket.subscriptions:
            self.check_subscription_limit()
        meta = await self._find_message(message_id, cursor)
        fold = LobeFrameFold(meta, message_id, is_resumed=True)
        await self.open(message_id, meta, fold, cursor)

    async def _cancel(self, frame: Frame) -> None:
        meta = await self._find_message(_read_message_id(frame.get("messageId")))
        await cancel(self.node.store, meta.generation_id, by=self.node.asker(self.owner, meta))

    async def _ping(self, frame: Frame) -> None:
        self.socket.say(type="pong")

    async def _find_message(self, message_id: str, cursor: EventId = START) -> Meta:
        """Return the generation of a message.

        The `messageId` of a generation that was not started here is the generation's id.

        Raises:
            NotFound: the owner has no such message.
            Unavailable: Redis did not answer.
        """
        generation_id = await self.node.acceptor.find(self.owner, idempotency_key(message_id))
        if generation_id is None and not message_id.startswith(GENERATION_PREFIX):
            raise NotFound("message")
        named, hub, store = generation_id or message_id, self.hub, self.node.store
        try:
            return await find_generation(hub, store, self.identity, named, cursor)
        except NotFound:
            if self.identity.share is None:
                raise
            # As for an absent name: a share must not tell which messages its maker has.
            raise NotFound("message") from None

    scopes = FRAMES[PATH]
    commands: ClassVar[Mapping[str, Command]] = {
        "startConversation": _start,
        "resume": _resume,
        "cancel": _cancel,
        "ping": _ping,
    }


def idempotency_key(message_id: str) -> str:
    """Return the idempotency key of a message; a hash makes visible ASCII of any text."""
    return "lobe:" + hashlib.sha256(message_id.encode()).hexdigest()


def new_message_id() -> str:
    """Return an id for a message that the client has not named."""
    return "msg_" + new_generation_id().removeprefix(GENERATION_PREFIX)


def _read_message_id(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MESSAGE_ID_CHARACTERS_MAX:
        raise request_error(
            "invalid_request", f"messageId: 1 to {MESSAGE_ID_CHARACTERS_MAX} characters"
        )
    return value


def _read_cursor(frame: Frame) -> EventId:
    value = frame.get("lastEventId")
    if value is None or value == "":
        return START
    if not isinstance(value, str):
        raise request_error("cursor_invalid", "lastEventId must be a string, for example 1-42")
    return parse_cursor(value)
