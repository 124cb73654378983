"""GET /lobe-gateway/v2/ws: the WebSocket of LobeHub's agent gateway, version 2.

One socket of a user reads many operations: `subscribe{operationId,lastEventId}` for each. An
operation that does not exist yet is pending, and is read as soon as it exists. The credentials are
in the query; bad ones are answered with close code 4401, after which the client gets a new token.
Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar

from starlette.types import Receive, Scope, Send

from api.access import FRAMES
from api.dialects.lobe_gateway.feed_body import Entries, now_ms
from api.dialects.lobe_gateway.messages import executor_entry
from api.dialects.lobe_gateway.mux_fold import MuxFrameFold
from api.dialects.lobe_gateway.operation import find_operation, read_number
from api.dialects.lobe_gateway.operation_log import fed_members
from api.dialects.lobe_gateway.socket import ReplyingConversation
from api.errors import request_error
from api.hub.relay import Relay
from api.node import Node
from api.readers.conversation import SUBSCRIPTIONS_MAX, Command, Frame, error_frame
from api.readers.lookup import read_query
from api.readers.socket_endpoint import SocketEndpoint
from shared.config.credentials import GENERATE, Identity
from shared.errors import NotFound, RequestError, Unavailable
from shared.log.ids import GENERATION_PREFIX, START
from shared.log.records import Meta

PATH = "/lobe-gateway/v2/ws"
AUTH_FAILED = 4401  # the client gets a new token and comes back
PENDING_LOOK_S = 0.25  # between two looks for operations that do not exist yet
PENDING_S = 600.0  # then a pending subscription is refused
CLIENT_CHARACTERS_MAX = 64


def lobe_gateway_mux_socket(node: Node) -> SocketEndpoint:
    """Return the ASGI application of /lobe-gateway/v2/ws."""
    return MuxEndpoint(node, PATH, MuxConversation)


class MuxEndpoint(SocketEndpoint):
    """The handshake: the token is in the query under its own name, and a refusal is a close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(_with_token(scope), receive, send)
        except RequestError as exc:
            if exc.status not in (401, 403):
                raise
            if exc.status == 401:
                await self.node.slowing.hold_back(scope)
            reason = "auth_expired" if "expired" in exc.message else "auth_failed"
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": AUTH_FAILED, "reason": reason})


def _with_token(scope: Scope) -> Scope:
    """Return the scope with `token` of the query under the name that all routes read."""
    query: bytes = scope.get("query_string", b"")
    parts = [
        b"access_token=" + part.removeprefix(b"token=") if part.startswith(b"token=") else part
        for part in query.split(b"&")
    ]
    return {**scope, "query_string": b"&".join(parts)}


class MuxConversation(ReplyingConversation):
    """The protocol of version 2."""

    def __init__(self, node: Node, identity: Identity, scope: Scope, send: Send) -> None:
        super().__init__(node, identity, scope, send)
        client = read_query(scope).get("clientId", "")[:CLIENT_CHARACTERS_MAX]
        self._client = client or secrets.token_hex(8)
        self._pending: dict[str, _Pending] = {}
        self._executes: dict[str, str] = {}  # operation -> its generation

    def enter(self) -> None:
        """Register, and tell the client that it may subscribe."""
        super().enter()
        user = self.owner if self.identity.share is None else ""  # no name of the maker of a share
        self.socket.say(type="ready", userId=user, connectionId=secrets.token_hex(8), protocol=2)

    def leave(self) -> None:
        """Release everything; other clients may execute tools again."""
        for operation in list(self._executes):
            self._stop_executing(operation)
        super().leave()

    def send_error(self, frame: Any, error: RequestError) -> None:
        operation = frame.get("operationId") if isinstance(frame, dict) else None
        names = {"operationId": operation} if isinstance(operation, str) else {}
        self.socket.say(**error_frame(error, **names))

    def background_work(self) -> list[Coroutine[Any, Any, None]]:
        return [self._look_for_pending()]

    def operation_of(self, frame: Frame) -> str:
        operation = frame.get("operationId")
        if operation not in self.socket.subscriptions:
            raise request_error("invalid_request", "operationId: subscribe to this operation first")
        return str(operation)

    async def _subscribe(self, frame: Frame) -> None:
        operation = frame.get("operationId")
        if not isinstance(operation, str) or not operation:
            raise request_error("invalid_request", "operationId must be a string that is not empty")
        seen = read_number(frame.get("lastEventId"))
        if not self._has_room(operation):
            self.check_subscription_limit()
        wanted = _Pending(seen, frame.get("executor") is True, self.hub.now() + PENDING_S)
        try:
            meta = await find_operation(self.node, self.identity, operation, seen=seen)
        except NotFound:
            if operation.startswith(GENERATION_PREFIX):
                self._refuse_subscription(operation)
            elif len(self._pending) >= SUBSCRIPTIONS_MAX:
                raise request_error(
                    "rate_limited", f"at most {SUBSCRIPTIONS_MAX} pending operations on one socket"
                ) from None
            else:
                self._pending[operation] = wanted
                self.socket.say(
                    type="resume_complete", operationId=operation, gap=False, pending=True
                )
            return
        self._pending.pop(operation, None)
        try:
            await self._read_operation(operation, meta, wanted)
        finally:
            if operation not in self.socket.subscriptions:
                self._stop_executing(operation)  # no other client would get the tools

    async def _read_operation(self, operation: str, meta: Meta, wanted: _Pending) -> None:
        relay = await self._hold_operation(operation, meta, wanted)
        if not self._has_room(operation):  # a pending operation was opened during the await
            self.hub.release(relay)
            self.check_subscription_limit()
        self._open_held(operation, relay, meta, wanted)

    async def _read_pending(self, operation: str, wanted: _Pending) -> None:
        """Open a pending operation if it exists by now.

        It stays pending until it is open, so that it is tried again after Unavailable. The client
        may unsubscribe or subscribe anew during each await: then `wanted` is outdated.
        """
        meta = await find_operation(self.node, self.identity, operation)
        if self._pending.get(operation) is not wanted:
            return
        relay = await self._hold_operation(operation, meta, wanted)
        if self._pending.get(operation) is wanted and self._has_room(operation):
            del self._pending[operation]
            self._open_held(operation, relay, meta, wanted)
        else:
            self.hub.release(relay)
            if operation not in self.socket.subscriptions:
                self._stop_executing(operation)  # nobody reads it here: others get its tools

    async def _hold_operation(self, operation: str, meta: Meta, wanted: _Pending) -> Relay:
        """Return the held relay of an operation, after its executor was noted; as `Hub.hold`."""
        if wanted.is_executor and fed_members(meta) is not None and not meta.is_ended:
            await self._execute(operation, meta)
        return await self.hub.hold(meta)

    def _open_held(self, operation: str, relay: Relay, meta: Meta, wanted: _Pending) -> None:
        if not wanted.is_executor:  # an earlier subscription of this client may have been one
            self._stop_executing(operation)
        fold = MuxFrameFold(meta, operation, wanted.seen, is_executor=wanted.is_executor)
        about = fed_members(meta)
        at = time.time_ns() // 1_000_000
        self.socket.say(
            type="op_lifecycle", operationId=operation, status=fold.status, at=at,
            **({"meta": about["meta"]} if about and about.get("meta") else {}),
        )  # fmt: skip
        self.socket.subscribe(operation, relay, START, fold)

    def _has_room(self, operation: str) -> bool:
        subscriptions = self.socket.subscriptions
        return operation in subscriptions or len(subscriptions) < SUBSCRIPTIONS_MAX

    async def _unsubscribe(self, frame: Frame) -> None:
        operation = str(frame.get("operationId"))
        self._pending.pop(operation, None)
        self._stop_executing(operation)
        self.socket.unsubscribe(operation)

    def _refuse_subscription(self, operation: str) -> None:
        self._pending.pop(operation, None)
        self._stop_executing(operation)
        self.socket.say(type="subscribe_failed", operationId=operation, reason="forbidden")

    # Which client runs tools

    async def _execute(self, operation: str, meta: Meta) -> None:
        if self.identity.may(GENERATE) and meta.owner == self.owner:
            self._executes[operation] = meta.generation_id
            await self._note_executor(meta.generation_id, is_there=True)

    def _stop_executing(self, operation: str) -> None:
        generation_id = self._executes.pop(operation, None)
        if generation_id is not None:
            self.hub.spawn(self._note_executor(generation_id, is_there=False))

    async def _note_executor(self, generation_id: str, *, is_there: bool) -> None:
        entry = executor_entry(self._client, is_there=is_there)
        try:
            await self.feeder.put(
                generation_id, Entries([entry], "", now_ms()), ticket=self.feeder.order.ticket()
            )
        except (RequestError, NotFound):
            return  # the operation has ended: no tool is executed any more

    # Operations that do not exist yet

    async def _look_for_pending(self) -> None:
        while True:
            await asyncio.sleep(PENDING_LOOK_S)
            for operation, wanted in list(self._pending.items()):
                if self.hub.now() >= wanted.until:
                    self._refuse_subscription(operation)
                    continue
                if self._has_room(operation):
                    await self._try_pending(operation, wanted)

    async def _try_pending(self, operation: str, wanted: _Pending) -> None:
        try:
            await self._read_pending(operation, wanted)
        except (NotFound, Unavailable):
            return
        except RequestError as exc:
            if self._pending.get(operation) is wanted:
                del self._pending[operation]
                self._stop_executing(operation)
                self.send_error({"operationId": operation}, exc)

    scopes = FRAMES[PATH]
    commands: ClassVar[Mapping[str, Command]] = {
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        **ReplyingConversation.reply_commands,
    }


class _Pending:
    """A subscription to an operation that does not exist yet.

    Attributes:
        seen: the number of the last event that the client has; 0: none.
        until: loop time in s.
    """

    __slots__ = ("is_executor", "seen", "until")

    def __init__(self, seen: int, is_executor: bool, until: float) -> None:
        self.seen = seen
        self.is_executor = is_executor
        self.until = until
