"""GET /v1/ws: many generations on one WebSocket, subprotocol tailrace.v1.

The handshake decides who may come in; after it, whatever a client sends wrong is an `error` frame
and the socket lives. Reading and sending are apart: a `ping` is answered while an answer streams,
and a client that does not read what it is answered is not read from. Invariant: the socket closes
with a code that says whether to come back; a clean end of a generation is only ever its `end`.
Source: docs/protocol.md, "WebSocket".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from api.auth import Authenticator
from api.body import parse_new_generation
from api.errors import CODES, TRANSPORT, draining, request_error, unavailable
from api.events import find, read_query
from api.hub.departure import Departure
from api.hub.hub import Hub
from api.hub.socket import GONE, Socket
from api.strict_json import decode_json
from shared.accept import Acceptor
from shared.errors import RequestError, Unavailable
from shared.ids import START, EventId, parse_cursor
from shared.models import Model
from shared.outcomes import Meta
from shared.settings import Settings
from shared.store import Store

logger = logging.getLogger(__name__)

SUBPROTOCOL = "tailrace.v1"
SUBSCRIPTIONS_MAX = 100
ANSWER_S = 4.0  # for one request of a client; what takes longer is unavailable
CLOSE_S = 1.0  # for a close frame to leave
BINARY = 1003
UNAVAILABLE = 1013


class WebSocketEndpoint:
    """The ASGI application of /v1/ws."""

    def __init__(
        self,
        *,
        hub: Hub,
        acceptor: Acceptor,
        store: Store,
        authenticator: Authenticator,
        models: Mapping[str, Model],
        settings: Settings,
    ) -> None:
        self.hub = hub
        self.acceptor = acceptor
        self.store = store
        self.authenticator = authenticator
        self.models = models
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket.

        Raises:
            RequestError: refused at the handshake.
        """
        assert (await receive())["type"] == "websocket.connect"
        headers = Headers(scope=scope)
        if not self.authenticator.allows_origin(headers.get("origin"), headers.get("host")):
            raise request_error("forbidden", "this origin may not open sockets here")
        if self.hub.is_draining:
            raise draining()
        try:
            owner = self.authenticator.owner(headers, read_query(scope))
        except RequestError as exc:
            if "origin" not in headers:
                raise
            await _refuse_browser(scope, send, exc)
            return
        await _accept(scope, send)
        await _Conversation(self, owner, scope, send).hold(receive)


class _Conversation:
    """One accepted socket: what its client asks for, one thing after the other."""

    def __init__(self, endpoint: WebSocketEndpoint, owner: str, scope: Scope, send: Send) -> None:
        self.endpoint = endpoint
        self.owner = owner
        self.hub = endpoint.hub
        self._scope = scope
        self._send = send
        self._transport = scope.get("extensions", {}).get(TRANSPORT)
        self.socket = Socket(
            send,
            self.hub,
            idle_s=endpoint.settings.ws_idle_s,
            release=self.hub.release,
            transport=self._transport,
        )
        self._commands: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "start": self._start,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "cancel": self._cancel,
            "ping": self._ping,
        }

    async def hold(self, receive: Receive) -> None:
        """Read and send until either side has had enough, then close."""
        hub, socket = self.hub, self.socket
        hub.admit(socket, "websocket")
        hub.heartbeats.put(socket, hub.now() + hub.settings.heartbeat_s)
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(receive))
                code = await socket.done
                reading.cancel()
            await self._close(code, receive)
        finally:
            socket.stop()
            hub.dismiss(socket)

    async def _close(self, code: int, receive: Receive) -> None:
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

    # Reading

    async def _read(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.socket.close(GONE)
                self.socket.stop()
                return
            self.socket.active_at = self.hub.now()
            if message.get("bytes") is not None:
                self.socket.close(BINARY)
                return
            await self._take(message)
            await self.socket.room()

    async def _take(self, message: Message) -> None:
        """Do what one frame asks for; what is wrong with it is an error frame."""
        frame: Any = None
        try:
            frame = decode_json(message.get("text") or "")
            if not isinstance(frame, dict):
                raise request_error("invalid_request", "a frame is a JSON object")
            command = self._commands.get(str(frame.get("type")))
            if command is None:
                raise request_error("invalid_request", f"type: one of {', '.join(self._commands)}")
            async with asyncio.timeout(ANSWER_S):
                await command(frame)
        except (Unavailable, TimeoutError):
            self._say_error(frame, unavailable())
            if not self.socket.subscriptions:
                self.socket.close(UNAVAILABLE)
        except RequestError as exc:
            self._say_error(frame, exc)
            if exc.code == "draining":
                self.socket.close(CODES["draining"].close)

    def _say_error(self, frame: Any, error: RequestError) -> None:
        names = {}
        if isinstance(frame, dict):
            names = {key: frame[key] for key in ("ref", "id") if isinstance(frame.get(key), str)}
        self.socket.say(
            type="error",
            **names,
            code=error.code,
            message=error.message,
            retryable=error.retryable,
        )

    # What a client may ask for

    async def _start(self, frame: dict[str, Any]) -> None:
        ref, key = frame.get("ref"), frame.get("idempotency_key")
        if ref is not None and not isinstance(ref, str):
            raise request_error("invalid_request", "ref must be a string")
        if key is not None and not isinstance(key, str):
            raise request_error("invalid_request", "idempotency_key must be a string")
        if self.hub.is_draining:
            raise draining()
        self._check_room()
        new = parse_new_generation(
            frame,
            owner=self.owner,
            models=self.endpoint.models,
            settings=self.endpoint.settings,
            idempotency_key=key or "",
        )
        accepted = await self.endpoint.acceptor.accept(new)
        names = {} if ref is None else {"ref": ref}
        self.socket.say(type="accepted", **names, id=accepted.generation_id)
        await self._open(await self._find(accepted.generation_id), START)

    async def _subscribe(self, frame: dict[str, Any]) -> None:
        generation_id, cursor = _generation_id(frame), _cursor(frame)
        if generation_id not in self.socket.subscriptions:
            self._check_room()
        await self._open(await self._find(generation_id), cursor)

    async def _open(self, meta: Meta, cursor: EventId) -> None:
        relay = await self.hub.hold(meta)
        self.socket.subscribe(relay, cursor)

    async def _unsubscribe(self, frame: dict[str, Any]) -> None:
        self.socket.unsubscribe(_generation_id(frame))

    async def _cancel(self, frame: dict[str, Any]) -> None:
        meta = await self._find(_generation_id(frame))
        await self.endpoint.store.cancel(meta.generation_id)

    async def _ping(self, frame: dict[str, Any]) -> None:
        self.socket.say(type="pong")

    async def _find(self, generation_id: str) -> Meta:
        return await find(self.hub, self.endpoint.store, self.owner, generation_id)

    def _check_room(self) -> None:
        if len(self.socket.subscriptions) >= SUBSCRIPTIONS_MAX:
            raise request_error(
                "rate_limited", f"at most {SUBSCRIPTIONS_MAX} open generations on one socket"
            )


def _generation_id(frame: dict[str, Any]) -> str:
    value = frame.get("id")
    if not isinstance(value, str):
        raise request_error("invalid_request", "id must be a generation's id")
    return value


def _cursor(frame: dict[str, Any]) -> EventId:
    value = frame.get("last_event_id")
    if value is None or value == "":
        return START
    if not isinstance(value, str):
        raise request_error("cursor_invalid", "last_event_id must be a string, for example 1-42")
    return parse_cursor(value)


def _reason(code: int) -> str:
    for name, row in CODES.items():
        if row.close == code:
            return name
    return {4000: "idle", BINARY: "binary"}.get(code, "")


async def _accept(scope: Scope, send: Send) -> None:
    chosen = SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None
    await send({"type": "websocket.accept", "subprotocol": chosen})


async def _refuse_browser(scope: Scope, send: Send, error: RequestError) -> None:
    """A browser cannot read a handshake's status: let it in, say why, and close for good."""
    socket_error = {
        "type": "error",
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
    }
    await _accept(scope, send)
    await send({"type": "websocket.send", "text": _encode(socket_error)})
    code = CODES[error.code].close or 4501
    await send({"type": "websocket.close", "code": code, "reason": error.code})


def _encode(frame: dict[str, Any]) -> str:
    return msgspec.json.encode(frame).decode()
