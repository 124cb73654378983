"""What OpenAI-compatible servers say when they fail, in the body of a 4xx or inside a stream.

Pure: JSON in, `BackendError` out. Decides only whether the same request can succeed another time.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from shared.errors import BackendError
from shared.text.json_values import has_too_many_values

MESSAGE_MAX = 2_000  # of what is quoted; `BackendError` cuts it, when it has been redacted
# Names that say "this request is wrong", whatever the status is: asking again changes nothing.
NEVER = frozenset(
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
    """Read the data of an error event, or of a chunk with an `error` in it."""
    message, names = describe(payload)
    # A server may put anything there, also what no set can be asked for.
    if any((isinstance(name, str) and name in NEVER) or _is_final_status(name) for name in names):
        return BackendError("upstream_refused", message, retryable=False)
    return BackendError("upstream_error", message)


def refusal(status: int, body: bytes, *, retry_after: str | None, now_s: float) -> BackendError:
    """Read an answer whose status is not 2xx.

    Args:
        retry_after: the header, in seconds or as an HTTP date (RFC 9110, 10.2.3).
        now_s: Unix time, to count a date from.
    """
    message, _ = describe(body)
    message = f"the backend answered {status}: {message}"
    if _is_final_status(status) or 300 <= status < 400:
        return BackendError("upstream_refused", message, retryable=False)
    return BackendError(
        "upstream_error", message, retry_after_s=parse_retry_after(retry_after, now_s)
    )


def describe(body: bytes) -> tuple[str, list[Any]]:
    """Return a message for a person and every `code` and `type` that came with it."""
    try:
        if has_too_many_values(body):
            raise ValueError("more values than a worker decodes while others wait")
        found: Any = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        # Only ever shown to a person; the answer itself is never decoded like this.
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
    """Return the seconds to wait, or None where the header says nothing usable."""
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
    """Return when a server says that it answered, by its own clock; `now_s` where it does not say.

    A date in Retry-After is of that same clock, and ours may be an hour off.
    """
    try:
        return parsedate_to_datetime(header or "").timestamp()
    except ValueError:
        return now_s


def _inner(found: Any) -> Any:
    """Find the error object: `{"error": …}`, the choice's own, or the document itself."""
    if not isinstance(found, dict):
        return found
    if found.get("error"):
        return found["error"]
    choices = found.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("error"):
            return choice["error"]
    return found


def _is_final_status(code: Any) -> bool:
    """Whether `code` is a 4xx that the same request will meet again."""
    if isinstance(code, str) and code.isdecimal():
        code = int(code[:9])
    return isinstance(code, int) and 400 <= code < 500 and code not in (408, 429)
