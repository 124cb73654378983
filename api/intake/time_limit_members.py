"""Reads the time limits of a request: two members of the body, and a header. Pure.

    "queue_wait_s": 30     the longest wait for a worker
    "deadline_s": 120      from the acceptance to the end
    x-request-timeout: 120 the same as deadline_s; the shorter one holds

Seconds, as in LiteLLM's `x-litellm-timeout`. Portkey and Cloudflare count in milliseconds, in
headers of other names. Source: docs/protocol.md, "Time limits".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from api.errors import request_error
from shared.queue.time_limits import TIME_LIMIT_S_MAX, TimeLimits

TIMEOUT_HEADER = "x-request-timeout"
# Of any length: clients send a difference of clocks, 29.999485969543457, or their largest number.
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)


def read_time_limits(body: Mapping[str, Any]) -> TimeLimits:
    """Return the time limits in a body.

    A limit above `TIME_LIMIT_S_MAX` counts as `TIME_LIMIT_S_MAX`.

    Raises:
        RequestError: 422, not a number above 0.
    """
    return TimeLimits(_seconds(body, "queue_wait_s"), _seconds(body, "deadline_s"))


def with_timeout_header(body: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the body with the deadline that the header of the request sets, if it has one.

    Raises:
        RequestError: 422, the header is not a number above 0, or `deadline_s` is not.
    """
    value = headers.get(TIMEOUT_HEADER)
    if value is None:
        return body
    seconds = min(float(value), TIME_LIMIT_S_MAX) if _SECONDS.fullmatch(value) else 0.0
    if not seconds > 0:
        raise request_error(
            "invalid_request", f"{TIMEOUT_HEADER} must be a number of seconds above 0"
        )
    deadline_s = _seconds(body, "deadline_s")
    return {**body, "deadline_s": min(seconds, deadline_s or seconds)}


def _seconds(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not value > 0:
        raise request_error("invalid_request", f"{name} must be a number of seconds above 0")
    return TIME_LIMIT_S_MAX if value > TIME_LIMIT_S_MAX else float(value)
