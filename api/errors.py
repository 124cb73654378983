"""How errors leave an API node: one table and the body of each error.

Every code that a client may be shown stands in `CODES` with its HTTP status and its WebSocket close
code, so the transports cannot drift apart. A dialect has a shape of its own for the body. Knows
nothing of generations. Source: docs/protocol.md, the status table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
from starlette.types import Send

from shared.errors import RequestError

RETRY_AFTER_S = 1  # after which a client may ask again when Redis is away or the node drains


class Code(NamedTuple):
    """What one error code looks like outside.

    Attributes:
        status: HTTP status; 0 where the code exists on sockets only.
        close: WebSocket close code; 0 where an error frame says it and the socket lives.
    """

    status: int
    close: int = 0
    is_retryable: bool = False


# 4000 to 4499: reconnect and resume. 4500 to 4999: final. Clients decide by range.
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
    """Build the error of a code in the table; `message` is for a person and says what to do."""
    row = CODES[code]
    return RequestError(
        row.status, code, message, retryable=row.is_retryable, retry_after_s=retry_after_s
    )


def unavailable() -> RequestError:
    return request_error(
        "unavailable",
        "the log cannot be reached right now; repeating with an Idempotency-Key is safe",
        retry_after_s=RETRY_AFTER_S,
    )


class ErrorBody(NamedTuple):
    """How a dialect says an error, before anything else was sent."""

    body: bytes
    content_type: bytes = b"application/json"
    headers: Sequence[tuple[bytes, bytes]] = ()


Shape = Callable[[RequestError], ErrorBody]


def native_shape(error: RequestError) -> ErrorBody:
    """Return `{"error":{"code","message","retryable"}}`."""
    said = {"code": error.code, "message": error.message, "retryable": error.retryable}
    return ErrorBody(msgspec.json.encode({"error": said}))


async def respond(
    send: Send, error: RequestError, shape: Shape = native_shape, *, kind: str = "http"
) -> None:
    """Answer a request with `error`; the response must not have begun.

    Args:
        kind: `http`, or `websocket.http` for a handshake (the denial extension of ASGI).
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
    """Return the headers of an error, `Retry-After` and the challenge where they belong."""
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
    """The path exists, the method does not; `allow` is the header that must go with it."""

    def __init__(self, methods: Iterable[str]) -> None:
        self.allow = ", ".join(sorted(methods))
        super().__init__(405, "method_not_allowed", f"use one of: {self.allow}")


def _encodable(text: str) -> str:
    """Messages quote what clients sent, which need not be encodable."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
