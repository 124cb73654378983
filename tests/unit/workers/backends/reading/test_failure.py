"""Messages of error bodies, and Retry-After."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from workers.backends.reading.error_body import MESSAGE_MAX, read_error
from workers.backends.reading.failure import answered_at, parse_retry_after, refusal

NOW_S = 1_750_000_000.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        (formatdate(NOW_S + 90, usegmt=True), 90.0),
        (formatdate(NOW_S - 90, usegmt=True), 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e300", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW_S) == seconds


@pytest.mark.parametrize("header", [None, "", "yesterday", "7"])
def test_without_a_date_header_the_local_clock_is_used(header: str | None) -> None:
    assert answered_at(header, NOW_S) == NOW_S


def test_a_date_in_retry_after_uses_the_servers_clock() -> None:
    """An hour between the server's clock and ours must not become an hour of waiting."""
    theirs_s = NOW_S + 3_600
    date, later = formatdate(theirs_s, usegmt=True), formatdate(theirs_s + 5, usegmt=True)

    assert parse_retry_after(later, answered_at(date, NOW_S)) == 5.0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"no","code":"x"}}', "no"),
        (b'{"error":"no"}', "no"),
        (b'{"object":"error","message":"no","code":400}', "no"),
        (b'{"detail":"no"}', "no"),
        (b'{"detail":[{"loc":["body"],"msg":"no"}]}', "no"),
        (b'{"error":{"code":5}}', '{"code":5}'),
        (b"<html>\n  Bad   Gateway</html>", "an HTML page: Bad Gateway"),
        (b"", "no message"),
        (b"null", "no message"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[1,2]", "[1, 2]"),
    ],
)
def test_messages(body: bytes, message: str) -> None:
    assert read_error(body).message == message


def test_long_messages_are_cut() -> None:
    assert len(read_error(b"x" * 10_000).message) == MESSAGE_MAX
    assert len(read_error(b'{"error":"' + b"x" * 10_000 + b'"}').message) == MESSAGE_MAX


def test_retry_after_is_kept_only_for_retryable_errors() -> None:
    assert refusal(429, b"", retry_after="3", now_s=NOW_S).retry_after_s == 3.0
    assert refusal(400, b"", retry_after="3", now_s=NOW_S).retry_after_s is None
