"""Bodies without a length for HTTP/1.0, which has no chunks: the close of the connection ends them.

A clean close says "complete" in HTTP/1.0. So the socket is set to answer every other end with a
reset (SO_LINGER with 0 s): a broken-off stream, and also the death of the process. Only the last
piece of a complete body turns this off. Source: RFC 9112, 6.3; docs/protocol.md.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.transport.extensions import HANDOVER, WIRE

RESET_AT_CLOSE, CLEAN_CLOSE = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
STATUSES_WITHOUT_BODY = (204, 304)


def close_delimited(
    app: ASGIApp, cycle: RequestResponseCycle, transport: asyncio.Transport
) -> ASGIApp:
    """Return `app` for one HTTP/1.0 request: a body without Content-Length is not chunked.

    The extensions that write chunks past `send` are removed.
    """

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        is_open_ended = False

        async def send_unchunked(message: Message) -> None:
            nonlocal is_open_ended
            if message["type"] == "http.response.start":
                is_open_ended = _is_open_ended(scope, message)
                if is_open_ended:
                    cycle.chunked_encoding = False
                    _set_linger(transport, RESET_AT_CLOSE)
            elif is_open_ended:
                # uvicorn compares each piece with the bytes that it still expects.
                cycle.expected_content_length = len(message.get("body", b""))
                if not message.get("more_body", False):
                    _set_linger(transport, CLEAN_CLOSE)
            await send(message)

        for name in (HANDOVER, WIRE):
            scope.get("extensions", {}).pop(name, None)
        await app(scope, receive, send_unchunked)

    return run


def _is_open_ended(scope: Scope, start: Message) -> bool:
    if scope["method"] == "HEAD" or start["status"] in STATUSES_WITHOUT_BODY:
        return False
    return all(name.lower() != b"content-length" for name, _ in start.get("headers", ()))


def _set_linger(transport: asyncio.Transport, value: bytes) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, value)
