"""The failure for a line or message of a server that is longer than its limit."""

from __future__ import annotations

from shared.errors import BackendError


def line_too_long(bytes_max: int, unit: str = "line") -> BackendError:
    """Return the failure; the server would send the same line again, so it is final."""
    message = (
        f"the backend sent a {unit} of more than {bytes_max} bytes;"
        " TAILRACE_UPSTREAM_LINE_BYTES_MAX of the worker sets this limit"
    )
    return BackendError("upstream_error", message, retryable=False)
