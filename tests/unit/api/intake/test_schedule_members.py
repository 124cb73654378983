"""The members that set a time: accepted values, and the values that are refused with 422."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.intake.body import parse_new_generation
from api.intake.schedule_members import (
    RUN_AT_S_MAX,
    SCHEDULE_BYTES_MAX,
    check_schedule_size,
    is_scheduled,
    read_timing,
    without_timing,
)
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import RequestError
from shared.later.schedules import Timing

NOW_S = 1_795_255_095.0


def read(**members: Any) -> Timing:
    return read_timing(members, NOW_S)


def refused(**members: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read(**members)
    assert (caught.value.status, caught.value.code) == (422, "invalid_request")
    return caught.value.message


@pytest.mark.parametrize(
    ("value", "at_ms"),
    [
        (1, 1_000),
        (0.25, 250),
        (1e-9, 1),
        (NOW_S, 1_795_255_095_000),
        (RUN_AT_S_MAX, RUN_AT_S_MAX * 1000),
        ("2027-01-31T08:00:00Z", 1_801_382_400_000),
        ("2027-01-31T09:00:00+01:00", 1_801_382_400_000),
        ("2027-01-31T08:00:00.250Z", 1_801_382_400_250),
        ("1999-12-31T23:59:59-05:00", 946_702_799_000),
    ],
)
def test_a_time_is_seconds_or_rfc_3339(value: Any, at_ms: int) -> None:
    assert read(run_at=value) == Timing(run_at_ms=at_ms)


@pytest.mark.parametrize(
    "value",
    [
        0, -1, RUN_AT_S_MAX + 1, 2**63, 1e300, float("inf"), float("nan"), True, [], {}, "", "soon",
        "2027-01-31", "2027-01-31T08:00:00", "2027-02-30T08:00:00Z", "2100-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z", "2027-01-31T25:00:00Z", "1801382400", "９９９９-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
    ],
)  # fmt: skip
def test_any_other_time_is_refused(value: Any) -> None:
    assert "run_at" in refused(run_at=value)


@pytest.mark.parametrize(
    "cron",
    ["* * * * *", "*/5 0-6,22,23 1 JAN-MAR *", "0 8 * * mon-fri", "0 0 L * *", "0 9 * * MON#2",
     "0  8   * * 7", "0 0 29 2 *"],
)  # fmt: skip
def test_a_cron_has_five_fields(cron: str) -> None:
    assert read(cron=cron) == Timing(cron=cron, timezone="UTC")


@pytest.mark.parametrize(
    ("cron", "written"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        (" @Midnight ", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("0 8 * * MON-SUN", "0 8 * * MON-7"),
        ("0 8 * * sat-sun,tue", "0 8 * * sat-7,tue"),
        ("0 8 * * MON-SUN/2", "0 8 * * MON-7/2"),
        ("0 8 * * SUN", "0 8 * * SUN"),
        ("0 8 * * SUN-TUE", "0 8 * * SUN-TUE"),
    ],
)
def test_short_forms_are_written_out(cron: str, written: str) -> None:
    """The schedule stores what every version of the jobs role can read."""
    assert read(cron=cron).cron == written


@pytest.mark.parametrize(
    ("cron", "hint"),
    [
        ("0 0 30 2 *", "day-of-month"),
        ("0 0 31 4,6,9,11 *", "day-of-month"),
        ("0 0 31 2 */2", "day-of-month"),
        ("0 0 L 2 *#1", ""),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day-of-month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day-of-week"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("* * * *", "five"),
        ("0 * * * * *", "five"),
        ("@reboot", "@hourly"),
        ("@every 5m", "five"),
        ("@daily *", "five"),
        ("* * * * FRI-MON", "day-of-week"),
        ("", "five"),
        ("¹ * * * *", "minute"),
        ("* " * 60, "characters"),
        (7, "string"),
        ([], "string"),
        (True, "string"),
    ],
)
def test_a_cron_that_is_malformed_or_never_due_is_refused(cron: Any, hint: str) -> None:
    message = refused(cron=cron)

    assert "cron" in message and hint in message


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5"])
def test_a_zone_is_a_name_of_the_time_zone_database(zone: str) -> None:
    assert read(cron="0 8 * * *", timezone=zone).timezone == zone


@pytest.mark.parametrize(
    "zone",
    ["Mars/Base", "", "../../etc/passwd", "/etc/localtime", "Europe", "x" * 65, "a\0b", 7, [],
     "Europe/Berlin ", "ü"],
)  # fmt: skip
def test_any_other_zone_is_refused(zone: Any) -> None:
    assert "timezone" in refused(cron="0 8 * * *", timezone=zone)


def test_run_at_cron_and_timezone_exclude_each_other() -> None:
    refused(run_at=NOW_S, cron="* * * * *")
    refused(run_at=NOW_S, timezone="UTC")
    refused(timezone="UTC")


def test_a_time_is_refused_where_nothing_can_be_scheduled() -> None:
    """`parse_new_generation` reads a WebSocket's `start` and a line of a batch."""
    settings, models = Settings(), {"m": Model(name="m")}
    for when in ({"run_at": NOW_S}, {"cron": "* * * * *"}, {"timezone": "UTC"}):
        with pytest.raises(RequestError) as caught:
            parse_new_generation(
                {"prompt": "Hi", **when}, owner="alice", models=models, settings=settings
            )
        assert caught.value.status == 422


def test_null_counts_as_absent() -> None:
    assert not is_scheduled({"run_at": None, "cron": None, "timezone": None, "prompt": "Hi"})
    assert is_scheduled({"timezone": "UTC"})
    assert read(run_at=NOW_S, cron=None).run_at_ms
    assert without_timing({"prompt": "Hi", "run_at": 1, "cron": None}) == {"prompt": "Hi"}


SHAPES = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="*0123456789/,-#LWMONJA ", max_size=40),
    st.floats(),
    st.integers(),
    st.none(),
)


@given(SHAPES, SHAPES, SHAPES)
def test_any_value_gives_a_timing_or_422(run_at: Any, cron: Any, timezone: Any) -> None:
    try:
        read(run_at=run_at, cron=cron, timezone=timezone)
    except RequestError as exc:
        assert exc.status == 422


def test_a_scheduled_request_has_at_most_a_megabyte() -> None:
    check_schedule_size(SCHEDULE_BYTES_MAX)
    with pytest.raises(RequestError) as caught:
        check_schedule_size(SCHEDULE_BYTES_MAX + 1)

    assert (caught.value.status, caught.value.code) == (413, "body_too_large")
