"""One WebSocket conversation after its handshake: reading loop, limits and close.

A dialect derives from `Conversation` and defines what its frames mean;
api/readers/socket_endpoint.py makes the handshake. A wrong frame
is answered with an error frame of the dialect, and the socket stays open. Reading and sending are
independent: a ping is answered while an answer streams. While a client does not read its replies,
no further frame is read from it. Invariant: the close code says whether the client should connect
again. Source: docs/protocol.md, "WebSocket".
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, ClassVar, TypeVar

from starlette.types import Message, Receive, Scope, Send

from api.access import EVERY_FRAME
from api.deadline import answer_deadline
from api.edge.admission import check_scope
from api.errors import CODES, request_error, unavailable
from api.hub.contracts import ReadingOutcome
from api.intake.large_json import STEPPED_BYTES, decode_large
from api.intake.strict_json import decode_json
from api.node import Node
from api.readers.disconnect import DisconnectWatcher
from api.readers.error_frame import error_frame as error_frame
from api.readers.error_frame import of_frame
from api.readers.expiry import SocketExpiry
from api.readers.lookup import find_generation
from api.readers.place import Place
from api.readers.websocket_reader import Subscription
from api.readers.websocket_sender import IDLE, NO_CLOSE_FRAME, TOKEN_EXPIRED, Socket
from api.transport.extensions import LARGE_MESSAGE, TRANSPORT, WIRE
from api.transport.large_messages import LargeMessage
from shared.config.credentials import READ, Identity
from shared.errors import RequestError, Unavailable
from shared.log.fold import FrameFold
from shared.log.ids import START, EventId
from shared.log.records import Meta
from shared.log.visibility import is_visible

logger = logging.getLogger(__name__)

SUBSCRIPTIONS_MAX = 100  # open generations on one socket
CLOSE_FRAME_S = 1.0  # for the close frame to leave; after it the connection is aborted
UNSUPPORTED_DATA = 1003  # a close code of RFC 6455, section 7.4

T = TypeVar("T")

Frame = dict[str, Any]
Command = Callable[[Any, Frame], Awaitable[None]]  # the conversation, the client's frame


class Conversation(ABC):
    """One accepted socket. It serves the client's frames one after the other.

    A dialect defines `commands` (or overrides `do`) and `send_error`. It replies with
    `socket.say(**frame)`, and sends a log with `open`. For a wrong frame it raises RequestError.

    Attributes:
        commands: by the frame's member `type`.
        scopes: the row of api/access.py: the scope that each kind of frame needs.
        identity: who asks.
        frame_bytes: length of the frame that is being served.
        large: this frame, if it is large; its memory is released after it was served.
    """

    commands: ClassVar[Mapping[str, Command]] = {}
    scopes: ClassVar[Mapping[str, str]] = {}

    def __init__(self, node: Node, identity: Identity, scope: Scope, send: Send) -> None:
        self.node = node
        self.hub = node.hub
        self.identity = identity
        self._expiry: SocketExpiry | None = None
        self._place: Place | None = None
        self.frame_bytes = 0
        self.large: LargeMessage | None = None
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

    # Defined by a dialect

    async def do(self, frame: Frame) -> None:
        """Serve one frame; the default calls the entry of `commands` for its `type`.

        The conversation limits this call to the time that `answer_deadline` gives.

        Raises:
            RequestError: the frame is wrong.
        """
        command = self.commands.get(str(frame.get("type")))
        if command is None:
            raise request_error("invalid_request", f"type: one of {', '.join(self.commands)}")
        await command(self, frame)

    @abstractmethod
    def send_error(self, frame: Any, error: RequestError) -> None:
        """Send an error frame.

        Args:
            frame: any JSON value; None if the client's text is not JSON.
        """

    def warn_of_expiry(self, error: RequestError) -> None:  # noqa: B027 - most dialects cannot
        """Tell the client that its credentials expire soon; by default nothing is sent."""

    def handle_binary(self) -> None:
        """Refuse a binary frame: the default closes the socket."""
        self.socket.close(UNSUPPORTED_DATA)

    async def take_binary(self, data: bytes, refusal: RequestError | None) -> bool:
        """Serve a binary frame; return whether to read on.

        Args:
            refusal: the frame was dropped, because it is too large or came too slowly.
        """
        self.handle_binary()
        return False

    def background_work(self) -> list[Coroutine[Any, Any, None]]:
        """Return coroutines that run beside the reading until the socket closes."""
        return []

    @property
    def has_background_work(self) -> bool:
        return type(self).background_work is not Conversation.background_work

    # For use by a dialect

    @property
    def owner(self) -> str:
        return self.identity.owner

    def renew(self, identity: Identity) -> list[str]:
        """Go on with other credentials of the same owner.

        Returns:
            The keys of the readings that these credentials do not allow. They have ended.

        Raises:
            RequestError: 403, they are of another owner.
        """
        if identity.owner != self.owner:
            raise request_error("forbidden", "the token of an auth frame must be the same owner's")
        self._unwatch_expiry()
        self.identity = identity
        self._watch_expiry()
        ended = [
            key
            for key, subscription in self.socket.subscriptions.items()
            if not (identity.may(READ) and is_visible(subscription.relay.meta, identity))
        ]
        for key in ended:
            self.socket.unsubscribe(key)
        return ended

    async def step(self, work: Callable[[], T]) -> T:
        """Do work whose cost grows with the frame that is being served; see LargeWork.step."""
        return await self.node.large.step(self.frame_bytes, work)

    async def open(
        self, key: str, meta: Meta, fold: FrameFold, cursor: EventId = START
    ) -> Subscription:
        """Send the events after `cursor`, as frames of `fold`.

        Args:
            key: names the subscription; one that is open under this key is replaced.

        Raises:
            RequestError, Unavailable: as `Hub.hold`.
        """
        relay = await self.hub.hold(meta)
        return self.socket.subscribe(key, relay, cursor, fold)

    async def find(self, generation_id: str) -> Meta:
        """Return the generation if this socket's owner may see it; raises as `find_generation`."""
        return await find_generation(
            self.hub, self.node.store, self.identity, generation_id, is_reader=True
        )

    def check_subscription_limit(self) -> None:
        """Raise `rate_limited` if `SUBSCRIPTIONS_MAX` generations are open on this socket."""
        if len(self.socket.subscriptions) >= SUBSCRIPTIONS_MAX:
            raise request_error(
                "rate_limited", f"at most {SUBSCRIPTIONS_MAX} open generations on one socket"
            )

    # The socket's life

    async def take_place(self) -> None:
        """Count this socket as an open reader of its owner, until `give_back_place`.

        Raises:
            TooManyConnections: all places of the owner are taken.
        """
        self._place = self.node.place_of(self.identity)
        if self._place is not None:
            await self._place.take()

    def give_back_place(self) -> None:
        """Give the place back; may be repeated."""
        if self._place is not None:
            self._place.give_back()

    async def hold(self, receive: Receive) -> None:
        """Read and send until the client or this node closes the socket, then close it."""
        self.enter()
        try:
            async with asyncio.TaskGroup() as group:
                coroutines = [self._read(receive), *self.background_work()]
                tasks = [group.create_task(coroutine) for coroutine in coroutines]
                code = await self.socket.done
                for task in tasks:
                    task.cancel()
            await self.close(code, receive)
        finally:
            self.leave()

    def enter(self) -> None:
        """Register with the hub: it counts this socket, and calls its `beat`."""
        hub = self.hub
        hub.admit(self.socket, "websocket")
        hub.heartbeats.put(self.socket, hub.now() + hub.settings.heartbeat_s)
        self._watch_expiry()

    def _watch_expiry(self) -> None:
        if self._expiry is None and self.identity.expires_at is not None:
            self._expiry = SocketExpiry(self._warn, self._expire)
        if self._expiry is not None:
            self._expiry.set(self.identity)
        if self.identity.share is not None:
            self.node.share_watch.add(self.identity.share.id, self.socket)
        if self.node.authenticator.is_key_revocable(self.identity):
            self.node.key_watch.add(self.identity, self.socket)

    def _unwatch_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        if self.identity.share is not None:
            self.node.share_watch.remove(self.identity.share.id, self.socket)
        self.node.key_watch.remove(self.identity, self.socket)

    def _warn(self) -> None:
        text = "the token expires soon: send an auth frame with a new one"
        self.warn_of_expiry(request_error("token_expired", text))

    def _expire(self) -> None:
        if self.socket.is_blocked:  # the close frame would wait behind the write
            self.socket.break_off(ReadingOutcome.EXPIRED)
        else:
            self.socket.close(TOKEN_EXPIRED)

    def leave(self) -> None:
        """Release all subscriptions and leave the hub."""
        self._unwatch_expiry()
        self.give_back_place()
        self.socket.stop()
        self.hub.dismiss(self.socket)

    def send_through(self, send: Send) -> None:
        """Use another `send` from now on."""
        self._send = send
        self.socket.send_through(send)

    async def close(self, code: int, receive: Receive) -> None:
        """Send a close frame with `code`; if that is not possible, abort the connection.

        A close frame is not possible while another write waits, or if it does not leave within
        `CLOSE_FRAME_S`.
        """
        if code == NO_CLOSE_FRAME:
            return
        if not self.socket.is_blocked:
            try:
                async with asyncio.timeout(CLOSE_FRAME_S):
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
        await DisconnectWatcher.wait(receive, "websocket.disconnect")

    async def _read(self, receive: Receive) -> None:
        while await self.hear(await receive()):
            pass

    async def hear(self, message: Message) -> bool:
        """Serve one ASGI message.

        Returns:
            Whether to read further messages.
        """
        if message["type"] == "websocket.disconnect":
            self.socket.close(NO_CLOSE_FRAME)
            self.socket.stop()
            return False
        self.socket.active_at = self.hub.now()
        large = self.large = message.pop(LARGE_MESSAGE, None)
        try:
            if message.get("bytes") is None:
                await self._take(message, large)
            else:
                data, no = (message["bytes"], None) if large is None else large.binary()
                if not await self.take_binary(data, no):
                    return False
        finally:
            if self.large is not None:
                self.large.memory.release()
        await self.socket.await_room()
        return True

    def keep_memory(self, on_given_up: Callable[[], None]) -> Callable[[], None]:
        """Take over the memory of the frame that is being served; return how to release it.

        For a dialect that serves the frame after `do` has returned.

        Args:
            on_given_up: called when the node needs the memory for another frame. The dialect must
                then forget the frame, and answer `bodies_full` in its turn.
        """
        large, self.large = self.large, None
        if large is None:
            return lambda: None
        large.memory.lend(on_given_up)
        return large.memory.release

    async def _take(self, message: Message, large: LargeMessage | None) -> None:
        """Serve one text frame; an error becomes an error frame."""
        frame: Any = None
        try:
            text = message.get("text") or ""
            self.frame_bytes = len(text) if large is None else large.received
            if large is not None and large.refusal is not None:
                raise large.refusal
            async with self.node.bodies.turn(self.frame_bytes):
                frame = await self._decode(text, large)
                if not isinstance(frame, dict):
                    raise request_error("invalid_request", "a frame is a JSON object")
                self.check_permission(frame)
                async with answer_deadline():
                    await self.do(frame)
        except Unavailable:
            self.fail(frame, unavailable())
        except RequestError as exc:
            self.fail(frame, exc if frame is not None else of_frame(exc))

    async def _decode(self, text: str, large: LargeMessage | None) -> Any:
        if large is None:
            return await self.step(lambda: decode_json(text))
        raw, large.content = large.content, bytearray()
        if len(raw) > STEPPED_BYTES:
            return await decode_large(raw)
        return await self.step(lambda: decode_json(bytes(raw)))

    def check_permission(self, frame: Frame) -> None:
        """Check that the credentials are still good, and have the scope that the frame needs.

        Raises:
            RequestError: 401, the key was taken away; 403, no scope.
        """
        if self.node.authenticator.is_key_revoked(self.identity):
            raise request_error("unauthorized", "the API key of this socket was taken away")
        needed = self.scopes.get(str(frame.get("type")), self.scopes.get(EVERY_FRAME))
        if needed is not None:
            check_scope(self.identity, needed)

    def fail(self, frame: Any, error: RequestError) -> None:
        """Send an error frame; close the socket if it can serve this client no longer."""
        self.send_error(frame, error)
        if error.code in ("draining", "unauthorized"):
            self.socket.close(CODES[error.code].close)
        elif error.code == "unavailable" and not self.socket.subscriptions:
            self.socket.close(CODES[error.code].close)


def _reason(code: int) -> str:
    for name, row in CODES.items():
        if row.close == code:
            return name
    return {IDLE: "idle", UNSUPPORTED_DATA: "binary"}.get(code, "")
