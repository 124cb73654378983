"""Reads the members of a body that set a time: `run_at`, or `cron` and `timezone`.

Pure: the caller passes the present time. Times that never come are refused, and so are times that
are surely a mistake, such as a time after 2099. Source: docs/schedules.md, "When".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from api.errors import request_error
from shared.errors import RequestError
from shared.later.cron import CRON_NAMES as CRON_NAMES  # the OpenAPI document imports it here
from shared.later.cron import FIELDS, write_out
from shared.later.schedules import Timing

MEMBERS = ("run_at", "cron", "timezone")
RUN_AT_S_MAX = 4_102_444_799  # the last second before 2100
CRON_CHARACTERS_MAX = 100
ZONE_CHARACTERS_MAX = 64
# Of a scheduled request. An owner may have a hundred schedules, which Redis keeps for months.
SCHEDULE_BYTES_MAX = 1_048_576


def is_scheduled(body: Mapping[str, Any]) -> bool:
    """Return whether a body sets a time; a member that is null counts as absent."""
    return any(body.get(name) is not None for name in MEMBERS)


def check_schedule_size(size: int) -> None:
    """Refuse a scheduled request of more than `SCHEDULE_BYTES_MAX` bytes.

    Raises:
        RequestError: 413 `body_too_large`.
    """
    if size > SCHEDULE_BYTES_MAX:
        raise request_error(
            "body_too_large",
            f"a request with run_at or cron has at most {SCHEDULE_BYTES_MAX} bytes: this one has "
            f"{size}; give large pictures as URLs",
        )


def read_timing(body: Mapping[str, Any], now_s: float) -> Timing:
    """Return the timing that a scheduled body asks for (see `is_scheduled`).

    Args:
        now_s: Unix seconds.

    Raises:
        RequestError: 422, a malformed member, or members that exclude each other.
    """
    run_at, cron, timezone = (body.get(name) for name in MEMBERS)
    if run_at is not None:
        if cron is not None:
            raise _invalid_request("give either run_at or cron")
        if timezone is not None:
            raise _invalid_request(
                "timezone belongs to cron; an RFC 3339 run_at has its own offset"
            )
        return Timing(run_at_ms=_run_at_ms(run_at))
    if cron is None:
        raise _invalid_request("timezone belongs to cron")
    return _cron(cron, "UTC" if timezone is None else timezone, now_s)


def without_timing(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body without `MEMBERS`: the request to start when the schedule is due."""
    return {name: value for name, value in body.items() if name not in MEMBERS}


def _run_at_ms(value: Any) -> int:
    if isinstance(value, str):
        at_s = _rfc_3339_s(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid_request("run_at must be Unix seconds or an RFC 3339 time")
    else:
        at_s = float(value) if abs(value) < 2**53 else math.inf
    if not 0 < at_s <= RUN_AT_S_MAX:
        raise _invalid_request("run_at must be after 1970 and before 2100")
    return max(1, math.floor(at_s * 1000))


def _rfc_3339_s(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _invalid_request(
            "run_at is not an RFC 3339 time, such as 2027-01-31T08:00:00Z"
        ) from None
    if found.tzinfo is None:
        raise _invalid_request("run_at needs an offset: Z, or +01:00")
    return (found - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def _cron(cron: Any, timezone: Any, now_s: float) -> Timing:
    if not isinstance(cron, str) or len(cron) > CRON_CHARACTERS_MAX:
        raise _invalid_request(f"cron must be a string of at most {CRON_CHARACTERS_MAX} characters")
    cron = write_out(cron)
    if len(cron.split()) != FIELDS:
        names = ", ".join(CRON_NAMES)
        raise _invalid_request(
            "cron needs five fields: minute, hour, day of month, month, day of week; "
            f"or one of the names {names}"
        )
    zone = _zone(timezone)
    try:
        CronSim(cron, datetime.fromtimestamp(now_s, UTC))
    except CronSimError as exc:
        raise _invalid_request(f"cron: {exc}") from None
    timing = Timing(cron=cron, timezone=zone)
    if timing.next_ms(round(now_s * 1000)) is None:
        raise _invalid_request("cron: this never comes")
    return timing


def _zone(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= ZONE_CHARACTERS_MAX:
        raise _invalid_request("timezone must be a name such as Europe/Berlin")
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _invalid_request(
            f"timezone: {name!r} is not known; names are such as Europe/Berlin"
        ) from None
    return name


def _invalid_request(message: str) -> RequestError:
    # Not imported from api.intake.body, which imports this module.
    return request_error("invalid_request", message)
