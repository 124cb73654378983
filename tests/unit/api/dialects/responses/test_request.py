"""How the body of a response is read; items as messages and back."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.responses.fold import ResponsesFold
from api.dialects.responses.input import items_of, messages_of
from api.dialects.responses.request import parse_response
from api.dialects.responses.response_object import response_head
from shared.errors import RequestError
from shared.log.request import decode_request
from shared.queue.accept import NewGeneration
from tests.support.prompts import read_prompt
from tests.support.recorded import recorded_meta

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "rain"}


def accepted(**members: Any) -> NewGeneration:
    return read_prompt({"input": "Hi", **members}, parse_response)


def params(**members: Any) -> dict[str, Any]:
    return decode_request(accepted(**members).request).params


@pytest.mark.parametrize(
    ("is_stream", "is_background"), [(False, False), (True, False), (True, True)]
)
def test_a_request_answered_from_the_log_is_read_at_once(
    is_stream: bool, is_background: bool
) -> None:
    body = {"input": "Hi", "stream": is_stream, "background": is_background}
    assert parse_response(body, grace_s=5.0).is_answered_from_log


def test_a_response_in_the_background_is_not_read_at_once() -> None:
    assert not parse_response({"input": "Hi", "background": True}, grace_s=5.0).is_answered_from_log


def test_members_go_to_the_backend_in_the_form_of_chat_completions() -> None:
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    tool = {"name": "f", "parameters": {"type": "object"}, "strict": True}
    assert params(
        max_output_tokens=7,
        tools=[{"type": "function", **tool, "description": None}],
        tool_choice={"type": "function", "name": "f"},
        text={"format": {"type": "json_schema", **schema}, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        top_logprobs=2,
        temperature=0.5,
        top_k=3,
        include=["x"],
        truncation="auto",
        service_tier="auto",
        max_tokens=99,
    ) == {
        "max_tokens": 7,
        "tools": [{"type": "function", "function": tool}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": schema},
        "verbosity": "low",
        "reasoning_effort": "low",
        "logprobs": True,
        "top_logprobs": 2,
        "temperature": 0.5,
        "top_k": 3,
    }


def test_the_response_repeats_the_request_in_the_form_of_responses() -> None:
    form = {"type": "json_schema", "name": "n", "schema": {}, "strict": True}
    tool = {"type": "function", "name": "f", "description": "d", "parameters": {}, "strict": True}
    choice = {"type": "function", "name": "f"}
    new = accepted(
        instructions="Be brief.", tools=[tool], tool_choice=choice, text={"format": form},
        reasoning={"effort": "low"}, background=True, max_output_tokens=7,
    )  # fmt: skip
    head = response_head(recorded_meta(decode_request(new.request)))
    assert (head["tools"], head["tool_choice"], head["text"]) == ([tool], choice, {"format": form})
    assert (head["instructions"], head["background"], head["store"]) == ("Be brief.", True, True)
    assert (head["reasoning"]["effort"], head["max_output_tokens"]) == ("low", 7)


def test_the_response_has_every_member_that_open_responses_demands() -> None:
    response = ResponsesFold(recorded_meta()).response()
    numbers = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs")
    assert all(isinstance(response[name], int | float) for name in numbers)
    texts = ("id", "object", "status", "model", "truncation", "service_tier")
    assert all(isinstance(response[name], str) for name in texts)
    may_be_null = (
        "completed_at", "incomplete_details", "previous_response_id", "instructions", "error",
        "reasoning", "user", "usage", "max_output_tokens", "max_tool_calls", "safety_identifier",
        "prompt_cache_key",
    )  # fmt: skip
    others = ("output", "tools", "tool_choice", "parallel_tool_calls", "text", "store")
    assert {*may_be_null, *others, "background", "metadata", "created_at"} < set(response)
    asked = recorded_meta(decode_request(accepted(temperature=0.5, top_p=0.1).request))
    found = response_head(asked)
    assert (found["temperature"], found["top_p"]) == (0.5, 0.1)


def test_a_tool_choice_without_tools_is_not_sent_to_the_backend() -> None:
    """Some SDKs for agents always send `tool_choice`, and backends refuse it without tools."""
    assert params(tools=[], tool_choice="auto") == {}


def test_only_a_response_in_the_foreground_has_a_grace() -> None:
    assert accepted().grace_s == 5.0
    assert accepted(on_disconnect="continue").grace_s is None
    assert accepted(on_disconnect=7).grace_s == 7.0
    assert accepted(background=True).grace_s is None
    assert accepted(background=True, on_disconnect="cancel").grace_s is None


def test_stream_is_not_stored_with_the_generation() -> None:
    assert accepted(stream=True).body_digest == accepted().body_digest
    assert accepted(background=True).body_digest != accepted().body_digest


def test_items_become_chat_messages() -> None:
    image = {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "low"}
    text = {"type": "input_text", "text": "What?"}
    answer = {"type": "output_text", "text": "I ", "annotations": []}
    assert messages_of(
        [
            {"role": "developer", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [text, image]},
            {"type": "reasoning", "summary": []},
            {"role": "assistant", "content": [answer, {"type": "refusal", "refusal": "won't."}]},
            CALL,
            {**CALL, "call_id": "c2"},
            OUTPUT,
            {**OUTPUT, "call_id": "c2", "output": [text]},
            CALL,
            {"role": "user", "content": [text]},
        ]
    ) == [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {
                    "type": "image_url",
                    "image_url": {"url": "https://example.org/a.png", "detail": "low"},
                },
            ],
        },
        {"role": "assistant", "content": "I won't.", "tool_calls": [call("c1"), call("c2")]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": "What?"},
        {"role": "assistant", "content": None, "tool_calls": [call("c1")]},
        {"role": "user", "content": "What?"},
    ]


def call(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_messages_converted_to_items_convert_back_to_the_same_messages() -> None:
    image = {"type": "image_url", "image_url": {"url": "u", "detail": "low"}}
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:…"}}
    audio = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, image, file, audio]},
        {"role": "assistant", "content": "b", "tool_calls": [call("c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": [image]},
        {"role": "user", "content": "c"},
    ]
    items = items_of(messages, "x")
    assert messages_of(items) == messages
    assert len({item["id"] for item in items}) == len(items)
    assert items == items_of(messages, "x")


@pytest.mark.parametrize(
    "members",
    [
        {"input": 3},
        {"input": []},
        {"input": [3]},
        {"input": [{"role": "nobody", "content": "x"}]},
        {"input": [{"role": "user"}]},
        {"input": [{"role": "user", "content": []}]},
        {"input": [{"role": "user", "content": [3]}]},
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        {"input": [{"type": "item_reference"}]},
        {"input": [{"type": "mesage", "role": "user", "content": "x"}]},
        {"input": [{"type": "custom_tool_call", "call_id": "c", "name": "f", "input": {}}]},
        {"input": [{"type": ["x"]}]},
        {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": 3}]},
        {"instructions": 3},
        {"previous_response_id": 3},
        {"stream": 1},
        {"background": "yes"},
        {"store": "no"},
        {"background": True, "store": False},
        {"conversation": "conv_1"},
        {"n": 2},
        {"prompt": {"id": "pmpt_1"}},
        {"max_output_tokens": 0},
        {"max_output_tokens": True},
        {"max_output_tokens": 1.5},
        {"tools": {}},
        {"tools": [3]},
        {"tools": [{"type": "function"}]},
        {"tools": [{"name": "f"}]},
        {"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "function"}},
        {"tools": [{"type": "function", "name": "f"}], "tool_choice": {"name": "f"}},
        {"tool_choice": {"type": "allowed_tools", "mode": "none", "tools": []}},
        {"tool_choice": {"type": "allowed_tools", "tools": "f"}},
        {"text": []},
        {"text": {"format": "x"}},
        {"text": {"format": {"type": "grammar"}}},
        {"reasoning": "x"},
    ],
)
def test_a_body_that_cannot_be_served_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        accepted(**members)
    assert caught.value.status in (400, 422)
    assert caught.value.code.startswith("invalid_request")
