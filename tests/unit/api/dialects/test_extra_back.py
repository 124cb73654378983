"""What a client sends back of a tool call reaches the model server as the server sent it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.dialects.chat.fold import completion_object
from api.dialects.chat.request import parse_chat
from api.dialects.responses.fold import ResponsesFold
from api.dialects.responses.input import items_of, messages_of
from api.dialects.responses.request import parse_response
from shared.config.models import Model
from shared.log.events import AnyEvent, End, Start, ToolCall, encode
from shared.log.ids import EventId
from shared.log.request import Request, decode_request, encode_request
from shared.log.snapshot import Snapshot
from tests.support.recorded import recorded_meta
from workers.backends.openai.request import encode_body

META = recorded_meta()
EXTRA = {"extra_content": {"google": {"thought_signature": "S=="}}}
EVENTS: list[AnyEvent] = [
    Start(1, "m"),
    ToolCall(0, "c1", "f", '{"a":1}', EXTRA),
    ToolCall(1, "c2", "g", "{}", {"function": {"odd": 1}}),
    End("completed", "tool_calls"),
]
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}, **EXTRA},
    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}", "odd": 1}},
]


def sent_to_backend(request: Request) -> list[dict[str, Any]]:
    """Return the messages that a backend gets, after the way through Redis."""
    stored = decode_request(encode_request(request))
    body = msgspec.json.decode(encode_body(Model(name="m"), stored, ""))
    messages: list[dict[str, Any]] = body["messages"]
    return messages


def output_items() -> list[dict[str, Any]]:
    fold = ResponsesFold(META)
    for n, event in enumerate(EVENTS, 1):
        fold.add(EventId(1, n), encode(event))
    items: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(fold.response()))[
        "output"
    ]
    return items


def test_a_chat_message_goes_back_as_it_came() -> None:
    snapshot = Snapshot(META)
    for n, event in enumerate(EVENTS, 1):
        snapshot.add(EventId(1, n), encode(event))
    answer = msgspec.json.decode(msgspec.json.encode(completion_object(META, snapshot)))
    message = answer["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": "c1", "content": "1"}

    asked = parse_chat(
        {"model": "m", "messages": [{"role": "user", "content": "x"}, message, result]}, grace_s=0
    )
    _, back, _ = sent_to_backend(asked.request)

    assert back["tool_calls"] == CALLS


def test_items_of_a_response_go_back_as_they_came() -> None:
    result = {"type": "function_call_output", "call_id": "c1", "output": "1"}

    asked = parse_response({"input": [*output_items(), result]}, grace_s=0)
    back, _ = sent_to_backend(asked.request)

    assert back["tool_calls"] == CALLS


def test_a_response_that_is_continued_by_its_id_keeps_them() -> None:
    (message,) = messages_of(output_items())

    assert message["tool_calls"] == CALLS


def test_a_signature_beside_the_call_is_kept_too() -> None:
    item = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", **EXTRA}
    (message,) = messages_of([item])

    assert message["tool_calls"][0]["extra_content"] == EXTRA["extra_content"]


def test_listed_input_items_show_them_and_can_be_sent_again() -> None:
    messages = messages_of(output_items())

    assert messages_of(items_of(messages, "x")) == messages


@pytest.mark.parametrize("extra", [None, 7, [], "x", {"id": "z", "type": "custom", "function": 7}])
def test_extra_cannot_change_the_call(extra: Any) -> None:
    item = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    (message,) = messages_of([item | {"extra": extra}])
    function = {"name": "f", "arguments": "{}"}

    assert message["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]
