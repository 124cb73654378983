"""A WebSocket that clients talk on: the handshake, the reading loop, limits, how it is closed.

A dialect derives from `Conversation` and says what its frames mean. The handshake decides who may
come in (of foreign origins api/edge/gate.py has done so before); after it, whatever a client sends
wrong is an error frame of the dialect's, and the socket lives. Reading and sending are apart: a
ping is answered while an answer streams, and a client that does not read what it is answered is not
read from. Invariant: the socket closes with a code that says whether to come back. Source:
docs/protocol.md, "WebSocket".
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, ClassVar, TypeVar

import msgspec
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from api.errors import CODES, request_error, unavailable
from api.intake.strict_json import decode_json
from api.node import Node
from api.readers.conversation_handover import ConversationHandover
from api.readers.disconnect import Departure
from api.readers.lookup import find, read_query
from api.readers.websocket_reader import Subscription
from api.readers.websocket_sender import GONE, Socket
from api.transport.extensions import HANDOVER, TRANSPORT, WIRE
from shared.errors import Draining, RequestError, Unavailable
from shared.log.fold import FrameFold
from shared.log.ids import START, EventId
from shared.log.records import Meta

logger = logging.getLogger(__name__)

SUBSCRIPTIONS_MAX = 100
ANSWER_S = 4.0  # for one request of a client; what takes longer is unavailable
CLOSE_S = 1.0  # for a close frame to leave
BINARY = 1003
UNAVAILABLE = 1013

T = TypeVar("T")

Frame = dict[str, Any]
Command = Callable[[Any, Frame], Awaitable[None]]  # the conversation, what was said
Open = Callable[[Node, str, Scope, Send], "Conversation"]  # node, owner, scope, send


class SocketEndpoint:
    """The ASGI application of one WebSocket route.

    Args:
        path: the route's; the label of the metrics.
        converse: makes the conversation of one socket; what it raises refuses the handshake.
        subprotocol: chosen where the client offers it.
        tells_browsers: bad credentials of a browser, which cannot read the handshake's status, are
            let in, told and closed for good. Only for clients that know final close codes.
    """

    def __init__(
        self,
        node: Node,
        path: str,
        converse: Open,
        *,
        subprotocol: str | None = None,
        tells_browsers: bool = False,
    ) -> None:
        self.node = node
        self.path = path
        self.converse = converse
        self.subprotocol = subprotocol
        self.tells_browsers = tells_browsers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket.

        Raises:
            RequestError: refused at the handshake.
        """
        assert (await receive())["type"] == "websocket.connect"
        headers, authenticator = Headers(scope=scope), self.node.authenticator
        if self.node.hub.is_draining:
            raise Draining()
        try:
            owner = authenticator.owner(headers, read_query(scope))
        except RequestError as exc:
            if "origin" not in headers or not self.tells_browsers:
                raise
            await self.node.slowing.hold_back(scope)
            await self._refuse_browser(scope, send, exc)
            return
        conversation = self.converse(self.node, owner, scope, send)
        await self._accept(scope, send)
        hand_over = scope.get("extensions", {}).get(HANDOVER)
        if hand_over is None or conversation.has_errands:
            await conversation.hold(receive)
        else:
            ConversationHandover(conversation, self.path, hand_over)

    async def _accept(self, scope: Scope, send: Send) -> None:
        chosen = self.subprotocol if self.subprotocol in scope.get("subprotocols", ()) else None
        await send({"type": "websocket.accept", "subprotocol": chosen})

    async def _refuse_browser(self, scope: Scope, send: Send, error: RequestError) -> None:
        await self._accept(scope, send)
        frame = msgspec.json.encode(error_frame(error)).decode()
        await send({"type": "websocket.send", "text": frame})
        code = CODES[error.code].close or 4501
        await send({"type": "websocket.close", "code": code, "reason": error.code})


class Conversation(ABC):
    """One accepted socket: what its client asks for, one thing after the other.

    A dialect gives `commands` (or its own `do`) and `say_error`, and answers through `socket`:
    `socket.say(**frame)` for what is no event, `open` for a log. Frames that are wrong raise
    RequestError.
    """

    commands: ClassVar[Mapping[str, Command]] = {}

    def __init__(self, node: Node, owner: str, scope: Scope, send: Send) -> None:
        self.node = node
        self.hub = node.hub
        self.owner = owner
        self.frame_bytes = 0  # of the frame that is being served
        self._send = send
        self._transport = scope.get("extensions", {}).get(TRANSPORT)
        self.socket = Socket(
            send,
            self.hub,
            idle_s=node.settings.ws_idle_s,
            release=self.hub.release,
            transport=self._transport,
            wire=scope.get("extensions", {}).get(WIRE),
        )

    # What a dialect says

    async def do(self, frame: Frame) -> None:
        """Do what one frame asks for, within `ANSWER_S`: by default what `commands` has for it."""
        command = self.commands.get(str(frame.get("type")))
        if command is None:
            raise request_error("invalid_request", f"type: one of {', '.join(self.commands)}")
        await command(self, frame)

    @abstractmethod
    def say_error(self, frame: Any, error: RequestError) -> None:
        """Tell the client what is wrong with `frame`, which may be anything, or None: no JSON."""

    def take_binary(self) -> None:
        """Refuse a binary frame."""
        self.socket.close(BINARY)

    def errands(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs beside the reading, until the socket closes."""
        return []

    @property
    def has_errands(self) -> bool:
        return type(self).errands is not Conversation.errands

    # What a dialect may use

    async def step(self, work: Callable[[], T]) -> T:
        """Do work that is in proportion to the frame that is being served: see LargeWork.step."""
        return await self.node.large.step(self.frame_bytes, work)

    async def open(
        self, key: str, meta: Meta, fold: FrameFold, cursor: EventId = START
    ) -> Subscription:
        """Send what follows `cursor`, as `fold` has it; what is open under `key` is replaced."""
        relay = await self.hub.hold(meta)
        return self.socket.subscribe(key, relay, cursor, fold)

    async def find(self, generation_id: str) -> Meta:
        """Return the generation, if it is the asker's; raises as `find`."""
        return await find(self.hub, self.node.store, self.owner, generation_id, is_reader=True)

    def check_room(self) -> None:
        """Raise `rate_limited` where the socket has as many generations open as it may."""
        if len(self.socket.subscriptions) >= SUBSCRIPTIONS_MAX:
            raise request_error(
                "rate_limited", f"at most {SUBSCRIPTIONS_MAX} open generations on one socket"
            )

    # The socket's life

    async def hold(self, receive: Receive) -> None:
        """Read and send until either side has had enough, then close."""
        self.enter()
        try:
            async with asyncio.TaskGroup() as group:
                errands = [self._read(receive), *self.errands()]
                tasks = [group.create_task(errand) for errand in errands]
                code = await self.socket.done
                for task in tasks:
                    task.cancel()
            await self.close(code, receive)
        finally:
            self.leave()

    def enter(self) -> None:
        """Be counted, and be sent signs of life."""
        hub = self.hub
        hub.admit(self.socket, "websocket")
        hub.heartbeats.put(self.socket, hub.now() + hub.settings.heartbeat_s)

    def leave(self) -> None:
        """Let go of everything."""
        self.socket.stop()
        self.hub.dismiss(self.socket)

    def send_through(self, send: Send) -> None:
        """Send this way from now on."""
        self._send = send
        self.socket.send_through(send)

    async def close(self, code: int, receive: Receive) -> None:
        """Say why, where that can still be said; else break the connection off."""
        if code == GONE:
            return
        if not self.socket.is_blocked:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await self._send(
                        {"type": "websocket.close", "code": code, "reason": _reason(code)}
                    )
                return
            except (TimeoutError, OSError):
                pass
        logger.info("socket broken off", extra={"close_code": code})
        if self._transport is None:
            raise ConnectionAbortedError("socket broken off")
        self._transport.abort()
        await Departure.wait(receive, "websocket.disconnect")

    async def _read(self, receive: Receive) -> None:
        while await self.hear(await receive()):
            pass

    async def hear(self, message: Message) -> bool:
        """Do what one message asks for; False: no further one is wanted."""
        if message["type"] == "websocket.disconnect":
            self.socket.close(GONE)
            self.socket.stop()
            return False
        self.socket.active_at = self.hub.now()
        if message.get("bytes") is not None:
            self.take_binary()
            return False
        await self._take(message)
        await self.socket.room()
        return True

    async def _take(self, message: Message) -> None:
        """Do what one frame asks for; what is wrong with it is an error frame."""
        frame: Any = None
        try:
            text = message.get("text") or ""
            self.frame_bytes = len(text)
            frame = await self.step(lambda: decode_json(text))
            if not isinstance(frame, dict):
                raise request_error("invalid_request", "a frame is a JSON object")
            async with asyncio.timeout(ANSWER_S):
                await self.do(frame)
        except (Unavailable, TimeoutError):
            self.fail(frame, unavailable())
        except RequestError as exc:
            self.fail(frame, exc)

    def fail(self, frame: Any, error: RequestError) -> None:
        """Say what is wrong, and close where the client had better go elsewhere."""
        self.say_error(frame, error)
        if error.code == "draining":
            self.socket.close(CODES["draining"].close)
        elif error.code == "unavailable" and not self.socket.subscriptions:
            self.socket.close(UNAVAILABLE)


def error_frame(error: RequestError, **names: str) -> Frame:
    """Return the native error frame; `names` say what it answers."""
    said = {"code": error.code, "message": error.message, "retryable": error.retryable}
    return {"type": "error", **names, **said}


def _reason(code: int) -> str:
    for name, row in CODES.items():
        if row.close == code:
            return name
    return {4000: "idle", BINARY: "binary"}.get(code, "")
