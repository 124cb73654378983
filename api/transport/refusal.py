"""The last response on a connection: an error that the server itself gives, and a lingering close.

A request that the HTTP parser or the WebSocket handshake refuses never reaches the application. Its
error response is built here, in the native shape, like every other error. docs/protocol.md promises
that a connection with a complete request head is not closed without an answer.

A client can lose a response that the server has sent: to close a connection with unread bytes
resets the connection, and the client's kernel then drops the bytes that the client has not read.
So the sending side is closed first, and the peer's bytes are read and dropped for a while.

Knows nothing of requests that the application answers.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from api.errors import error_headers, native_shape, request_error
from api.transport.stalled_peer import StallTimer
from shared.errors import RequestError

# After the last response: abort when the peer has taken no byte of it for so long. Meanwhile the
# peer's bytes are dropped.
LINGER_S = 2.0


def encode_refusal(error: RequestError, *headers: tuple[bytes, bytes]) -> bytes:
    """Return a complete HTTP/1.1 response with `error` and `connection: close`.

    Args:
        headers: sent beside those of the error.
    """
    shaped = native_shape(error)
    lines = [b"HTTP/1.1 %d %b" % (error.status, HTTPStatus(error.status).phrase.encode())]
    lines += [name + b": " + value for name, value in [*error_headers(error, shaped), *headers]]
    return b"\r\n".join([*lines, b"connection: close", b"", shaped.body])


def send_last(transport: asyncio.Transport, stall: StallTimer, response: bytes) -> None:
    """Write `response`, close the sending side, and abort when the peer takes no more bytes.

    The caller must drop all bytes that it receives afterwards. When the peer closes its own side,
    the connection ends.
    """
    if transport.is_closing():
        return
    transport.write(response)
    end_sending(transport)
    transport.resume_reading()
    stall.watch(LINGER_S)


def end_sending(transport: asyncio.Transport) -> None:
    """Close the sending side behind all bytes that were written.

    TLS has no half-closed connections: there the whole connection closes, with a close_notify
    behind the bytes.
    """
    if transport.can_write_eof():
        transport.write_eof()
    else:
        transport.close()


def invalid_http(reason: str = "the request is not HTTP/1.1 as it is read here") -> RequestError:
    """Return the 400 error for bytes that are not a request that this server accepts."""
    return request_error("invalid_http", reason)


def unsupported_transfer_encoding() -> RequestError:
    """Return the 501 error for a `Transfer-Encoding` other than `chunked` (RFC 9112, 6.1)."""
    return request_error(
        "transfer_encoding_unsupported", "send Transfer-Encoding: chunked, or a Content-Length"
    )


def unsupported_version() -> RequestError:
    """Return the 505 error for a request line with another version than HTTP/1.0 or HTTP/1.1."""
    return request_error("http_version_unsupported", "send HTTP/1.1 or HTTP/1.0")


def head_too_large() -> RequestError:
    """Return the 431 error for a request head, trailers or a chunk extension beyond the bound."""
    return request_error(
        "head_too_large", "the request's line, headers or trailers are too many or too long"
    )
