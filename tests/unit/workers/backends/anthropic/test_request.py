"""Requests to Anthropic's Messages, which the types of the official SDK accept."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from anthropic.types import ContentBlockParam, MessageParam, ToolChoiceParam, ToolUnionParam

from shared.config.model_request import RequestRules
from shared.config.models import Model
from shared.errors import BackendError
from shared.log.request import Request
from tests.support.conversations import (
    HABITS,
    PDF,
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
from workers.backends.anthropic.request import MAX_TOKENS, encode_body

MODEL = Model(name="claude", backend="anthropic", base_url="https://x/v1", model="claude-x")
CACHE = {"type": "ephemeral"}
FORMAT = "anthropic-claude-v1"
THOUGHT = {"type": "reasoning.text", "text": "Hm.", "signature": "c2ln", "format": FORMAT}
HIDDEN = {"type": "reasoning.encrypted", "data": "RW5j", "format": FORMAT}


def body_of(
    *messages: dict[str, Any], prefix: str = "", model: Model = MODEL, **params: Any
) -> dict[str, Any]:
    """Return the body, after the SDK's types have accepted its parts."""
    body: dict[str, Any] = msgspec.json.decode(
        encode_body(model, Request(list(messages), params), prefix)
    )
    for message in body["messages"]:
        adapter_of(MessageParam).validate_python(message)
        for block in message["content"]:
            adapter_of(ContentBlockParam).validate_python(block)
    for tool in body.get("tools", ()):
        adapter_of(ToolUnionParam).validate_python(tool)
    if "tool_choice" in body:
        adapter_of(ToolChoiceParam).validate_python(body["tool_choice"])
    return body


def blocks_of(*messages: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    """Return the blocks of the last message."""
    blocks: list[dict[str, Any]] = body_of(*messages, **params)["messages"][-1]["content"]
    return blocks


def test_a_simple_chat() -> None:
    assert body_of({"role": "system", "content": "Be brief."}, user("Hi"), **HABITS) == {
        "model": "claude-x",
        "system": [text("Be brief.")],
        "messages": [{"role": "user", "content": [text("Hi")]}],
        "max_tokens": MAX_TOKENS,
        "stream": True,
    }


def test_system_messages_stand_in_front_wherever_they_were() -> None:
    body = body_of(user("a"), {"role": "developer", "content": [text("late", cache_control=CACHE)]})

    assert body["system"] == [text("late", cache_control=CACHE)]
    assert len(body["messages"]) == 1


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 40_000}},
            {"max_tokens": MAX_TOKENS + 40_000},
        ),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", "\n"]}, {"stop_sequences": ["a"]}),
        ({"temperature": 1.7}, {"temperature": 1.0}),
        ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        ({"service_tier": "standard_only"}, {"service_tier": "standard_only"}),
        ({"top_k": 3, "container": "c", "cache_control": CACHE}, {"top_k": 3, "container": "c"}),
        (
            {"reasoning_effort": "minimal"},
            {
                "output_config": {"effort": "low"},
                "thinking": {"type": "adaptive", "display": "summarized"},
            },
        ),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        (
            {"response_format": SCHEMA, "output_config": {"effort": "max"}},
            {
                "output_config": {
                    "effort": "max",
                    "format": {
                        "type": "json_schema",
                        "schema": {"type": "object", "properties": {}},
                    },
                }
            },
        ),
    ],
)
def test_params_are_translated(params: dict[str, Any], expected: dict[str, Any]) -> None:
    body = body_of(user("Hi"), **params)

    assert {name: body[name] for name in expected} == expected
    assert not {"stop", "user", "reasoning_effort", "response_format"} & body.keys()


@pytest.mark.parametrize("tier", ["flex", "default", None])
def test_the_tiers_of_openai_are_left_out(tier: str | None) -> None:
    assert "service_tier" not in body_of(user("Hi"), service_tier=tier)


@pytest.mark.parametrize(
    ("params", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
            {"type": "tool", "name": "get_weather"},
        ),
        ({"tool_choice": {"type": "any"}}, {"type": "any"}),
        (
            {"parallel_tool_calls": False},
            {"type": "auto", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tools(params: dict[str, Any], choice: dict[str, Any] | None) -> None:
    own = {"type": "web_search_20250305", "name": "web_search"}
    body = body_of(user("Hi"), tools=[{**TOOL, "cache_control": CACHE}, own], **params)

    assert body["tools"] == [
        {
            "name": "get_weather",
            "description": "The weather",
            "input_schema": TOOL["function"]["parameters"],
            "cache_control": CACHE,
        },
        own,
    ]
    assert body.get("tool_choice") == choice


def test_a_choice_without_tools_is_left_out() -> None:
    assert "tool_choice" not in body_of(user("Hi"), tool_choice="auto")


def test_a_turn_with_tools_keeps_its_order() -> None:
    late = {**THOUGHT, "text": "", "after": {"characters": 6, "calls": 1}}
    turn = answer(
        "I see.",
        call("toolu_1", "f", '{"a": 1}'),
        call("toolu_2", "g", "not json"),
        reasoning_details=[THOUGHT, HIDDEN, late],
        reasoning_content="Hm.",
    )
    body = body_of(user("Hi"), turn, result("toolu_1", "1"), result("toolu_2", [text("2")]))

    _, said, results = body["messages"]
    assert said["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "RW5j"},
        text("I see."),
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        {"type": "thinking", "thinking": "", "signature": "c2ln"},
        {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {"arguments": "not json"}},
    ]
    assert results == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1"},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "2"},
        ],
    }


def test_thoughts_of_other_vendors_are_left_out() -> None:
    foreign = {"type": "reasoning.encrypted", "data": "x", "format": "google-gemini-v1"}

    assert blocks_of(user("Hi"), answer("Yes", reasoning_details=[foreign])) == [text("Yes")]


def test_thoughts_in_the_form_of_anthropic_are_accepted() -> None:
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}

    assert blocks_of(user("Hi"), answer("Yes", thinking_blocks=[thinking])) == [
        thinking,
        text("Yes"),
    ]


@pytest.mark.parametrize(
    ("turn", "is_kept"),
    [
        (answer(None, call("t", "f"), reasoning_details=[THOUGHT]), True),
        (answer("Yes", call("t", "f")), False),
        (answer("Yes"), True),
    ],
)
def test_thinking_is_left_out_where_the_server_would_refuse_it(
    turn: dict[str, Any], is_kept: bool
) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1_024}
    results = [result("t", "r")] if "tool_calls" in turn else []

    assert ("thinking" in body_of(user("Hi"), turn, *results, thinking=thinking)) is is_kept
    # After the user's next words a new turn begins.
    assert "thinking" in body_of(user("Hi"), turn, *results, user("So?"), thinking=thinking)


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            picture(),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
            },
        ),
        (
            picture("https://e.example/a.png"),
            {"type": "image", "source": {"type": "url", "url": "https://e.example/a.png"}},
        ),
        (
            file(f"data:application/pdf;base64,{PDF}"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                "title": "a.pdf",
            },
        ),
        (
            file("https://e.example/a.pdf"),
            {
                "type": "document",
                "source": {"type": "url", "url": "https://e.example/a.pdf"},
                "title": "a.pdf",
            },
        ),
        (
            file(f"data:text/plain;base64,{base64.b64encode('Grüße'.encode()).decode()}", "a.txt"),
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
                "title": "a.txt",
            },
        ),
    ],
)
def test_parts(part: dict[str, Any], block: dict[str, Any]) -> None:
    assert blocks_of(user(text("Look"), part, text("  "))) == [text("Look"), block]


def test_a_picture_in_the_result_of_a_tool() -> None:
    (block,) = blocks_of(user("Hi"), answer(None, call("a.b:0", "f")), result("a.b:0", [picture()]))

    assert block["content"][0]["type"] == "image"
    assert block["tool_use_id"] == "a_b_0"  # other characters are refused


def test_cache_control_of_a_message_is_that_of_its_last_block() -> None:
    blocks = blocks_of(user(text("a"), text("b"), cache_control=CACHE))

    assert blocks == [text("a"), text("b", cache_control=CACHE)]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (user(picture("data:image/png,raw")), "messages[0].content[0].image_url"),
        (user({"type": "input_audio", "input_audio": {}}), "messages[0].content[0]"),
        (user({"no": "type"}), "messages[0].content[0]"),
        (answer(None, {"id": "c", "type": "function"}), "messages[0].tool_calls[0]"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_place(message: dict[str, Any], param: str) -> None:
    with pytest.raises(BackendError) as caught:
        body_of(message)

    error = caught.value
    assert (error.code, error.retryable) == ("upstream_refused", False)
    assert error.upstream is not None
    assert (error.upstream.status, error.upstream.param) == (400, param)


def test_a_partial_answer_is_the_last_turn() -> None:
    assert body_of(user("Hi"), prefix="So far")["messages"][-1] == {
        "role": "assistant",
        "content": [text("So far")],
    }
    assert blocks_of(user("Hi"), answer("Begin"), prefix=" on") == [text("Begin on")]


def test_the_rules_of_the_model_come_last() -> None:
    rules = RequestRules(omit=("thinking",), set={"max_tokens": 7})
    model = Model(name="c", backend="anthropic", base_url="https://x/v1", rules=rules)
    body = body_of(user("Hi"), model=model, reasoning_effort="high", max_tokens=9)

    assert body["max_tokens"] == 7 and "thinking" not in body


def test_the_old_form_of_calls() -> None:
    turn = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    body = body_of(user("Hi"), turn, {"role": "function", "name": "f", "content": "r"})

    assert body["messages"][1]["content"][0]["id"] == "call_f"
    assert body["messages"][2]["content"][0]["tool_use_id"] == "call_f"
