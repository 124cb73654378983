"""The events that a producer outside of the workers may append, and their refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.dialects.native.producers import read_producer_token
from api.intake.body import check_native
from api.intake.outside_events import EVENTS_MAX, check_append
from api.intake.producer_members import check_produced, is_produced
from shared.config.models import load_models
from shared.config.settings import Settings
from shared.errors import RequestError

SETTINGS = Settings(redis_url="redis://test", producer_lease_s=7.0)
TOKEN = {"type": "token", "text": "x"}
MODELS = load_models("")
NAMES_MAX = "n" * 64


def entries(*events: Any) -> list[Any]:
    return [json.loads(raw) for raw in check_append({"seq": 2, "events": list(events)}).entries]


def test_members_that_no_event_has_are_ignored_and_null_means_absent() -> None:
    event = {"type": "token", "text": "x", "agent": None, "extra": {"a": 1}, "id": "9-9"}

    assert entries(event) == [TOKEN]


def test_the_percentage_of_progress_follows_from_its_counts() -> None:
    progress = {"type": "progress", "stage": "pdf", "current": 1, "total": 3}

    assert entries(progress)[0]["percentage"] == 33.3
    assert entries({**progress, "total": 0})[0]["percentage"] == 0
    assert entries({**progress, "percentage": 50})[0]["percentage"] == 50


def test_more_than_all_is_refused_by_the_member_that_is_wrong() -> None:
    progress = {"type": "progress", "stage": "pdf", "current": 11, "total": 10}

    with pytest.raises(RequestError, match="current must not be larger than total"):
        entries(progress)


def test_the_longest_names_are_taken() -> None:
    event = {"type": "data", "name": NAMES_MAX, "value": None, "agent": NAMES_MAX}

    assert entries(event) == [event]


def test_an_end_is_completed_if_it_says_nothing() -> None:
    checked = check_append({"seq": 2, "events": [TOKEN, {"type": "end"}]})

    assert checked.status == "completed"
    assert json.loads(checked.entries[1])["finish_reason"] == "stop"


def test_a_failed_end_keeps_its_error() -> None:
    error = {"code": "disk_full", "message": "no room", "retryable": True}

    assert entries({"type": "end", "status": "failed", "error": error})[0]["error"] == error


def test_without_events_no_number_is_needed() -> None:
    assert check_append({}) == check_append({"events": []}) == (0, [], "")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"events": [TOKEN]}, "seq"),
        ({"events": [TOKEN], "seq": 0}, "seq"),
        ({"events": [TOKEN], "seq": True}, "seq"),
        ({"events": [TOKEN], "seq": 2.0}, "seq"),
        ({"events": [TOKEN], "seq": 2**53}, "seq"),
        ({"events": TOKEN, "seq": 1}, "events"),
        ({"events": [TOKEN] * (EVENTS_MAX + 1), "seq": 1}, str(EVENTS_MAX)),
        ({"events": [{"type": "end"}, TOKEN], "seq": 1}, "events[0]"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_without_the_form_of_an_append_is_refused(body: Any, named: str) -> None:
    with pytest.raises(RequestError) as refusal:
        check_append(body)

    assert (refusal.value.status, named in refusal.value.message) == (422, True)


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ("token", "events[0]"),
        ({"type": ["token"], "text": "x"}, "type"),
        ({"type": "start", "attempt": 9, "model": "x"}, "type"),
        ({"type": "reset", "reason": "x"}, "type"),
        ({"type": "usage", "prompt_tokens": 1}, "type"),
        ({"type": "token"}, "text"),
        ({"type": "token", "text": ""}, "text"),
        ({"type": "token", "text": 1}, "text"),
        ({**TOKEN, "agent": 1}, "agent"),
        ({**TOKEN, "agent": ""}, "agent"),
        ({**TOKEN, "agent": NAMES_MAX + "n"}, "agent"),
        ({**TOKEN, "agent": "a\nb"}, "agent"),
        ({"type": "data", "value": 1}, "name"),
        ({"type": "progress", "stage": "", "current": 1, "total": 2}, "stage"),
        ({"type": "progress", "stage": "s", "current": -1, "total": 2}, "current"),
        ({"type": "progress", "stage": "s", "current": 1, "total": 1.5}, "total"),
        ({"type": "progress", "stage": "s", "current": 3, "total": 2}, "current"),
        ({"type": "end", "status": "queued"}, "status"),
        ({"type": "end", "finish_reason": "error"}, "finish_reason"),
        ({"type": "end", "status": "failed"}, "error"),
        ({"type": "end", "error": {"code": "x", "message": "x"}}, "error"),
        ({"type": "end", "status": "failed", "error": {"code": "X", "message": "x"}}, "code"),
        ({"type": "end", "status": "failed", "error": {"code": "x"}}, "message"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_event_that_a_producer_may_not_write_is_refused(event: Any, named: str) -> None:
    with pytest.raises(RequestError) as refusal:
        entries(event)

    assert (refusal.value.status, named in refusal.value.message) == (422, True)


@pytest.mark.parametrize(
    "header", ["", "1", "1.", ".a", "x.a", "1.a b", "²." + "a", "1." + "a" * 65]
)
def test_a_header_that_is_no_producers_token_is_refused(header: str) -> None:
    with pytest.raises(RequestError) as refusal:
        read_producer_token(header)

    assert "producer_token" in refusal.value.message


def test_a_generation_of_a_producer_needs_no_prompt_and_takes_any_model() -> None:
    checked = check_produced({"producer": True, "model": "My job"}, owner="a", settings=SETTINGS)

    assert checked.request.messages == []
    assert checked.new.model == "My job"
    assert checked.new.producer is not None and checked.new.producer.lease_s == 7.0
    assert not is_produced({"producer": False}) and not is_produced({})


@pytest.mark.parametrize(
    "members",
    [
        {"producer": "yes"},
        {"producer": {"lease_s": 0.5}},
        {"producer": {"lease_s": 3601}},
        {"producer": {"lease_s": True}},
        {"producer": True, "model": ""},
        {"producer": True, "model": "a\nb"},
        {"producer": True, "cron": "0 8 * * *"},
        {"producer": True, "queue_wait_s": 5},
        {"producer": True, "prompt": "x", "messages": [{"role": "user", "content": "x"}]},
    ],
    ids=str,
)
def test_a_wrong_member_of_a_producers_generation_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refusal:
        check_produced(members, owner="a", settings=SETTINGS)

    assert refusal.value.status == 422


def test_only_the_native_post_begins_a_producer() -> None:
    """A frame `start`, a line of a batch and a schedule would have no place for the token."""
    with pytest.raises(RequestError, match="POST /v1/generations"):
        check_native({"prompt": "x", "producer": {}}, owner="a", models=MODELS, settings=SETTINGS)
