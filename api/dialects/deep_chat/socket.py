"""GET /deep-chat/ws: the chat component deep-chat on a WebSocket.

A socket gives one answer at a time, because the component would mix two answers in one bubble.
Requests that come during an answer wait, and an error is reported in the turn of its request. A
socket is refused at the handshake or not at all: when an accepted socket closes, the component
reconnects at once. Source: docs/protocol.md, "deep-chat".
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Scope, Send

from api.access import FRAMES
from api.deadline import answer_deadline
from api.dialects.deep_chat.fold import DeepChatFrameFold
from api.dialects.deep_chat.request import parse_deep_chat
from api.dialects.prompt import accept_members
from api.dialects.waiting_frame import WaitingFrame
from api.errors import CODES, request_error, unavailable
from api.intake.body import invalid_request
from api.node import Node
from api.readers.conversation import Conversation, Frame
from api.readers.lookup import read_query
from api.readers.socket_endpoint import SocketEndpoint
from shared.config.credentials import Identity
from shared.errors import Draining, RequestError, Unavailable
from shared.log.records import Meta

PATH = "/deep-chat/ws"
STOP_KEY = "stop-key"
STOP_KEY_CHARACTERS = (2, 256)  # at least, at most
WAITING_REQUESTS_MAX = 16  # of one socket; each further request is refused in its turn
WAITING_MAX = 4 * WAITING_REQUESTS_MAX  # requests and errors; at the next error the socket closes
TOO_MANY_REQUESTS = 1008  # close code


def deep_chat_socket(node: Node) -> SocketEndpoint:
    """Return the ASGI application of /deep-chat/ws."""
    return SocketEndpoint(node, PATH, DeepChatConversation)


class DeepChatConversation(Conversation):
    """Answers requests in the order in which they came; the stop key follows each answer."""

    scopes = FRAMES[PATH]

    def __init__(self, node: Node, identity: Identity, scope: Scope, send: Send) -> None:
        super().__init__(node, identity, scope, send)
        self._stop_key = read_stop_key(read_query(scope))
        self._waiting: asyncio.Queue[WaitingFrame | RequestError] = asyncio.Queue()

    async def do(self, frame: Frame) -> None:
        if self._waiting.qsize() >= WAITING_REQUESTS_MAX:
            raise request_error(
                "rate_limited", f"at most {WAITING_REQUESTS_MAX} requests wait on a socket"
            )
        request = WaitingFrame(frame, self.frame_bytes)
        request.release = self.keep_memory(request.give_up)
        self._waiting.put_nowait(request)

    def send_error(self, frame: Any, error: RequestError) -> None:
        if self._waiting.qsize() >= WAITING_MAX:
            self.socket.close(TOO_MANY_REQUESTS)
        else:
            self._waiting.put_nowait(error)

    def handle_binary(self) -> None:
        self._send_error(request_error("invalid_request", "frames are text: one JSON object"))
        super().handle_binary()

    def background_work(self) -> list[Coroutine[Any, Any, None]]:
        return [self._answer_in_turn()]

    async def _answer_in_turn(self) -> None:
        try:
            while True:
                turn = await self._waiting.get()
                try:
                    if isinstance(turn, RequestError):
                        raise turn
                    await self._answer(turn)
                except Unavailable:
                    self._send_error(unavailable())
                except RequestError as exc:
                    self._send_error(exc)
        finally:
            while not self._waiting.empty():
                turn = self._waiting.get_nowait()
                if isinstance(turn, WaitingFrame):
                    turn.release()

    async def _answer(self, request: WaitingFrame) -> None:
        """Send the answer to one request; return when it has ended."""
        try:
            meta = await self._accept(request)
        finally:
            request.release()
        async with answer_deadline():
            fold = DeepChatFrameFold(meta, self._stop_key)
            subscription = await self.open("answer", meta, fold)
        await subscription.ended()

    async def _accept(self, request: WaitingFrame) -> Meta:
        if self.hub.is_draining:
            raise Draining()
        body, size = request.take_body(), request.size
        node, grace_s = self.node, self.node.settings.grace_s
        async with node.bodies.turn(size):
            parsed = await node.large.step(size, lambda: parse_deep_chat(body, grace_s=grace_s))
            return await accept_members(node, self.identity, body, parsed, size=size)

    def _send_error(self, error: RequestError) -> None:
        """Send an error and the stop key in place of an answer."""
        self.socket.say(error=error.message)
        self.socket.say(text=self._stop_key)
        if error.code == "draining":
            self.socket.close(CODES["draining"].close)


def read_stop_key(query: dict[str, str]) -> str:
    """Return the text that marks the end of an answer on this socket.

    Raises:
        RequestError: 422, too short, too long, blank, or not UTF-8. A key of one character could
            not be told from a piece of an answer.
    """
    key = query.get("stop_key", STOP_KEY)
    shortest, longest = STOP_KEY_CHARACTERS
    if not shortest <= len(key) <= longest or not key.strip():
        raise invalid_request(f"stop_key: {shortest} to {longest} characters, not only blanks")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise invalid_request("stop_key must be UTF-8") from None
    return key
