"""GET /lobe-gateway/ws: the WebSocket of LobeHub's agent gateway, version 1.

One socket reads one operation. The first frame of a client is `auth`, then it sends `resume` and
gets the events that it has not seen, on any node. `interrupt` cancels the generation. Results of
tools, confirmations and inputs go to the feeder of the operation.
Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from starlette.datastructures import Headers
from starlette.types import Scope, Send

from api.access import FRAMES
from api.dialects.lobe_gateway.asked import NAMES, TOOL_RESULT, Asked, find_asked
from api.dialects.lobe_gateway.feeder import Feeder
from api.dialects.lobe_gateway.fold import GatewayFrameFold
from api.dialects.lobe_gateway.operation import find_operation, read_number
from api.dialects.lobe_gateway.operation_log import fed_members, is_trusted
from api.dialects.lobe_gateway.patience import until_redis_answers
from api.dialects.lobe_gateway.replies import read_reply_frame
from api.dialects.lobe_gateway.tool_results import forward_result, note_untrusted
from api.errors import request_error
from api.node import Node
from api.readers.conversation import Command, Conversation, Frame, error_frame
from api.readers.first_frame import read_token
from api.readers.lookup import read_query
from api.readers.socket_endpoint import SocketEndpoint
from shared.config.credentials import Identity
from shared.errors import RequestError
from shared.log.feeding import Repeated, repeat_key
from shared.log.records import Meta
from shared.queue.endings import cancel

PATH = "/lobe-gateway/ws"
POLICY_VIOLATION = 1008  # with `auth_failed`: the client does not come back
READING = "operation"  # the key of the only subscription
FINAL = ("unauthorized", "not_found")


def lobe_gateway_socket(node: Node) -> SocketEndpoint:
    """Return the ASGI application of /lobe-gateway/ws."""
    return GatewayEndpoint(
        node, PATH, GatewayConversation, is_refusal_readable=True, takes_auth_frame=True
    )


class GatewayEndpoint(SocketEndpoint):
    """The handshake, with the refusal that the client knows."""

    async def _refuse(self, scope: Scope, send: Send, error: RequestError) -> None:
        if error.status == 401:
            await self.node.slowing.hold_back(scope)
        frame = msgspec.json.encode(failed_frame(error)).decode()
        await send({"type": "websocket.send", "text": frame})
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": error.code})


class ReplyingConversation(Conversation):
    """A conversation whose client answers feeders; the base of both versions."""

    @functools.cached_property
    def feeder(self) -> Feeder:
        """Writes the replies of this socket; most sockets send none."""
        return Feeder(self.node)

    def operation_of(self, frame: Frame) -> str:
        """Return the name of the operation that a frame is about; raises RequestError."""
        raise NotImplementedError

    async def _reply(self, frame: Frame) -> None:
        """Write a reply to the feeder; pass the result of a tool on to LobeHub's server."""
        reply = read_reply_frame(frame)
        operation = self.operation_of(frame)

        async def find() -> tuple[Meta, Asked]:
            meta = await find_operation(self.node, self.identity, operation)
            if fed_members(meta) is None or meta.owner != self.owner:
                raise request_error("not_produced", "no feeder of this operation waits for a reply")
            store = self.node.store
            return meta, await find_asked(store, meta.generation_id, reply.kind, reply.name)

        meta, asked = await until_redis_answers(find)
        if asked.state == "unknown":
            raise request_error(
                "invalid_request",
                f"{NAMES[reply.kind]}: this operation has not asked for a {reply.kind} of this id",
            )
        if asked.state == "answered":
            return  # of several replies the first one counts
        outcome = await self.feeder.put(
            meta.generation_id, reply.entries,
            ticket=self.feeder.order.ticket(), repeat_key=repeat_key(reply.kind, reply.name),
        )  # fmt: skip
        if reply.kind != TOOL_RESULT or not self.node.settings.lobehub_url:
            return
        members = reply.members
        if isinstance(outcome, Repeated):
            # Another client was first, or this node's own try whose answer was lost.
            _, asked = await until_redis_answers(find)
            members = asked.reply or members
        self._forward(meta, members)

    def _forward(self, meta: Meta, result: Mapping[str, Any]) -> None:
        if is_trusted(meta):
            self.node.hub.spawn(forward_result(self.node.settings, result))
        else:
            note_untrusted()

    async def _interrupt(self, frame: Frame) -> None:
        meta = await find_operation(self.node, self.identity, self.operation_of(frame))
        await cancel(self.node.store, meta.generation_id, by=self.node.asker(self.owner, meta))

    async def _heartbeat(self, frame: Frame) -> None:
        self.socket.say(type="heartbeat_ack")

    reply_commands: ClassVar[Mapping[str, Command]] = {
        "tool_result": _reply,
        "tool_confirmation": _reply,
        "user_input": _reply,
        "interrupt": _interrupt,
        "heartbeat": _heartbeat,
    }


class GatewayConversation(ReplyingConversation):
    """The protocol of the gateway, for the operation in the query of the handshake."""

    def __init__(self, node: Node, identity: Identity, scope: Scope, send: Send) -> None:
        super().__init__(node, identity, scope, send)
        headers, query = Headers(scope=scope), read_query(scope)
        self._operation = query.get("operationId", "")
        offered = scope.get("subprotocols", ())
        # Then the endpoint has taken the auth frame already.
        self._owes_success = node.authenticator.is_anonymous(headers, query, offered)

    def enter(self) -> None:
        """Register, and tell a client that sent its auth frame that its credentials are good."""
        super().enter()
        if self._owes_success:
            self.socket.say(type="auth_success")

    def send_error(self, frame: Any, error: RequestError) -> None:
        if error.code in FINAL:
            self.socket.say(**failed_frame(error))
            self.socket.close(POLICY_VIOLATION)
        else:
            self.socket.say(**error_frame(error))

    def warn_of_expiry(self, error: RequestError) -> None:
        self.socket.say(type="auth_expired")

    async def _auth(self, frame: Frame) -> None:
        """Go on with a newer token. Where nobody needs credentials, any token is good."""
        if self.node.authenticator.is_configured:
            self.renew(await self.node.authenticator.check(read_token(frame)))
        self.socket.say(type="auth_success")

    async def _resume(self, frame: Frame) -> None:
        seen = read_number(frame.get("lastEventId"))
        meta = await find_operation(self.node, self.identity, self._operation, seen=seen)
        wants_status = frame.get("wantStatus") is True
        fold = GatewayFrameFold(meta, self._operation, seen, wants_status=wants_status)
        await self.open(READING, meta, fold)

    def operation_of(self, frame: Frame) -> str:
        return self._operation

    scopes = FRAMES[PATH]
    commands: ClassVar[Mapping[str, Command]] = {
        "auth": _auth,
        "resume": _resume,
        **ReplyingConversation.reply_commands,
    }


def failed_frame(error: RequestError) -> dict[str, str]:
    """Return the frame after which a client does not come back."""
    return {"type": "auth_failed", "reason": f"{error.message} ({error.code})"}
