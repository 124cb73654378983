"""The members of a body that say when: `run_at`, or `cron` and `timezone`.

Pure: it is given the time. What can never come is refused, and so is what nobody means, such as a
time in another century. Source: docs/schedules.md, "When".
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
from shared.later.schedules import Timing

MEMBERS = ("run_at", "cron", "timezone")
RUN_AT_S_MAX = 4_102_444_799  # the last second before 2100
CRON_CHARACTERS_MAX = 100
ZONE_CHARACTERS_MAX = 64


def is_scheduled(body: Mapping[str, Any]) -> bool:
    """Whether a body says when; members that are null say nothing."""
    return any(body.get(name) is not None for name in MEMBERS)


def read_timing(body: Mapping[str, Any], now_s: float) -> Timing:
    """Return when a body wants to run.

    Raises:
        RequestError: 422.
    """
    run_at, cron, timezone = (body.get(name) for name in MEMBERS)
    if run_at is not None:
        if cron is not None:
            raise wrong("give either run_at or cron")
        if timezone is not None:
            raise wrong("timezone belongs to cron; an RFC 3339 run_at has its own offset")
        return Timing(run_at_ms=_run_at_ms(run_at))
    if cron is None:
        raise wrong("timezone belongs to cron")
    return _cron(cron, "UTC" if timezone is None else timezone, now_s)


def without_timing(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of what is to be started then."""
    return {name: value for name, value in body.items() if name not in MEMBERS}


def _run_at_ms(value: Any) -> int:
    if isinstance(value, str):
        at_s = _rfc_3339_s(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong("run_at must be Unix seconds or an RFC 3339 time")
    else:
        at_s = float(value) if abs(value) < 2**53 else math.inf
    if not 0 < at_s <= RUN_AT_S_MAX:
        raise wrong("run_at must be after 1970 and before 2100")
    return max(1, math.floor(at_s * 1000))


def _rfc_3339_s(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise wrong("run_at is not an RFC 3339 time, such as 2027-01-31T08:00:00Z") from None
    if found.tzinfo is None:
        raise wrong("run_at needs an offset: Z, or +01:00")
    return (found - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def _cron(cron: Any, timezone: Any, now_s: float) -> Timing:
    if not isinstance(cron, str) or len(cron) > CRON_CHARACTERS_MAX:
        raise wrong(f"cron must be a string of at most {CRON_CHARACTERS_MAX} characters")
    if len(cron.split()) != 5:
        raise wrong("cron needs five fields: minute, hour, day of month, month, day of week")
    zone = _zone(timezone)
    try:
        CronSim(cron, datetime.fromtimestamp(now_s, UTC))
    except CronSimError as exc:
        raise wrong(f"cron: {exc}") from None
    timing = Timing(cron=cron, timezone=zone)
    if timing.next_ms(round(now_s * 1000)) is None:
        raise wrong("cron: this never comes")
    return timing


def _zone(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= ZONE_CHARACTERS_MAX:
        raise wrong("timezone must be a name such as Europe/Berlin")
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise wrong(f"timezone: {name!r} is not known; names are such as Europe/Berlin") from None
    return name


def wrong(message: str) -> RequestError:
    return request_error("invalid_request", message)
