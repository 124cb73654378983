"""The last answer on a connection: an error that the server itself gives, and a close that waits.

A request that the parser or the WebSocket handshake cannot take never reaches the application. Its
answer is made here, in the shape of the native interface, so that such a request is refused in the
same words as any other. docs/protocol.md promises that no connection which sent a complete request
head is closed without an answer.

An answer can be lost after it was sent: to close a connection while bytes of the peer's are unread
resets the connection, and the peer's kernel then throws away what the peer has not read yet. So the
sending side is closed first, and the peer's bytes are read and dropped for a while.

Knows nothing of requests that the application answers.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from api.errors import error_headers, native_shape, request_error
from api.transport.stalled_peer import Stall
from shared.errors import RequestError

# For so long the peer's bytes are dropped after the last answer, seconds since it took some of it.
LINGER_S = 2.0


def answer_of(error: RequestError) -> bytes:
    """Return a whole HTTP/1.1 response that says `error` and closes the connection."""
    shaped = native_shape(error)
    lines = [b"HTTP/1.1 %d %b" % (error.status, HTTPStatus(error.status).phrase.encode())]
    lines += [name + b": " + value for name, value in error_headers(error, shaped)]
    return b"\r\n".join([*lines, b"connection: close", b"", shaped.body])


def finish(transport: asyncio.Transport, stall: Stall, last: bytes) -> None:
    """Write `last`, close the sending side, and break off once the peer takes nothing any more.

    The caller drops what it receives from now on. A peer that closes its side ends the connection.
    """
    if transport.is_closing():
        return
    transport.write(last)
    transport.write_eof()
    transport.resume_reading()
    stall.watch(LINGER_S)


def not_http(why: str = "the request is not HTTP/1.1 as it is read here") -> RequestError:
    return request_error("invalid_http", why)


def head_too_large() -> RequestError:
    return request_error(
        "head_too_large", "the request's line, headers or trailers are too many or too long"
    )
