"""`extra` of events comes back in each dialect, in the stream and in the whole answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.dialects.chat.fold import ChatFold, completion_object
from api.dialects.responses.fold import ResponsesFold
from shared.log.events import AnyEvent, Counts, End, Extra, Reset, Start, Token, ToolCall, encode
from shared.log.ids import EventId
from shared.log.snapshot import Snapshot
from tests.support.recorded import recorded_meta

SIGNATURE = {"extra_content": {"google": {"thought_signature": "S"}}}
DETAILS = {"prompt_tokens_details": {"cached_tokens": 2}}


META = recorded_meta()


def logprobs(*names: str) -> dict[str, Any]:
    return {"choice": {"logprobs": {"content": [{"token": name} for name in names]}}}


EVENTS: list[AnyEvent] = [
    Start(1, "m"),
    Token("a", {"chunk": {"system_fingerprint": "p"}, **logprobs("a")}),
    Token("b", logprobs("b")),
    Extra({"delta": {"images": [1], "audio": {"id": "x", "data": "AA"}}}),
    Extra({"delta": {"images": [2], "audio": {"id": "x", "data": "BB"}}}),
    ToolCall(0, "c", "f", "{}", SIGNATURE),
    ToolCall(1, "d", "sh", "ls", {"type": "custom"}),
    End("completed", "tool_calls", Counts(1, 2, 3, DETAILS), extra={"choice": {"x": 1}}),
]


def chat_chunks(events: list[AnyEvent]) -> list[dict[str, Any]]:
    fold = ChatFold(META)
    raw = b"".join(fold.add(EventId(1, n), encode(event)) for n, event in enumerate(events, 1))
    lines = [line.removeprefix(b"data: ") for line in raw.split(b"\n\n")]
    return [msgspec.json.decode(line) for line in lines if line.startswith(b"{")]


def snapshot_of(events: list[AnyEvent]) -> Snapshot:
    snapshot = Snapshot(META)
    for n, event in enumerate(events, 1):
        snapshot.add(EventId(1, n), encode(event))
    return snapshot


def test_the_chat_stream_has_extra_where_the_backend_put_it() -> None:
    chunks = chat_chunks(EVENTS)
    assert chunks[1]["system_fingerprint"] == "p"
    assert chunks[1]["choices"][0] == {
        "index": 0, "delta": {"content": "a"}, "finish_reason": None, **logprobs("a")["choice"],
    }  # fmt: skip
    assert chunks[3]["choices"][0]["delta"] == EVENTS[3].extra["delta"]  # type: ignore[union-attr,index]
    (call,) = chunks[5]["choices"][0]["delta"]["tool_calls"]
    assert call["extra_content"] == SIGNATURE["extra_content"]
    (custom,) = chunks[6]["choices"][0]["delta"]["tool_calls"]
    assert custom == {
        "index": 1, "id": "d", "type": "custom", "custom": {"name": "sh", "input": "ls"},
    }  # fmt: skip
    assert chunks[7]["choices"][0]["x"] == 1


def test_the_whole_completion_joins_extra() -> None:
    answer = completion_object(META, snapshot_of(EVENTS))
    (choice,) = answer["choices"]
    assert answer["system_fingerprint"] == "p"
    assert choice["logprobs"] == logprobs("a", "b")["choice"]["logprobs"]
    assert choice["message"]["images"] == [1, 2]
    assert choice["message"]["audio"] == {"id": "x", "data": "AABB"}
    assert choice["message"]["tool_calls"][0]["extra_content"] == SIGNATURE["extra_content"]
    assert choice["message"]["tool_calls"][1]["custom"] == {"name": "sh", "input": "ls"}
    assert answer["usage"] == {
        "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, **DETAILS,
    }  # fmt: skip


def test_the_response_object_and_the_snapshot_have_extra() -> None:
    fold = ResponsesFold(META)
    for n, event in enumerate(EVENTS, 1):
        fold.add(EventId(1, n), encode(event))
    response = fold.response()
    assert response["extra"] == snapshot_of(EVENTS).extra
    assert response["extra"]["delta"]["images"] == [1, 2]
    assert response["output"][1]["extra"] == SIGNATURE
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 2
    assert snapshot_of(EVENTS).fields()["usage"]["extra"] == DETAILS


def test_a_reset_voids_extra() -> None:
    events = [*EVENTS[:5], Reset("restarted"), Token("c")]
    assert snapshot_of(events).extra == {}


def test_a_refusal_is_a_refusal() -> None:
    end = End("completed", "stop")
    events = [Start(1, "m"), Token("no", {"delta": {"refusal": "no"}}), end]
    assert chat_chunks(events)[1]["choices"][0]["delta"] == {"refusal": "no"}
    message = completion_object(META, snapshot_of(events))["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "no")


@pytest.mark.parametrize("word", ["solar_flare"])
def test_chat_passes_an_unknown_finish_reason_on(word: str) -> None:
    end = End("completed", "stop", extra={"choice": {"finish_reason": word}})
    assert chat_chunks([Start(1, "m"), end])[-1]["choices"][0]["finish_reason"] == word
    whole = completion_object(META, snapshot_of([Start(1, "m"), end]))
    assert whole["choices"][0]["finish_reason"] == word


def test_pieces_and_a_backend_can_not_replace_our_members() -> None:
    extra = {"chunk": {"id": "x", "event_id": "9"}, "delta": {"content": "y"}}
    chunk = chat_chunks([Start(1, "m"), Token("a", extra)])[1]
    assert chunk["id"] == META.generation_id and chunk["event_id"] == "1-2"
    assert chunk["choices"][0]["delta"] == {"content": "a"}
