"""Deadlines in headers."""

from __future__ import annotations

import pytest

from api.dialects.grpc.timeouts import grpc_timeout, read_deadline_s
from shared.errors import RequestError


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"grpc-timeout": "1500m"}, 1.5),
        ({"grpc-timeout": "2H"}, 7200.0),
        ({"grpc-timeout": "3M"}, 180.0),
        ({"grpc-timeout": "99999999S"}, 99_999_999.0),
        ({"grpc-timeout": "0n"}, 0.001),
        ({"connect-timeout-ms": "2500"}, 2.5),
        ({"connect-timeout-ms": "0"}, 0.001),
    ],
)
def test_a_deadline_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert read_deadline_s(headers) == seconds


@pytest.mark.parametrize(
    "headers",
    [{"grpc-timeout": value} for value in ("", "5", "S", "-1S", "123456789S", "1.5S", "1s", "٣S")]
    + [{"connect-timeout-ms": value} for value in ("", "1.5", "-1", "12345678901", "1 ")],
)
def test_a_malformed_deadline_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        read_deadline_s(headers)


@pytest.mark.parametrize("seconds", [0.0, 0.0004, 1.5, 3_600.0, 99_999.0, 200_000.0, 1e9])
def test_a_time_is_written_so_that_it_is_read_again(seconds: float) -> None:
    read = read_deadline_s({"grpc-timeout": grpc_timeout(seconds)})

    assert read is not None
    assert read == pytest.approx(
        min(max(seconds, 0.001), 99_999_999), abs=1.0 if seconds > 9e4 else 1e-3
    )
