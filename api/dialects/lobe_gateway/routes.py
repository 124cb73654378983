"""GET /api/agent/stream: the events of an operation, as LobeHub's own server streams them.

Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

import functools
import time

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deadline import answer_deadline
from api.dialects.lobe_gateway.events import encode
from api.dialects.lobe_gateway.fold import LOBE_GATEWAY
from api.dialects.lobe_gateway.operation import find_operation, read_number
from api.hub.hub import Hub
from api.hub.relay import Relay
from api.node import Node
from api.readers.chunk_number import locate
from api.readers.http_stream import Beginning, stream
from api.readers.lookup import read_query


class LobeGatewayRoutes:
    """The handler of /api/agent/stream."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def stream(self, request: HttpRequest) -> ASGIApp:
        """GET /api/agent/stream?operationId=…&lastEventId=…"""
        query = read_query(request.scope)
        # A client that comes back by itself has its newest number in the header only.
        sent = request.headers.get("last-event-id") or query.get("lastEventId")
        seen, name = read_number(sent), query.get("operationId", "")
        identity = self.node.identity(request)
        async with answer_deadline():
            meta = await find_operation(self.node, identity, name, seen=seen)
        begin = functools.partial(begin_after, self.node.hub, seen, meta.generation_id)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await stream(
                self.node.hub, scope, receive, send,
                meta=meta, dialect=LOBE_GATEWAY, begin=begin,
                headers=[(b"x-generation-id", meta.generation_id.encode())],
            )  # fmt: skip

        return answer


async def begin_after(hub: Hub, seen: int, generation_id: str, relay: Relay) -> Beginning:
    """Begin after event number `seen`; 0: at the start.

    Raises:
        RequestError: `stream_reset`, there is no such place.
        Unavailable: the log could not be read in time.
    """
    place = await locate(hub, relay, LOBE_GATEWAY, seen)
    opening = relay.encoded_log(LOBE_GATEWAY).opening
    connected = {
        "type": "connected", "operationId": generation_id, "lastEventId": str(seen),
        "timestamp": time.time_ns() // 1_000_000,
    }  # fmt: skip
    hello = b"event: connected\ndata: %b\n\n" % encode(connected)
    # After the last event nothing follows. LobeHub's reader fails over a 204, which has no body.
    return Beginning(place.cursor, hello + (place.head if seen else opening))
