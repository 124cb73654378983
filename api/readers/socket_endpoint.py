"""The handshake of a WebSocket route: credentials, subprotocol, refusals; then its conversation.

api/edge/gate.py has refused foreign hosts and origins before. A client has its credentials in the
handshake or, where the dialect takes it, in the first frame. Invariant: an answer never repeats
credentials, also not as the chosen subprotocol. Source: docs/protocol.md, "WebSocket".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from api.access import SHARED
from api.edge.admission import check_share
from api.errors import CODES, request_error
from api.identity.carriers import SUBPROTOCOL_PREFIX
from api.node import Node
from api.readers.conversation import Conversation, error_frame
from api.readers.conversation_handover import ConversationHandover
from api.readers.first_frame import BYTES_MAX, read_first_frame
from api.readers.lookup import read_query
from api.transport.extensions import DEFLATE, FIRST_MESSAGE_BYTES, HANDOVER
from shared.config.credentials import Identity
from shared.errors import Draining, RequestError

SUBPROTOCOL = "tailrace.v1"

# Node, who asks, scope, send.
ConversationFactory = Callable[[Node, Identity, Scope, Send], Conversation]


class SocketEndpoint:
    """The ASGI application of one WebSocket route.

    Args:
        path: the path of the route, for the log.
        converse: makes the conversation of one socket. An error that it raises refuses the
            handshake.
        subprotocol: chosen if the client offers it.
        is_refusal_readable: answers a browser's bad credentials with an accepted socket, an error
            frame and a final close code, because a browser cannot read the status of a handshake.
            Only for clients that know final close codes.
        takes_auth_frame: accepts a client without credentials, whose first frame brings them.
        is_deflated: its clients read compressed messages if they offer permessage-deflate.
    """

    def __init__(
        self,
        node: Node,
        path: str,
        converse: ConversationFactory,
        *,
        subprotocol: str | None = None,
        is_refusal_readable: bool = False,
        takes_auth_frame: bool = False,
        is_deflated: bool = True,
    ) -> None:
        self.node = node
        self.path = path
        self.converse = converse
        self.subprotocol = subprotocol
        self.is_refusal_readable = is_refusal_readable
        self.takes_auth_frame = takes_auth_frame
        self.is_deflated = is_deflated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket until its end, or until it is handed over to the server.

        Raises:
            RequestError: the handshake is refused: draining, bad credentials, or a bad query.
        """
        assert (await receive())["type"] == "websocket.connect"
        headers, query = Headers(scope=scope), read_query(scope)
        offered, authenticator = scope.get("subprotocols", ()), self.node.authenticator
        if self.node.hub.is_draining:
            raise Draining()
        if self.takes_auth_frame and authenticator.is_anonymous(headers, query, offered):
            await self._serve_stranger(scope, receive, send)
            return
        try:
            identity = await authenticator.authenticate(headers, query, offered)
            check_share(identity, is_shared=(self.path, "GET") in SHARED)
            conversation = self.converse(self.node, identity, scope, send)
            await conversation.take_place()
        except RequestError as exc:
            if "origin" not in headers or not self.is_refusal_readable:
                raise
            await self._accept(scope, send)
            await self._refuse(scope, send, exc)
            return
        try:
            await self._accept(scope, send)
            await self._serve(conversation, scope, receive)
        except BaseException:
            conversation.give_back_place()
            raise

    async def _serve(self, conversation: Conversation, scope: Scope, receive: Receive) -> None:
        hand_over = scope.get("extensions", {}).get(HANDOVER)
        if hand_over is None or conversation.has_background_work:
            await conversation.hold(receive)
        else:
            ConversationHandover(conversation, self.path, hand_over)

    async def _serve_stranger(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept a client without credentials, and serve it once its first frame brings some."""
        node, client = self.node, scope.get("client")
        address = node.peers.client_address(client[0] if client else None, scope["headers"])
        await self._accept(scope, send, {FIRST_MESSAGE_BYTES: BYTES_MAX})
        if not node.waiting_places.take(address):
            too_many = "too many sockets of this address wait for their auth frame"
            await self._refuse(scope, send, request_error("forbidden", too_many))
            return
        try:
            presented = await read_first_frame(receive)
            if presented is None:
                return
            identity = await node.authenticator.check(presented.credential)
            check_share(identity, is_shared=(self.path, "GET") in SHARED)
            conversation = self.converse(node, identity, scope, send)
            await conversation.take_place()
        except RequestError as exc:
            await self._refuse(scope, send, exc)
            return
        finally:
            node.waiting_places.give_back(address)
        try:
            if node.hub.is_draining:
                conversation.give_back_place()
                await self._refuse(scope, send, Draining())
            else:
                await self._serve(conversation, scope, receive)
        except BaseException:
            conversation.give_back_place()
            raise

    async def _accept(
        self, scope: Scope, send: Send, bounds: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """Accept the socket. The chosen subprotocol is never the one that has the credentials."""
        offered = scope.get("subprotocols", ())
        has_token = any(name.startswith(SUBPROTOCOL_PREFIX) for name in offered)
        wanted = SUBPROTOCOL if has_token else self.subprotocol
        chosen = wanted if wanted in offered else None
        accepted: Message = {"type": "websocket.accept", "subprotocol": chosen, **bounds}
        if not self.is_deflated:
            accepted[DEFLATE] = False
        await send(accepted)

    async def _refuse(self, scope: Scope, send: Send, error: RequestError) -> None:
        """Close an accepted socket with the reason, in a frame and in the close code."""
        if error.status == 401:
            await self.node.slowing.hold_back(scope)
        frame = msgspec.json.encode(error_frame(error)).decode()
        await send({"type": "websocket.send", "text": frame})
        code = CODES[error.code].close or CODES["unauthorized"].close
        await send({"type": "websocket.close", "code": code, "reason": error.code})
