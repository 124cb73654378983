"""Requests to Gemini, which the types of the official SDK accept."""

# ruff: noqa: E501 - a case is one line

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from google.genai import types as gemini

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
from workers.backends.gemini.request import encode_body

MODEL = Model(name="gemini-3-pro", backend="gemini", base_url="https://x/v1beta")
OLDER = Model(name="g", backend="gemini", base_url="https://x/v1beta", model="gemini-2.5-flash")
SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}


def kept(characters: int) -> dict[str, Any]:
    after = {"characters": characters, "calls": 0}
    return {
        "type": "reasoning.encrypted", "data": "dHh0", "format": "google-gemini-v1", "after": after,
    }  # fmt: skip


def body_of(
    *messages: dict[str, Any], prefix: str = "", model: Model = MODEL, **params: Any
) -> dict[str, Any]:
    """Return the body, after the SDK's types have accepted its parts; they refuse others."""
    body: dict[str, Any] = msgspec.json.decode(
        encode_body(model, Request(list(messages), params), prefix)
    )
    for content in body["contents"]:
        gemini.Content.model_validate(content)
    for tool in body.get("tools", ()):
        gemini.Tool.model_validate(tool)
    gemini.GenerationConfig.model_validate(body.get("generationConfig", {}))
    gemini.ToolConfig.model_validate(body.get("toolConfig", {}))
    return body


def parts_of(*messages: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    """Return the parts of the last content."""
    parts: list[dict[str, Any]] = body_of(*messages, **params)["contents"][-1]["parts"]
    return parts


def test_a_simple_chat() -> None:
    assert body_of({"role": "system", "content": "Be brief."}, user("Hi"), **HABITS) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "generationConfig": {"presencePenalty": 0, "frequencyPenalty": 0},
    }


def test_a_system_message_alone_is_asked() -> None:
    body = body_of({"role": "system", "content": "Hi"})

    assert body == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


@pytest.mark.parametrize(
    ("params", "config"),
    [
        ({"max_tokens": 5, "temperature": 1.5, "top_p": 0.5, "top_k": 3}, {"maxOutputTokens": 5, "temperature": 1.5, "topP": 0.5, "topK": 3}),
        ({"stop": ["a", "b"], "seed": 7}, {"stopSequences": ["a", "b"], "seed": 7}),
        ({"logprobs": True, "top_logprobs": 2}, {"responseLogprobs": True, "logprobs": 2}),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        ({"response_format": SCHEMA}, {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object", "properties": {}}}),
        ({"modalities": ["text", "image"]}, {"responseModalities": ["TEXT", "IMAGE"]}),
        ({"reasoning_effort": "low"}, {"thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True}}),
        ({"reasoning_effort": "none"}, {"thinkingConfig": {"thinkingLevel": "MINIMAL", "includeThoughts": False}}),
        ({"max_tokens": 5, "generationConfig": {"maxOutputTokens": 9, "topK": 1}}, {"maxOutputTokens": 9, "topK": 1}),
    ],
)  # fmt: skip
def test_params_are_translated(params: dict[str, Any], config: dict[str, Any]) -> None:
    assert body_of(user("Hi"), **params)["generationConfig"] == config


@pytest.mark.parametrize(("effort", "budget"), [("none", 0), ("low", 1_024), ("high", 24_576)])
def test_older_models_have_budgets(effort: str, budget: int) -> None:
    thinking = {"thinkingBudget": budget, "includeThoughts": budget > 0}
    body = body_of(user("Hi"), model=OLDER, reasoning_effort=effort)

    assert body["generationConfig"] == {"thinkingConfig": thinking}


def test_members_of_the_vendor_pass() -> None:
    safety = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    body = body_of(user("Hi"), safetySettings=safety, cachedContent="cachedContents/1")

    assert (body["safetySettings"], body["cachedContent"]) == (safety, "cachedContents/1")


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "get_weather"}},
            {"mode": "ANY", "allowedFunctionNames": ["get_weather"]},
        ),
    ],
)
def test_tools(choice: Any, calling: dict[str, Any] | None) -> None:
    bare = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
    body = body_of(user("Hi"), tools=[TOOL, bare, {"googleSearch": {}}], tool_choice=choice)

    assert body["tools"] == [
        {
            "functionDeclarations": [
                {
                    "name": "get_weather",
                    "description": "The weather",
                    "parametersJsonSchema": TOOL["function"]["parameters"],
                },
                {"name": "now"},
            ]
        },
        {"googleSearch": {}},
    ]
    assert body.get("toolConfig") == (calling and {"functionCallingConfig": calling})


def test_a_turn_with_tools_and_signatures() -> None:
    turn = answer(
        "I see.",
        call("call_s_0", "f", '{"a": 1}', **SIGNED),
        call("fc_2", "g"),
        reasoning_details=[kept(2)],
    )
    results = [result("call_s_0", "plain"), result("fc_2", '{"ok": true}')]
    body = body_of(user("Hi"), turn, *results)

    assert body["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "I "},
                {"text": "see.", "thoughtSignature": "dHh0"},
                {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
                {"functionCall": {"name": "g", "args": {}, "id": "fc_2"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"result": "plain"}}},
                {"functionResponse": {"name": "g", "response": {"ok": True}, "id": "fc_2"}},
            ],
        },
    ]


def test_a_signature_behind_the_text_has_a_part_of_its_own() -> None:
    assert parts_of(user("Hi"), answer("Yes", reasoning_details=[kept(3)])) == [
        {"text": "Yes"},
        {"text": "", "thoughtSignature": "dHh0"},
    ]


@pytest.mark.parametrize(
    ("model", "signature"), [(MODEL, "skip_thought_signature_validator"), (OLDER, None)]
)
def test_a_call_without_a_signature(model: Model, signature: str | None) -> None:
    parts = parts_of(user("Hi"), answer(None, call("call_1", "f")), model=model)

    assert parts[0].get("thoughtSignature") == signature


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (picture(), {"inlineData": {"mimeType": "image/png", "data": PIXEL}}),
        (
            picture("https://e.example/a.jpg?x=1"),
            {"fileData": {"fileUri": "https://e.example/a.jpg?x=1", "mimeType": "image/jpeg"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
            {"inlineData": {"mimeType": "audio/mp3", "data": "AAAA"}},
        ),
        (
            file(f"data:application/pdf;base64,{PDF}"),
            {"inlineData": {"mimeType": "application/pdf", "data": PDF}},
        ),
        ({"executableCode": {"code": "1", "language": "PYTHON"}}, None),
    ],
)
def test_parts(part: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert parts_of(user(text("Look"), part)) == [{"text": "Look"}, expected or part]


def test_a_picture_that_the_model_made_goes_back_with_its_signature() -> None:
    made = {**picture(), **SIGNED}

    assert parts_of(user("Hi"), answer("Here", images=[made])) == [
        {"text": "Here"},
        {"inlineData": {"mimeType": "image/png", "data": PIXEL}, "thoughtSignature": "c2ln"},
    ]


def test_a_result_without_its_call_is_refused() -> None:
    with pytest.raises(BackendError, match=r"messages\[1\].tool_call_id: no call before it"):
        body_of(user("Hi"), result("call_9", "r"))


def test_a_partial_answer_is_the_last_turn() -> None:
    body = body_of(user("Hi"), prefix="So far")

    assert body["contents"][-1] == {"role": "model", "parts": [{"text": "So far"}]}
