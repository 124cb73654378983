"""Errors in the form of OpenAI's API, and the HTTP status of each failure.

    {"error":{"message":"no model 'x'","type":"invalid_request_error","param":null,"code":"…"}}

The refusal of a model server has the server's own status and members.

OpenAI's SDKs repeat a request by themselves after 408, 409, 429 and 5xx, twice, and each repeat
would start another generation. Where a repeat cannot help, a header tells them not to repeat.
Invariant: no error has the status 422. OpenAI's API answers a wrong body with 400, and LangChain
sends a request that gets 422 seven times, but a request that gets 400 once. Pure.
Source: docs/protocol.md, "Dialects".
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from api.dialects.failure import GENERATION_FAILED, STREAM_RESET, client_refusal, shown
from api.errors import ErrorBody
from shared.errors import RequestError
from shared.log.event_bytes import DELETED, LOST
from shared.log.events import End, Failure, decode

CANCELLED = Failure("cancelled", "the generation was cancelled", False)
_STATUSES_REPEATED_BY_SDKS = (408, 409, 429)  # and 5xx
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# By failure code. Other failures have the status of a broken gateway.
_FAILURE_STATUSES = {
    "cancelled": 409, "upstream_timeout": 504, "deadline_exceeded": 504, "queue_timeout": 503,
    "lost": 500, "document_invalid": 400, "document_too_large": 400,
}  # fmt: skip
_BAD_GATEWAY = 502


class GenerationFailed(RequestError):
    """The error response of a failed generation.

    Attributes:
        failure: why it failed; `code` and `message` of the error are those that a client is shown.
    """

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        refusal, told = client_refusal(failure), shown(failure)
        status = _FAILURE_STATUSES.get(failure.code, _BAD_GATEWAY)
        if refusal is not None and refusal.status is not None:
            status = refusal.status
        super().__init__(status, told.code, told.message, retryable=told.retryable)


def openai_shape(error: RequestError) -> ErrorBody:
    """Return the body and headers of an error in the form of OpenAI's API."""
    status = openai_status(error.status)
    if isinstance(error, GenerationFailed):
        content = failure_object(error.failure, status=status)
    else:
        param = "model" if error.code == "model_not_found" else None
        content = error_object(error.code, error.message, status=status, param=param)
    is_repeated = status in _STATUSES_REPEATED_BY_SDKS or status >= 500
    headers = [(b"x-should-retry", b"false")] if is_repeated and not error.retryable else []
    return ErrorBody(msgspec.json.encode({"error": content}), headers=headers, status=status)


def openai_status(status: int) -> int:
    """Return the status that an OpenAI client gets for an error with `status`."""
    return HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status


def error_object(
    code: str, message: str, *, status: int = 500, param: str | None = None
) -> dict[str, Any]:
    """Return the members of `error`."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    if code == "quota_exhausted":  # as OpenAI names the end of a quota; SDKs do not wait for it
        kind = "insufficient_quota"
    return {"message": message, "type": kind, "param": param, "code": code}


def failure_object(failure: Failure, *, status: int = 500) -> dict[str, Any]:
    """Return the members of `error` for a failed generation: the model server's own, if it refused.

    Args:
        status: decides the type where the model server did not refuse.
    """
    refusal, told = client_refusal(failure), shown(failure)
    if refusal is None:
        return error_object(told.code, told.message, status=status)
    status = refusal.status or status
    content = error_object(told.code, told.message, status=status, param=refusal.param)
    return {**content, "type": refusal.type or content["type"]}


def failure_of(end: End) -> Failure | None:
    """Return why a generation did not complete. None: it completed."""
    if end.status == "completed":
        return None
    return CANCELLED if end.status == "cancelled" else end.error or GENERATION_FAILED


def failure_aside(raw: bytes) -> Failure:
    """Return the failure that a client is told for an event that is in no log.

    Args:
        raw: the event as `Fold.aside` is given it: a `reset`, or the `end` of a lost or deleted
            generation. A client of a dialect without `reset` cannot begin again, so for it all of
            them are failures.
    """
    if raw not in (LOST, DELETED):
        return STREAM_RESET
    end = decode(raw)
    assert isinstance(end, End)
    return end.error or GENERATION_FAILED
