"""What the operator is told about a failed attempt."""

from __future__ import annotations

import logging

import pytest

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError, Refusal
from shared.log.ids import EventId
from shared.log.records import Begun, parse_meta
from shared.queue.lanes import LaneEntry
from workers.failures.failed_attempt import FailedAttempt

ID = "gen_0123456789"
MODEL = Model(name="m", base_url="http://gpu:8000/v1")


def failed_by(error: BackendError) -> FailedAttempt:
    begun = Begun((EventId(2, 9), b""), 1, {}, parse_meta(ID, {}))
    return FailedAttempt(Settings(), MODEL, LaneEntry(1, ID, "interactive", "m"), begun, error)


def said(caplog: pytest.LogCaptureFixture, error: BackendError) -> dict[str, object]:
    with caplog.at_level(logging.WARNING):
        assert failed_by(error).report(is_postponed=False) == "attempts_failed"
    (record,) = caplog.records
    assert record.getMessage() == "attempt failed"
    return vars(record)


def test_a_failure_is_a_warning_with_the_url_and_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    upstream = Refusal("CUDA out of memory", 500)
    line = said(caplog, BackendError("upstream_error", "CUDA out of memory", upstream=upstream))

    assert line["url"] == "http://gpu:8000/v1"
    assert (line["reason"], line["status"], line["attempt"]) == ("CUDA out of memory", 500, 2)
    assert line["generation_id"] == ID


def test_a_refusal_that_may_quote_the_prompt_is_not_quoted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    upstream = Refusal("invalid content: my secret prompt", 400)
    error = BackendError("upstream_refused", upstream.message, retryable=False, upstream=upstream)
    line = said(caplog, error)

    assert (line["reason"], line["status"]) == ("refused", 400)
    assert "secret" not in str(line)


def test_a_generation_that_waits_for_its_server_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = BackendError("upstream_error", "away", is_outage=True)

    assert failed_by(away).report(is_postponed=True) == "postponed"
    assert caplog.records == []
