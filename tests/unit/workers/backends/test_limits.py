"""Which deadline applies in each phase of a call."""

from __future__ import annotations

from shared.config.settings import Settings
from workers.backends.limits import AFTER_FINISH_S, Limits

SETTINGS = Settings(upstream_first_token_s=300, upstream_idle_s=60, upstream_total_s=1_000)


def test_while_connecting_only_the_total_limit_applies() -> None:
    assert Limits(SETTINGS, 100.0).deadline == 1_100.0


def test_the_first_token_limit_starts_when_the_request_is_sent() -> None:
    limits = Limits(SETTINGS, 100.0)
    limits.sent(109.0)

    assert limits.deadline == 409.0
    assert limits.exceeded().message == "the backend gave no token within 300 s"


def test_reads_without_content_do_not_move_the_first_token_limit() -> None:
    limits = Limits(SETTINGS, 100.0)
    limits.sent(100.0)
    limits.read(350.0, is_finished=False)

    assert limits.deadline == 400.0


def test_after_content_the_idle_limit_applies_to_each_read() -> None:
    limits = Limits(SETTINGS, 100.0)
    limits.sent(100.0)
    limits.has_content = True
    limits.read(350.0, is_finished=False)

    assert limits.deadline == 410.0
    assert limits.exceeded().message == "the backend was silent for 60 s"


def test_the_total_limit_applies_to_a_steady_answer() -> None:
    limits = Limits(SETTINGS, 100.0)
    limits.sent(100.0)
    limits.has_content = True
    limits.read(1_090.0, is_finished=False)

    assert limits.deadline == 1_100.0
    assert limits.exceeded().message == "the answer took more than 1000 s"
    assert limits.exceeded().code == "upstream_timeout"
    assert limits.exceeded().retryable


def test_after_the_finish_reason_the_short_limit_applies() -> None:
    limits = Limits(SETTINGS, 100.0)
    limits.sent(100.0)
    limits.has_content = True
    limits.read(200.0, is_finished=True)

    assert limits.deadline == 200.0 + AFTER_FINISH_S
