"""The native error frame of a WebSocket."""

from __future__ import annotations

from typing import Any

from shared.errors import RequestError


def error_frame(error: RequestError, **names: str | int) -> dict[str, Any]:
    """Return the native error frame; `names` are further members that name the failed request."""
    described: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
    }
    if error.retry_after_s is not None:
        described["retry_after_s"] = error.retry_after_s
    return {"type": "error", **names, **described, **error.members}


def of_frame(error: RequestError) -> RequestError:
    """Return the error of a text that is not JSON, about a frame instead of a body."""
    error.message = error.message.replace("the body", "the frame", 1)
    return error
