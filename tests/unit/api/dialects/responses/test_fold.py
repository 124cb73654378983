"""Events of Responses: properties for every log, every text and every number to begin from."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.failure import GENERATION_FAILED
from api.dialects.responses.fold import RESPONSES, ResponsesFold
from api.dialects.responses.response_object import generation_id, response_id
from api.hub.encoded import EncodedLog
from shared.log.event_bytes import LOST, RESET
from shared.log.events import (
    Counts,
    End,
    Event,
    Extra,
    Failure,
    Reasoning,
    Reset,
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
PIECES = st.one_of(
    st.builds(Token, st.text(max_size=8)),
    st.builds(Reasoning, st.text(max_size=8)),
    st.builds(ToolCall, st.integers(0, 2), arguments=st.text(max_size=8)),
    st.builds(Usage, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    st.just(Extra({"delta": {"reasoning_details": [{"type": "reasoning.encrypted"}]}})),
    st.just(Reasoning("x", {"delta": {"reasoning_details": [{"type": "reasoning.text"}]}})),
    st.just(Reset("takeover")),
    st.just(Start(2, "demo")),
)
ENDS = st.sampled_from(
    [
        End("completed", "stop", usage=Counts(1, 2, 3)),
        End("completed", "length"),
        End("completed", "tool_calls"),
        End("cancelled", "cancelled"),
        End("failed", "error", error=Failure("upstream_error", "it broke", True)),
        End("failed", "error"),
    ]
)
TERMINAL = ("response.completed", "response.incomplete", "response.failed")


def events_of(sent: bytes) -> list[dict[str, Any]]:
    *blocks, nothing = sent.split(b"\n\n")
    assert nothing == b""
    events = []
    for block in blocks:
        name, data = block.split(b"\n")
        events.append(json.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + events[-1]["type"].encode()
    return events


def log_of(events: list[Event], end: End) -> Log:
    return Log([(1, Start(1, "demo")), *((1, event) for event in events), (1, end)])


def content_of(item: dict[str, Any]) -> str:
    """Return the text of an item; a thought that goes back may have no part."""
    return "".join(part["text"] for part in item["content"])


class Reader:
    """A client that follows the protocol, and asserts that the server follows it too."""

    def __init__(self) -> None:
        self.items: dict[int, dict[str, Any]] = {}
        self.texts: dict[int, str] = {}
        self.done: set[int] = set()
        self.error: dict[str, Any] | None = None
        self.final: dict[str, Any] | None = None

    def take(self, event: dict[str, Any]) -> None:
        assert self.final is None
        kind, index = event["type"], event.get("output_index", -1)
        if "response" in event:
            if kind in TERMINAL:
                self.final = event["response"]
            return
        assert self.error is None  # only the response follows
        if kind == "error":
            self.error = event["error"]
            return
        if kind == "response.output_item.added":
            assert index == len(self.items)
            self.items[index], self.texts[index] = event["item"], ""
            return
        assert index in self.items and index not in self.done
        assert event.get("item_id", self.items[index]["id"]) == self.items[index]["id"]
        if kind.endswith(".delta"):
            self.texts[index] += event["delta"]
        elif kind == "response.function_call_arguments.done":
            assert event["arguments"] == self.texts[index]
        elif kind in ("response.output_text.done", "response.reasoning_text.done"):
            assert event["text"] == self.texts[index]
        elif kind == "response.output_item.done":
            item = self.items[index] = event["item"]
            text = item["arguments"] if "arguments" in item else content_of(item)
            assert text == self.texts[index]
            self.done.add(index)


@given(st.lists(PIECES, max_size=25), ENDS)
def test_every_sequence_follows_the_protocol_and_ends_with_the_answer(
    pieces: list[Event], end: End
) -> None:
    log = log_of(pieces, end)
    events = events_of(bytes_of(RESPONSES, log, META))
    reader, snapshot = Reader(), Snapshot(META)
    for event in events:
        reader.take(event)
    for seq, (attempt, event) in enumerate(log.entries, 1):
        snapshot.add(EventId(attempt, seq), encode(event))

    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.queued"]
    assert reader.done == set(reader.items)
    final = reader.final
    assert final is not None
    failure = reader.error and {name: reader.error[name] for name in ("code", "message")}
    assert failure == final["error"]
    texts = {"message": "", "reasoning": ""}
    for item in final["output"]:
        assert item in reader.items.values()
        if item["type"] in texts:
            texts[item["type"]] += content_of(item)
    assert texts == {"message": snapshot.text, "reasoning": snapshot.reasoning}
    calls = sorted(i["arguments"] for i in final["output"] if i["type"] == "function_call")
    assert calls == sorted(call["arguments"] for call in snapshot.tool_calls)
    usage = final["usage"] and final["usage"]["total_tokens"]
    if not any(isinstance(piece, Reset) for piece in pieces):
        assert usage == (snapshot.usage and snapshot.usage["total_tokens"])


@given(st.lists(PIECES, max_size=25), ENDS, st.data())
def test_reading_from_a_number_gives_exactly_the_later_frames(
    pieces: list[Event], end: End, data: st.DataObject
) -> None:
    log = log_of(pieces, end)
    whole = bytes_of(RESPONSES, log, META)
    encoded = EncodedLog(log.feed, RESPONSES, META)
    encoded.encode()
    frames = whole.split(b"\n\n")[:-1]
    assert encoded.chunks == len(frames)

    number = data.draw(st.integers(0, len(frames)))
    found = encoded.find_chunk(number)
    assert found is not None
    seq, rest = found
    while True:
        chunk, last = encoded.slice(seq)
        if last == seq:
            break
        rest, seq = rest + chunk, last
    # The opening is not in the bytes of the log: `find` returns the rest of the opening.
    assert rest.split(b"\n\n")[:-1] == frames[number:]


@given(st.text())
def test_the_fast_path_for_tokens_gives_the_same_bytes(text: str) -> None:
    foreign = msgspec.json.encode({"text": text, "type": "token"})
    place = EventId(1, 2)
    assert ResponsesFold(META).add(place, encode(Token(text))) == ResponsesFold(META).add(
        place, foreign
    )


@pytest.mark.parametrize("raw", [b"{}", b"x", b"\xff", b'{"type":"newer"}', b'{"type":"token"}'])
def test_an_unreadable_entry_gives_no_bytes(raw: bytes) -> None:
    fold = ResponsesFold(META)
    fold.opening()
    assert fold.add(EventId(1, 2), raw) == b""
    assert fold.given == 2


def test_a_text_that_was_cut_short_gets_no_text_done() -> None:
    """OpenAI's helpers parse the text of a `…text.done` as the requested document."""
    for name in ("reset", "cancelled", "failed", "lost"):
        events = events_of(bytes_of(RESPONSES, LOGS[name], META))
        texts = [event["text"] for event in events if event["type"].endswith("text.done")]
        assert texts == (["Uno, due, tre."] if name == "reset" else []), name


def test_the_failure_of_a_lost_log_does_not_change_the_fold() -> None:
    fold = ResponsesFold(META)
    sent = fold.opening() + fold.add(EventId(1, 1), encode(Start(1, "demo")))
    sent += fold.add(EventId(1, 2), encode(Token("One, ")))
    before = fold.given

    last = fold.aside(LOST)

    assert last is not None and last == fold.aside(LOST)
    events = events_of(sent + last)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2]["code"] == events[-2]["error"]["code"] == "lost"
    assert events[-1]["response"]["error"]["code"] == "lost"
    assert fold.given == before and fold.response()["status"] == "in_progress"


def test_a_rewritten_log_gives_no_last_event() -> None:
    """After a clean end a client would take the answer as complete. So it reads on by number."""
    assert ResponsesFold(META).aside(RESET) is None


def test_a_failure_without_a_reason_gets_the_general_reason() -> None:
    log = log_of([], End("failed", "error"))
    final = events_of(bytes_of(RESPONSES, log, META))[-1]["response"]
    assert final["error"] == {"code": GENERATION_FAILED.code, "message": GENERATION_FAILED.message}


def test_ids_convert_both_ways_and_other_texts_are_no_ids() -> None:
    assert generation_id(response_id("gen_abc")) == "gen_abc"
    assert response_id("gen_abc") == "resp_abc"
    for other in ("", "gen_abc", "abc", "chatcmpl-1"):
        assert generation_id(other) == ""


@pytest.mark.parametrize(
    "params",
    [
        {"tools": 3, "tool_choice": [], "response_format": "x"},
        {"tools": [3, {"function": 4}], "tool_choice": {"function": 1}, "response_format": []},
    ],
)
def test_parameters_of_another_dialect_may_have_any_value(params: dict[str, Any]) -> None:
    meta = recorded_meta(Request(messages=[], params=params))
    assert events_of(ResponsesFold(meta).opening())[0]["response"]["object"] == "response"
