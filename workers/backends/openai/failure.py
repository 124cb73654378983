"""Reads errors of OpenAI-compatible servers, from an error response or from inside a stream.

Pure: JSON in, `BackendError` out. Decides only whether the same request can succeed later.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from shared.errors import BackendError
from shared.text.json_values import has_too_many_values

# Characters quoted of a server's message. `BackendError` redacts it first and then cuts it shorter.
MESSAGE_MAX = 2_000
# Error codes and types that make a retry pointless, whatever the status is.
FINAL_ERRORS = frozenset(
    (
        "invalid_request_error",
        "BadRequestError",
        "NotFoundError",
        "context_length_exceeded",
        "exceed_context_size_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "insufficient_quota",
    )
)


def failure_of(payload: bytes) -> BackendError:
    """Return the error in the data of an error event, or in a chunk with an `error` member."""
    message, names = describe(payload)
    if any(_is_final_error(name) or _is_final_status(name) for name in names):
        return BackendError("upstream_refused", message, retryable=False)
    return BackendError("upstream_error", message)


def refusal(status: int, body: bytes, *, retry_after: str | None, now_s: float) -> BackendError:
    """Return the error for a response whose status is not 2xx.

    Args:
        retry_after: the header, in seconds or as an HTTP date (RFC 9110, 10.2.3).
        now_s: Unix time of the response; a date in `retry_after` is compared with it.
    """
    message, _ = describe(body)
    message = f"the backend answered {status}: {message}"
    if _is_final_status(status) or 300 <= status < 400:
        return BackendError("upstream_refused", message, retryable=False)
    return BackendError(
        "upstream_error", message, retry_after_s=parse_retry_after(retry_after, now_s)
    )


def describe(body: bytes) -> tuple[str, list[Any]]:
    """Return a message for a person, and the values of `code`, `type` and `status`."""
    try:
        if has_too_many_values(body):
            raise ValueError("decoding would block the other runs for too long")
        found: Any = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        # Lossy decoding is fine here: this text is only shown to a person.
        text = " ".join(body[:MESSAGE_MAX].decode("utf-8", "replace").split())
        return text or "no message", []
    found = _inner(found)
    if not isinstance(found, dict):
        return str(found or "no message")[:MESSAGE_MAX], []
    message = found.get("message") or found.get("detail") or found.get("error") or found
    if not isinstance(message, str):
        message = msgspec.json.encode(message).decode()
    return message[:MESSAGE_MAX], [found.get("code"), found.get("type"), found.get("status")]


def parse_retry_after(header: str | None, now_s: float) -> float | None:
    """Return the seconds to wait; None if the header is absent or unusable."""
    if not header:
        return None
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(header).timestamp() - now_s
        except ValueError:
            return None
    return max(wait_s, 0.0) if wait_s < 2**31 else None  # also refuses inf and nan


def answered_at(header: str | None, now_s: float) -> float:
    """Return the Unix time in a `Date` header; `now_s` if it is absent or invalid.

    The server's clock may differ from ours by an hour, and a date in `Retry-After` is of its clock.
    """
    try:
        return parsedate_to_datetime(header or "").timestamp()
    except ValueError:
        return now_s


def _inner(found: Any) -> Any:
    """Return the error object: the `error` member, that of a choice, or the document itself."""
    if not isinstance(found, dict):
        return found
    if found.get("error"):
        return found["error"]
    choices = found.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("error"):
            return choice["error"]
    return found


def _is_final_error(name: Any) -> bool:
    return isinstance(name, str) and name in FINAL_ERRORS  # a server may send any JSON value


def _is_final_status(code: Any) -> bool:
    """Whether `code` is a 4xx that a retry cannot change."""
    if isinstance(code, str) and code.isdecimal():
        code = int(code[:9])
    return isinstance(code, int) and 400 <= code < 500 and code not in (408, 429)
