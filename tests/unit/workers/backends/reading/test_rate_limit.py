"""The rate limits in the headers of vendors."""

from __future__ import annotations

import pytest

from workers.backends.reading.rate_limit import RateLimit, read_rate_limit, reset_s

NOW_S = 1_795_845_600.0  # 2026-11-28T06:00:00Z


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("6m0s", 360.0),
        ("1s", 1.0),
        ("12ms", 0.012),
        ("2m59.56s", 179.56),
        ("1d2h", 93_600.0),
        ("17", 17.0),
        ("0.5", 0.5),
        (str(int(NOW_S) + 40), 40.0),
        (str(int(NOW_S + 40) * 1000), 40.0),
        ("2026-11-28T06:00:30Z", 30.0),
        ("2026-11-28T07:00:30+01:00", 30.0),
        ("2026-11-28T05:00:00Z", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ("1e9999", 0.0),
        ("9" * 400, 0.0),
        ("99999d", 0.0),
        ("-5", 0.0),
    ],
)
def test_a_reset_is_read_in_each_form(value: str, seconds: float) -> None:
    assert reset_s(value, NOW_S) == pytest.approx(seconds, abs=0.001)


def test_the_headers_of_openai_with_requests_left_allow_the_next_request() -> None:
    headers = {
        "content-type": "text/event-stream",
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-remaining-requests": "4999",
        "x-ratelimit-remaining-tokens": "159976",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-reset-tokens": "9ms",
    }
    assert read_rate_limit(headers, NOW_S) == RateLimit({"requests": 4_999, "tokens": 159_976})


def test_the_wait_is_that_of_the_limit_with_nothing_left() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "1h",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "20s",
    }
    assert read_rate_limit(headers, NOW_S) == RateLimit({"requests": 3, "tokens": 0}, 20.0)


def test_the_headers_of_anthropic_and_openrouter_are_read() -> None:
    anthropic = {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-28T06:00:30Z",
        "anthropic-ratelimit-input-tokens-remaining": "12000",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-28T06:01:00Z",
    }
    assert read_rate_limit(anthropic, NOW_S) == RateLimit(
        {"requests": 0, "input-tokens": 12_000}, 30.0
    )
    openrouter = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW_S + 5) * 1000)}
    assert read_rate_limit(openrouter, NOW_S) == RateLimit({"requests": 0}, 5.0)


def test_headers_that_cannot_be_read_say_nothing() -> None:
    assert read_rate_limit({"x-ratelimit-remaining-requests": "many"}, NOW_S) is None
    assert read_rate_limit({"date": "now"}, NOW_S) is None
    without_reset = {"x-ratelimit-remaining-requests": "0"}
    assert read_rate_limit(without_reset, NOW_S) == RateLimit({"requests": 0}, 0.0)
