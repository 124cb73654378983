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
LOG_AWAY = "the log cannot be reached right now; repeating with an Idempotency-Key is safe"

# Of `too_many_connections`. After two such pauses the places of a node that died are free again.
CONNECTIONS_RETRY_AFTER_S = 5


class ErrorCode(NamedTuple):
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
CODES: dict[str, ErrorCode] = {
    "invalid_http": ErrorCode(400),
    "invalid_json": ErrorCode(400),
    "invalid_multipart": ErrorCode(400),
    "invalid_protobuf": ErrorCode(400),
    "cursor_invalid": ErrorCode(400),
    "wait_invalid": ErrorCode(400),
    "host_invalid": ErrorCode(400),
    "tls_required": ErrorCode(400),
    "idempotency_key_invalid": ErrorCode(400),
    "upgrade_required": ErrorCode(400),
    "unauthorized": ErrorCode(401, close=4501),
    "forbidden": ErrorCode(403, close=4503),
    "not_found": ErrorCode(404),
    "model_not_found": ErrorCode(404),
    "method_not_allowed": ErrorCode(405),
    "not_acceptable": ErrorCode(406),
    "request_timeout": ErrorCode(408, is_retryable=True),
    "expired": ErrorCode(410),
    "body_too_large": ErrorCode(413),
    "owner_files_full": ErrorCode(413),
    "unsupported_media_type": ErrorCode(415),
    "invalid_request": ErrorCode(422),
    "idempotency_mismatch": ErrorCode(422),
    "stream_reset": ErrorCode(409),
    "stream_request_invalid": ErrorCode(400),
    "offset_invalid": ErrorCode(400),
    "producer_stale": ErrorCode(403),
    "stream_exists": ErrorCode(409),
    "stream_closed": ErrorCode(409),
    "stream_seq_conflict": ErrorCode(409),
    "content_type_mismatch": ErrorCode(409),
    "stream_gone": ErrorCode(410),
    "offset_lost": ErrorCode(410),
    "streams_full": ErrorCode(413),
    "generation_ended": ErrorCode(409),
    "not_produced": ErrorCode(409),
    "producer_fenced": ErrorCode(409),
    "sequence_conflict": ErrorCode(409),
    "sequence_gap": ErrorCode(409),
    "answer_full": ErrorCode(413),
    "no_audio_input": ErrorCode(409),
    "audio_complete": ErrorCode(409),
    "audio_too_long": ErrorCode(413),
    "audio_full": ErrorCode(429, is_retryable=True),
    "too_many_schedules": ErrorCode(409),
    "too_many_shares": ErrorCode(409),
    "rate_limited": ErrorCode(429, is_retryable=True),
    "too_many_transfers": ErrorCode(429, is_retryable=True),
    "owner_full": ErrorCode(429, is_retryable=True),
    "too_many_active": ErrorCode(429, is_retryable=True),
    "too_many_connections": ErrorCode(429, close=4029, is_retryable=True),
    "quota_exhausted": ErrorCode(429),
    "head_too_large": ErrorCode(431),
    "internal": ErrorCode(500, close=1011),
    "not_installed": ErrorCode(501),
    "transfer_encoding_unsupported": ErrorCode(501),
    "http_version_unsupported": ErrorCode(505),
    "unavailable": ErrorCode(503, close=1013, is_retryable=True),
    "draining": ErrorCode(503, close=1012, is_retryable=True),
    "queue_full": ErrorCode(503, is_retryable=True),
    "bodies_full": ErrorCode(503, is_retryable=True),
    "storage_full": ErrorCode(503, is_retryable=True),
    "token_expired": ErrorCode(0, close=4001, is_retryable=True),
    "too_slow": ErrorCode(0, close=4008, is_retryable=True),
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
    return request_error("unavailable", LOG_AWAY, retry_after_s=RETRY_AFTER_S)


class ErrorBody(NamedTuple):
    """The body of an error response in the shape of one dialect.

    Attributes:
        headers: sent beside those of `error_headers`.
        status: the HTTP status, where the dialect uses another one than the error has.
    """

    body: bytes
    content_type: bytes = b"application/json"
    headers: Sequence[tuple[bytes, bytes]] = ()
    status: int | None = None


ErrorShape = Callable[[RequestError], ErrorBody]


def native_shape(error: RequestError) -> ErrorBody:
    """Return `{"error":{"code","message","retryable"}}`, with `RequestError.members`."""
    members = {"code": error.code, "message": error.message, "retryable": error.retryable}
    return ErrorBody(msgspec.json.encode({"error": {**members, **error.members}}))


async def send_error(
    send: Send, error: RequestError, shape: ErrorShape = native_shape, *, kind: str = "http"
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
        "status": shaped.status or error.status,
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


class TooManyConnections(RequestError):
    """429: the owner has as many open readers as the operator allows.

    Attributes:
        refusal_count: how often this reader was refused, this refusal included. The counts of an
            owner are deleted 30 s after the last refusal. 0: refusals of this reader are not
            counted.
    """

    def __init__(self, most: int, refusal_count: int) -> None:
        row = CODES["too_many_connections"]
        super().__init__(
            row.status,
            "too_many_connections",
            f"{most} readers of this owner are open, and no more may be: close one first",
            retryable=row.is_retryable,
            retry_after_s=CONNECTIONS_RETRY_AFTER_S,
        )
        self.refusal_count = refusal_count


def _encodable(text: str) -> str:
    """Return a message without lone surrogates: it may quote text of a client that has them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
