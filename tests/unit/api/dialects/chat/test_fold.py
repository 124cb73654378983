"""Chat chunks: properties for every log, every text and entries of other programs."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.chat.fold import CHAT, DONE, INCLUDE_USAGE, ChatFold, completion_object
from api.dialects.openai_errors import GenerationFailed, failure_of, openai_shape
from shared.errors import RequestError
from shared.log.events import (
    Counts,
    End,
    Event,
    Failure,
    Reasoning,
    Start,
    Token,
    ToolCall,
    Usage,
    encode,
)
from shared.log.ids import EventId
from shared.log.request import Request
from shared.log.snapshot import Snapshot
from tests.support.recorded import LOGS, Log, bytes_of, recorded_meta

META = recorded_meta()
HELLO = [{"role": "user", "content": "Hi"}]
WITH_USAGE = recorded_meta(Request(messages=HELLO, dialect={INCLUDE_USAGE: True}))
NEWER = b'{"type":"token","text":"b","logprob":"-1"}'
PIECES = st.one_of(
    st.builds(Token, st.text(max_size=8)),
    st.builds(Reasoning, st.text(max_size=8)),
    st.builds(ToolCall, st.integers(0, 1), arguments=st.text(max_size=8)),
)


def chunks_of(sent: bytes) -> list[dict[str, Any]]:
    *blocks, last, nothing = sent.split(b"\n\n")
    assert (last, nothing) == (b"data: [DONE]", b"")
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks)
    return [json.loads(block[6:]) for block in blocks]


def snapshot_of(log: Log) -> Snapshot:
    snapshot = Snapshot(META)
    for seq, (attempt, event) in enumerate(log.entries, 1):
        snapshot.add(EventId(attempt, seq), encode(event))
    return snapshot


@given(st.lists(PIECES, max_size=20))
def test_the_chunks_joined_are_the_complete_answer(events: list[Event]) -> None:
    end = End("completed", "stop", usage=Counts(1, 2, 3))
    log = Log([(1, Start(1, "demo")), *((1, event) for event in events), (1, end)])
    snapshot = snapshot_of(log)
    whole = completion_object(META, snapshot)["choices"][0]
    message = whole["message"]

    chunks = chunks_of(bytes_of(CHAT, log, META))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]

    def joined(name: str) -> str:
        return "".join(delta.get(name) or "" for delta in deltas)

    assert joined("content") == (message["content"] or "") == snapshot.text
    assert joined("reasoning_content") == message.get("reasoning_content", "")
    calls: dict[int, str] = {}
    for delta in deltas:
        for call in delta.get("tool_calls", []):
            calls[call["index"]] = calls.get(call["index"], "") + call["function"]["arguments"]
    assert [calls[index] for index in sorted(calls)] == [
        call["function"]["arguments"] for call in message.get("tool_calls", [])
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + [whole["finish_reason"]]
    assert {chunk["id"] for chunk in chunks} == {META.generation_id}


@given(st.text())
def test_the_fast_path_for_tokens_gives_the_same_bytes(text: str) -> None:
    foreign = msgspec.json.encode({"text": text, "type": "token"})
    place = EventId(1, 2)
    assert ChatFold(META).add(place, encode(Token(text))) == ChatFold(META).add(place, foreign)


def test_a_token_of_a_newer_worker_may_have_more_members() -> None:
    (chunk,) = ChatFold(META).add(EventId(1, 2), NEWER).split(b"\n\n")[:-1]
    assert json.loads(chunk[6:])["choices"][0]["delta"] == {"content": "b"}


@pytest.mark.parametrize(
    ("events", "tokens"),
    [
        ([Usage(1, 2, 3), End("completed", "stop", usage=Counts(4, 5, 9))], 9),
        ([Usage(1, 2, 3), Usage(4, 5, 9), End("completed", "stop")], 9),
        ([End("completed", "stop", usage=Counts(4, 5, 9))], 9),
        ([End("completed", "stop")], None),
    ],
)
def test_the_usage_is_from_the_end_or_else_from_the_last_usage_event(
    events: list[Event], tokens: int | None
) -> None:
    """The last chunk has the usage and the cursor. Without any usage there is no such chunk."""
    log = Log([(1, event) for event in events])
    last = chunks_of(bytes_of(CHAT, log, WITH_USAGE))[-1]
    assert (last["usage"] or {}).get("total_tokens") == tokens
    assert bool(last["choices"]) == (tokens is None)
    assert last["event_id"] == f"1-{len(events)}"
    whole = completion_object(META, snapshot_of(log))
    assert whole.get("usage", {}).get("total_tokens") == tokens


@pytest.mark.parametrize("raw", [b"{}", b"x", b"\xff", b'{"type":"newer"}', b'{"type":"token"}'])
def test_an_unreadable_entry_gives_no_bytes(raw: bytes) -> None:
    assert ChatFold(META).add(EventId(1, 2), raw) == b""


@pytest.mark.parametrize("name", ["failed", "cancelled", "reset", "lost", "rewritten"])
def test_an_incomplete_answer_ends_with_an_error_and_no_finish_reason(name: str) -> None:
    *chunks, last = chunks_of(bytes_of(CHAT, LOGS[name], META))
    assert set(last) == {"error"}
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)


def test_a_failure_is_one_error_chunk_at_the_end_of_the_body() -> None:
    sent = bytes_of(CHAT, LOGS["failed"], META)
    assert sent.count(DONE) == sent.count(b'"error"') == 1


@pytest.mark.parametrize(
    ("end", "status", "may_retry"),
    [
        (End("cancelled", "cancelled"), 409, False),
        (End("failed", "error", error=Failure("upstream_error", "x", True)), 502, True),
        (End("failed", "error", error=Failure("upstream_refused", "x", False)), 502, False),
        (End("failed", "error", error=Failure("upstream_timeout", "x", True)), 504, True),
        (End("failed", "error", error=Failure("queue_timeout", "x", True)), 503, True),
        (End("failed", "error"), 502, True),
    ],
)
def test_a_failure_has_its_status_and_tells_sdks_whether_to_retry(
    end: End, status: int, may_retry: bool
) -> None:
    failure = failure_of(end)
    assert failure is not None
    error = GenerationFailed(failure)
    assert error.status == status
    assert ((b"x-should-retry", b"false") in openai_shape(error).headers) == (not may_retry)


def test_a_status_that_sdks_do_not_retry_has_no_retry_header() -> None:
    error = RequestError(422, "invalid_request", "x")
    assert openai_shape(error).headers == []


def test_a_422_is_a_400_for_clients_of_openai() -> None:
    body = openai_shape(RequestError(422, "idempotency_mismatch", "x"))
    assert body.status == 400
    assert json.loads(body.body)["error"]["type"] == "invalid_request_error"
