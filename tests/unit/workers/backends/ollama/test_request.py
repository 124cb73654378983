"""Requests to Ollama: messages, members of `params`, continuation."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared.config.model_request import RequestRules
from shared.config.models import Model
from shared.errors import BackendError
from shared.log.request import Request
from workers.backends.ollama.request import encode_body

USER = {"role": "user", "content": "hello"}


def body_of(
    *messages: dict[str, Any], prefix: str = "", rules: RequestRules | None = None, **params: Any
) -> dict[str, Any]:
    model = Model(name="m", backend="ollama", model="qwen3:8b", rules=rules or RequestRules())
    raw = encode_body(model, Request(list(messages) or [USER], params), prefix)
    return msgspec.json.decode(raw)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"max_tokens": 5}, {"options": {"num_predict": 5}}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"options": {"num_predict": 6}}),
        ({"stop": "a"}, {"options": {"stop": ["a"]}}),
        ({"top_k": 3, "num_ctx": 9}, {"options": {"top_k": 3, "num_ctx": 9}}),
        ({"temperature": None}, {}),
        ({"temperature": 1, "options": {"temperature": 0}}, {"options": {"temperature": 0}}),
        ({"keep_alive": "10m", "think": "low"}, {"keep_alive": "10m", "think": "low"}),
        ({"reasoning_effort": "none"}, {"think": False}),
        ({"reasoning_effort": "minimal"}, {"think": "low"}),
        ({"reasoning_effort": "high", "think": False}, {"think": False}),
        ({"response_format": {"type": "json_object"}}, {"format": "json"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"a": 1}}}},
            {"format": {"a": 1}},
        ),
        ({"response_format": {"type": "text"}}, {}),
        ({"tools": [1], "tool_choice": "none"}, {"tool_choice": "none"}),
        ({"n": 3, "stream": False, "model": "x", "stream_options": {}}, {}),
    ],
    ids=str,
)
def test_members_of_params_are_translated(params: dict[str, Any], expected: dict[str, Any]) -> None:
    base = {"model": "qwen3:8b", "messages": [USER], "stream": True}

    assert body_of(**params) == base | expected


def test_the_rules_of_the_models_file_come_last() -> None:
    body = body_of(rules=RequestRules(set={"options": {"num_ctx": 8}}), top_k=1)

    assert body["options"] == {"top_k": 1, "num_ctx": 8}


def test_messages_are_translated() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    sent = body_of(
        {"role": "developer", "content": "be short"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "7"},
    )["messages"]

    function = {"name": "f", "arguments": {"a": 1}}
    assert sent == [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"id": "c1", "function": function}],
        },
        {"role": "tool", "content": "7", "tool_call_id": "c1", "tool_name": "f"},
    ]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://x/"}}],
            },
            "messages[0].content[0]: a model of Ollama takes pictures as data: URLs",
        ),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "parts of the type 'input_audio'"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1"}}]},
            "messages[0].tool_calls[0].function.arguments: must be a JSON object",
        ),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[0].tool_calls[0]: has no function"),
    ],
    ids=["a picture by URL", "audio", "arguments", "no function"],
)
def test_what_has_no_form_is_refused_and_said(message: dict[str, Any], words: str) -> None:
    with pytest.raises(BackendError) as caught:
        body_of(message)

    assert (caught.value.code, caught.value.retryable) == ("upstream_refused", False)
    assert words in caught.value.message
    assert caught.value.upstream is not None and caught.value.upstream.status == 400


def test_a_partial_answer_is_the_last_turn() -> None:
    assert body_of(prefix="Hel")["messages"][-1] == {"role": "assistant", "content": "Hel"}


def test_a_turn_that_the_client_has_begun_is_extended() -> None:
    sent = body_of(USER, {"role": "assistant", "content": "Well, "}, prefix="then")["messages"]

    assert sent == [USER, {"role": "assistant", "content": "Well, then"}]
