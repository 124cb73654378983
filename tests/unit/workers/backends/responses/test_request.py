"""Requests to OpenAI's Responses, which the types of the official SDK accept."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import ResponseInputItemParam, ToolParam

from shared.config.model_request import RequestRules
from shared.config.models import Model
from shared.log.request import Request
from tests.support.conversations import (
    HABITS,
    PIXEL,
    SCHEMA,
    TOOL,
    answer,
    call,
    file,
    picture,
    result,
    text,
    user,
)
from tests.support.sdk_types import adapter_of
from workers.backends.responses.request import body_of as encode

MODEL = Model(name="gpt", backend="responses", base_url="https://x/v1", model="gpt-x")
KEPT = {
    "type": "reasoning.encrypted", "id": "rs_1", "data": "gAAA", "format": "openai-responses-v1",
}  # fmt: skip


def body_of(*messages: dict[str, Any], model: Model = MODEL, **params: Any) -> dict[str, Any]:
    """Return the body, after the SDK's types have accepted its parts."""
    body = encode(model, Request(list(messages), params))
    for item in body["input"]:
        adapter_of(ResponseInputItemParam).validate_python(item)
    for tool in body.get("tools", ()):
        adapter_of(ToolParam).validate_python(tool)
    return body


def test_a_simple_chat() -> None:
    assert body_of({"role": "system", "content": "Be brief."}, user("Hi"), **HABITS) == {
        "model": "gpt-x",
        "input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "store": True,
        "background": True,
        "include": ["reasoning.encrypted_content"],
    }


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"max_completion_tokens": 5}, {"max_output_tokens": 5}),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low", "summary": "auto"}}),
        (
            {"reasoning_effort": "low", "reasoning": {"summary": "detailed"}},
            {"reasoning": {"effort": "low", "summary": "detailed"}},
        ),
        (
            {"response_format": SCHEMA, "verbosity": "low"},
            {
                "text": {
                    "format": {"type": "json_schema", **SCHEMA["json_schema"]},  # type: ignore[dict-item]
                    "verbosity": "low",
                }
            },
        ),
        (
            {"logprobs": True, "top_logprobs": 2},
            {
                "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
                "top_logprobs": 2,
            },
        ),
        ({"stop": "END"}, {"stop": "END"}),  # the server refuses it in its own words
        ({"temperature": 0.5, "truncation": "auto"}, {"temperature": 0.5, "truncation": "auto"}),
    ],
)
def test_params_are_translated(params: dict[str, Any], expected: dict[str, Any]) -> None:
    body = body_of(user("Hi"), **params)

    assert {name: body[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        (
            {"type": "function", "function": {"name": "get_weather"}},
            {"type": "function", "name": "get_weather"},
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}},
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "get_weather"}],
            },
        ),
    ],
)
def test_tools(choice: Any, expected: Any) -> None:
    own = {"type": "web_search"}
    custom = {"type": "custom", "custom": {"name": "sql", "description": "SQL"}}
    body = body_of(user("Hi"), tools=[TOOL, custom, own], tool_choice=choice)

    assert body["tools"] == [
        {"type": "function", **TOOL["function"], "strict": False},
        {"type": "custom", "name": "sql", "description": "SQL"},
        own,
    ]
    assert body["tool_choice"] == expected


def test_a_turn_with_tools_keeps_its_order() -> None:
    late = {**KEPT, "id": "rs_2", "after": {"characters": 6, "calls": 1}}
    turn = answer(
        "I see.",
        call("call_1", "f", '{"a": 1}'),
        {"id": "call_2", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}},
        reasoning_details=[KEPT, late],
    )
    body = body_of(user("Hi"), turn, result("call_1", "1"), result("call_2", "2"))

    assert body["input"][1:] == [
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA", "id": "rs_1"},
        {"role": "assistant", "content": "I see."},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA", "id": "rs_2"},
        {"type": "custom_tool_call", "call_id": "call_2", "name": "sql", "input": "SELECT"},
        {"type": "function_call_output", "call_id": "call_1", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "2"},
    ]


def test_parts() -> None:
    (item,) = body_of(
        user(text("Look"), picture(), file("https://e.example/a.pdf"), file("data:x;base64,AA"))
    )["input"]

    assert item["content"] == [
        {"type": "input_text", "text": "Look"},
        {
            "type": "input_image",
            "image_url": f"data:image/png;base64,{PIXEL}",
            "detail": "auto",
        },
        {"type": "input_file", "file_url": "https://e.example/a.pdf"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:x;base64,AA"},
    ]


def test_the_rules_of_the_model_come_last() -> None:
    rules = RequestRules(set={"background": False, "store": False}, omit=("include",))
    model = Model(name="g", backend="responses", base_url="https://x/v1", rules=rules)
    body = body_of(user("Hi"), model=model)

    assert (body["background"], body["store"], "include" in body) == (False, False, False)
