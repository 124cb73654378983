"""The errors that an API node sends: one table of codes, and the body of each error.

`CODES` has every code that a client may get, with its HTTP status and its WebSocket close code, so
that HTTP and WebSocket report an error in the same way. A dialect may have its own shape of the
body. Knows no generations. Source: docs/protocol.md, the status table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
from starlette.types import Send

from shared.errors import RequestError

RETRY_AFTER_S = 1  # `Retry-After` of errors that end soon: Redis is away, or the node is draining


class Code(NamedTuple):
    """How clients see one error code.

    Attributes:
        status: HTTP status; 0 for a code that exists on sockets only.
        close: WebSocket close code; 0 for a code that is sent in an error frame, after which the
            socket stays open.
        is_retryable: the same request may succeed later.
    """

    status: int
    close: int = 0
    is_retryable: bool = False


# Close codes 4000 to 4499: reconnect and resume. 4500 to 4999: final. Clients decide by range.
CODES: dict[str, Code] = {
    "invalid_http": Code(400),
    "invalid_json": Code(400),
    "invalid_multipart": Code(400),
    "cursor_invalid": Code(400),
    "wait_invalid": Code(400),
    "host_invalid": Code(400),
    "idempotency_key_invalid": Code(400),
    "upgrade_required": Code(400),
    "unauthorized": Code(401, close=4501),
    "forbidden": Code(403, close=4503),
    "not_found": Code(404),
    "model_not_found": Code(404),
    "method_not_allowed": Code(405),
    "not_acceptable": Code(406),
    "request_timeout": Code(408, is_retryable=True),
    "expired": Code(410),
    "body_too_large": Code(413, close=1009),
    "owner_files_full": Code(413),
    "unsupported_media_type": Code(415),
    "invalid_request": Code(422),
    "idempotency_mismatch": Code(422),
    "stream_reset": Code(409),
    "too_many_schedules": Code(409),
    "rate_limited": Code(429, is_retryable=True),
    "too_many_transfers": Code(429, is_retryable=True),
    "owner_full": Code(429, is_retryable=True),
    "head_too_large": Code(431),
    "internal": Code(500, close=1011),
    "transfer_encoding_unsupported": Code(501),
    "http_version_unsupported": Code(505),
    "unavailable": Code(503, close=1013, is_retryable=True),
    "draining": Code(503, close=1012, is_retryable=True),
    "queue_full": Code(503, is_retryable=True),
    "storage_full": Code(503, is_retryable=True),
    "too_slow": Code(0, close=4008, is_retryable=True),
}


def request_error(code: str, message: str, *, retry_after_s: int | None = None) -> RequestError:
    """Return the error of a code in `CODES`.

    Args:
        message: for a person; says what to do.
        retry_after_s: seconds, for the header `Retry-After`. None: the response has no such header.
    """
    row = CODES[code]
    return RequestError(
        row.status, code, message, retryable=row.is_retryable, retry_after_s=retry_after_s
    )


def unavailable() -> RequestError:
    """Return the error for a request that Redis did not answer."""
    return request_error(
        "unavailable",
        "the log cannot be reached right now; repeating with an Idempotency-Key is safe",
        retry_after_s=RETRY_AFTER_S,
    )


class ErrorBody(NamedTuple):
    """The body of an error response in the shape of one dialect.

    Attributes:
        headers: sent beside those of `error_headers`.
    """

    body: bytes
    content_type: bytes = b"application/json"
    headers: Sequence[tuple[bytes, bytes]] = ()


Shape = Callable[[RequestError], ErrorBody]


def native_shape(error: RequestError) -> ErrorBody:
    """Return `{"error":{"code","message","retryable"}}`."""
    members = {"code": error.code, "message": error.message, "retryable": error.retryable}
    return ErrorBody(msgspec.json.encode({"error": members}))


async def respond(
    send: Send, error: RequestError, shape: Shape = native_shape, *, kind: str = "http"
) -> None:
    """Answer a request with `error`. The response must not have begun.

    Args:
        shape: builds the body.
        kind: the prefix of the ASGI messages: `http`, or `websocket.http` to refuse a handshake
            (ASGI's extension "WebSocket Denial Response").
    """
    error.message = _encodable(error.message)
    shaped = shape(error)
    start = {
        "type": f"{kind}.response.start",
        "status": error.status,
        "headers": [*error_headers(error, shaped), *shaped.headers],
    }
    await send(start)
    await send({"type": f"{kind}.response.body", "body": shaped.body})


def error_headers(error: RequestError, shaped: ErrorBody) -> list[tuple[bytes, bytes]]:
    """Return the headers of an error response.

    Beside those of the body they are `Retry-After` where the error has one, the challenge of a 401,
    and `Allow` of a 405.
    """
    headers = [
        (b"content-type", shaped.content_type),
        (b"content-length", b"%d" % len(shaped.body)),
        (b"cache-control", b"no-store"),
    ]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode("ascii")))
    return headers


class MethodNotAllowed(RequestError):
    """405: the path exists, but not with this method.

    Attributes:
        allow: the value of the header `Allow`, which RFC 9110 demands of a 405.
    """

    def __init__(self, methods: Iterable[str]) -> None:
        self.allow = ", ".join(sorted(methods))
        super().__init__(405, "method_not_allowed", f"use one of: {self.allow}")


def _encodable(text: str) -> str:
    """Return a message without lone surrogates: it may quote text of a client that has them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
