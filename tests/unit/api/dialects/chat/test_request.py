"""How the body of a chat completion is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.dialects.chat.request import parse_chat
from shared.errors import RequestError
from shared.log.request import decode_request
from shared.queue.accept import NewGeneration
from tests.support.prompts import read_prompt

HELLO = [{"role": "user", "content": "Hi"}]
MINE = {"session": "s", "metadata": {"a": 1}, "priority": "batch", "on_disconnect": "continue"}


def accepted(**members: Any) -> NewGeneration:
    return read_prompt({"messages": HELLO, **members}, parse_chat)


def test_members_that_are_not_ours_go_to_the_backend() -> None:
    new = accepted(model="demo", stream=True, temperature=0.5, top_k=3, user="u", **MINE)
    request = decode_request(new.request)
    assert request.params == {"temperature": 0.5, "top_k": 3, "user": "u"}
    assert request.messages == HELLO
    assert (new.session, json.loads(new.metadata), new.priority) == ("s", {"a": 1}, "batch")


def test_the_grace_has_a_default_and_follows_on_disconnect() -> None:
    assert accepted().grace_s == 5.0
    assert accepted(on_disconnect="continue").grace_s is None
    assert accepted(on_disconnect="cancel").grace_s == 0.0
    assert accepted(on_disconnect=7).grace_s == 7.0


def test_stream_is_not_stored_with_the_generation() -> None:
    """So a repeat with the same key may ask for the other form."""
    assert accepted(stream=True).body_digest == accepted(stream=False).body_digest
    assert parse_chat({"messages": HELLO, "stream": True}, grace_s=0).is_stream
    assert not parse_chat({"messages": HELLO}, grace_s=0).is_stream


@pytest.mark.parametrize("value", [1, "yes", {}, []])
def test_an_include_usage_that_is_no_boolean_is_refused(value: object) -> None:
    body = {"messages": HELLO, "stream_options": {"include_usage": value}}
    with pytest.raises(RequestError, match="include_usage must be true or false"):
        parse_chat(body, grace_s=0)


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({"include_usage": True}, {"include_usage": True}),
        ({"include_usage": False}, {}),
        ({}, {}),
        ({"include_usage": None}, {}),
    ],
)
def test_include_usage_is_stored_for_the_fold_and_not_sent_to_the_backend(
    options: dict[str, Any], stored: dict[str, Any]
) -> None:
    request = decode_request(accepted(stream=True, stream_options=options).request)
    assert request.dialect == stored
    assert request.params == {}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "assistant", "content": None, "refusal": "I will not."},
        {"role": "assistant", "content": None, "audio": {"id": "audio_1"}},
        {"role": "assistant", "content": None, "reasoning_content": "Hm"},
        {"role": "assistant", "reasoning": "Hm"},
        {"role": "assistant", "content": None, "reasoning_details": [{"text": "Hm"}]},
        {"role": "assistant", "content": [], "tool_calls": [{"id": "c"}]},
        {"role": "tool", "tool_call_id": "c", "content": None},
        {"role": "tool", "tool_call_id": "c", "content": []},
        {"role": "function", "name": "f", "content": None},
    ],
)
def test_a_message_without_content_that_says_something_else_is_accepted(
    message: dict[str, Any],
) -> None:
    history = [*HELLO, message]
    assert decode_request(accepted(messages=history).request).messages == history


def test_parts_keep_their_order() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    texts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    history = [{"role": "user", "content": [texts[0], image, texts[1], sound]}]
    assert decode_request(accepted(messages=history).request).messages == history


@pytest.mark.parametrize("priority", [7, -1, 0, 0.5])
def test_a_numeric_priority_is_the_backends(priority: float) -> None:
    new = accepted(priority=priority)
    assert (decode_request(new.request).params, new.priority) == (
        {"priority": priority}, "interactive",
    )  # fmt: skip


def test_tools_and_choices_of_any_type_go_to_the_backend() -> None:
    """The form is the backend's own, so the backend may know what Tailrace does not."""
    faulty = {
        "tools": [{"type": "custom", "custom": {"name": "c"}}, {"type": "web_search"}],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
    }
    assert decode_request(accepted(**faulty).request).params == faulty
