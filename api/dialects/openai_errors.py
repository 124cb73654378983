"""What OpenAI's families have in common: how they say an error, and which status a failure has.

    {"error":{"message":"no model 'x'","type":"invalid_request_error","param":null,"code":"…"}}

OpenAI's SDKs try 408, 409, 429 and 5xx again by themselves, twice, and each try would start another
generation; where that cannot help they are told so. Pure. Source: docs/protocol.md, "Dialects".
"""

from __future__ import annotations

from typing import Any

import msgspec

from api.errors import ErrorBody
from shared.errors import RequestError
from shared.log.event_bytes import LOST
from shared.log.events import End, Failure, decode

STREAM_RESET = Failure(
    "stream_reset", "the answer was begun anew and what was sent is void: ask again", True
)
CANCELLED = Failure("cancelled", "the generation was cancelled", False)
GIVEN_UP = Failure("upstream_error", "the generation failed", True)
_RETRIED = (408, 409, 429)  # and 5xx
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# Of a generation that failed; all others are a broken gateway's 502.
_STATUSES = {"cancelled": 409, "upstream_timeout": 504, "queue_timeout": 503, "lost": 500}


def openai_shape(error: RequestError) -> ErrorBody:
    """Return an error as OpenAI's API has it."""
    param = "model" if error.code == "model_not_found" else None
    said = error_object(error.code, error.message, status=error.status, param=param)
    is_retried = error.status in _RETRIED or error.status >= 500
    headers = [(b"x-should-retry", b"false")] if is_retried and not error.retryable else []
    return ErrorBody(msgspec.json.encode({"error": said}), headers=headers)


def error_object(
    code: str, message: str, *, status: int = 500, param: str | None = None
) -> dict[str, Any]:
    """Return the members of `error`."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": param, "code": code}


def failure_of(end: End) -> Failure | None:
    """Return why a generation has no whole answer; None: it has."""
    if end.status == "completed":
        return None
    return CANCELLED if end.status == "cancelled" else end.error or GIVEN_UP


def as_request_error(failure: Failure) -> RequestError:
    """Return the error of an answer that was to be whole."""
    status = _STATUSES.get(failure.code, 502)
    return RequestError(status, failure.code, failure.message, retryable=failure.retryable)


def failure_aside(raw: bytes) -> Failure:
    """Return what an event that is in no log means to a client that cannot begin again."""
    if raw != LOST:
        return STREAM_RESET
    end = decode(raw)
    assert isinstance(end, End)
    return failure_of(end) or GIVEN_UP
