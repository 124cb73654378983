"""The fold of meta and log into a snapshot."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.resources.listings import cut_page
from shared.log.events import (
    Counts,
    End,
    Event,
    Failure,
    Progress,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Usage,
    encode,
)
from shared.log.ids import EventId
from shared.log.records import Meta
from shared.log.request import PROMPT_CHARACTERS_MAX, Request, encode_request, shown_prompt
from shared.log.snapshot import Snapshot, summary

DONE = End(status="completed", finish_reason="stop", usage=Counts(1, 2, 3))


def meta(**changes: Any) -> Meta:
    fields: dict[str, Any] = {
        "generation_id": "gen_12345678",
        "status": "running",
        "owner": "alice",
        "session": "",
        "model": "demo",
        "priority": "interactive",
        "created_at_ms": 1_700_000_000_500,
        "attempt": 1,
        "lease_ms": 0,
        "waiting_since_ms": 0,
        "failures": 0,
        "grace_s": None,
        "metadata": b'{"a":1}',
        "request": encode_request(Request(messages=[{"role": "user", "content": "Hi"}])),
        "end": b"",
        "ended_at_ms": 0,
    }
    return Meta(**{**fields, **changes})


def folded(*events: Event, attempt: int = 1, **changes: Any) -> dict[str, Any]:
    snapshot = Snapshot(meta(**changes))
    for seq, event in enumerate(events, 1):
        snapshot.add(EventId(attempt, seq), encode(event))
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(snapshot.fields()))
    return fields


def test_a_queued_generation_has_no_text_and_a_cursor_from_the_start() -> None:
    fields = folded(status="queued", attempt=0)

    assert (fields["status"], fields["text"], fields["last_event_id"]) == ("queued", "", "0-0")
    assert (fields["created_at"], fields["ended_at"]) == (1_700_000_000, None)
    assert (fields["session"], fields["metadata"]) == (None, {"a": 1})
    assert fields["messages"] == [{"role": "user", "content": "Hi"}]
    assert fields["events_url"] == "/v1/generations/gen_12345678/events"


def test_texts_are_joined() -> None:
    fields = folded(Start(1, "demo"), Reasoning("Hm"), Token("Hel"), Token("lo"), Reasoning("m"))

    assert (fields["text"], fields["reasoning"]) == ("Hello", "Hmm")
    assert fields["last_event_id"] == "1-5"


def test_a_reset_voids_what_came_before() -> None:
    call = ToolCall(0, "c1", "look", "{}")
    fields = folded(Token("old"), Reasoning("old"), call, Reset("restart"), Token("new"))

    assert (fields["text"], fields["reasoning"], fields["tool_calls"]) == ("new", "", [])


def test_tool_calls_are_put_together_by_index() -> None:
    fields = folded(
        ToolCall(1, "c2", "b", ""),
        ToolCall(0, "c1", "a", '{"x"'),
        ToolCall(0, arguments=":1}"),
    )

    assert fields["tool_calls"] == [
        {"index": 0, "call_id": "c1", "name": "a", "arguments": '{"x":1}'},
        {"index": 1, "call_id": "c2", "name": "b", "arguments": ""},
    ]


def test_the_usage_of_the_end_replaces_the_last_usage_event() -> None:
    running = folded(Usage(1, 1, 2), Usage(5, 5, 10))
    ended = folded(Usage(5, 5, 10), DONE)

    assert running["usage"] == {
        "prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10,
    }  # fmt: skip
    assert ended["usage"]["total_tokens"] == 3


def test_an_end_in_the_log_is_newer_than_meta() -> None:
    fields = folded(Token("x"), DONE, attempt=2)

    assert (fields["status"], fields["finish_reason"], fields["attempt"]) == (
        "completed",
        "stop",
        2,
    )


def test_a_failure_is_shown_with_its_error() -> None:
    end = End(status="failed", finish_reason="error", error=Failure("upstream_error", "no", True))
    fields = folded(end, status="failed", end=encode(end), ended_at_ms=1_700_000_009_000)

    assert fields["error"] == {"code": "upstream_error", "message": "no", "retryable": True}
    assert fields["ended_at"] == 1_700_000_009


@pytest.mark.parametrize("raw", [b'{"type":"tomorrow"}', b'{"type":"token"}', b'{"type":"\xff"}'])
def test_events_of_a_newer_version_are_ignored(raw: bytes) -> None:
    snapshot = Snapshot(meta())
    snapshot.add(EventId(1, 1), raw)
    snapshot.add(EventId(1, 2), encode(Progress("pdf", 1, 2, 50.0)))

    assert snapshot.fields()["last_event_id"] == "1-2"


def test_a_listing_shows_the_last_prompt_cut_short() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "y" * 9000}, {"type": "image"}]},
        {"role": "assistant", "tool_calls": [{}], "content": None},
    ]
    listed = shown_prompt(Request(messages=messages))

    assert listed == "y" * PROMPT_CHARACTERS_MAX
    assert shown_prompt(Request(messages=messages[1:2])) == ""


def test_a_summary_needs_no_log() -> None:
    assert summary(meta(status="completed", end=encode(DONE)))["finish_reason"] == "stop"


# Pages


def made_at(*times_ms: int) -> list[Meta]:
    return [meta(created_at_ms=time_ms) for time_ms in times_ms]


def test_a_short_page_is_the_last() -> None:
    assert cut_page(made_at(3, 2), 2) == (made_at(3, 2), None)


def test_a_page_names_the_start_of_the_next() -> None:
    assert cut_page(made_at(3, 2, 1), 2) == (made_at(3, 2), 2)


def test_a_page_does_not_end_within_a_millisecond() -> None:
    assert cut_page(made_at(3, 2, 2), 2) == (made_at(3), 3)


def test_a_page_of_one_millisecond_is_complete() -> None:
    assert cut_page(made_at(2, 2, 2), 2) == (made_at(2, 2), 2)
