"""UI messages become chat messages, and a wrong body is refused."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.ai_sdk.fold import MESSAGE_ID, RESET_STEP
from api.dialects.ai_sdk.request import parse_ai_sdk
from shared.errors import RequestError


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def message(role: str, *parts: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"id": f"{role}-1", "role": role, "parts": list(parts), **members}


def read(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return parse_ai_sdk({"messages": list(messages)}).request.messages


def test_texts_keep_their_borders_and_parts_for_display_are_left_out() -> None:
    assert read(
        message("system", text("Be brief.")),
        message("user", text("Hi"), {"type": "data-mood", "data": 1}, text(" you")),
        message(
            "assistant",
            {"type": "step-start"},
            {"type": "reasoning", "text": "Hm"},
            text("Hello"),
            {"type": "source-url", "url": "https://example.org"},
        ),
        message("assistant", {"type": "step-start"}),
        message("user", text("And?")),
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [text("Hi"), text(" you")]},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
    ]


def test_files_become_content_parts() -> None:
    image = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AA"}
    paper = {"type": "file", "mediaType": "application/pdf", "url": "data:x", "filename": "p.pdf"}
    (found,) = read(message("user", text("See"), image, paper))

    assert found["content"] == [
        text("See"),
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        {"type": "file", "file": {"filename": "p.pdf", "file_data": "data:x"}},
    ]


def test_texts_and_pictures_keep_their_order() -> None:
    image = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AA"}
    (found,) = read(message("user", text("This"), image, text("or"), text("none?")))

    kinds = [part.get("text", part["type"]) for part in found["content"]]
    assert kinds == ["This", "image_url", "or", "none?"]


@pytest.mark.parametrize(
    ("media_type", "url", "part"),
    [
        ("audio/wav", "data:audio/wav;base64,UklG", {"data": "UklG", "format": "wav"}),
        ("audio/mpeg", "data:audio/mpeg;base64,SUQz", {"data": "SUQz", "format": "mp3"}),
        ("audio/mpeg", "https://example.org/a.mp3", None),
        ("audio/flac", "data:audio/flac;base64,ZkxhQw", None),
        ("audio/wav", "data:audio/wav,raw", None),
    ],
)
def test_audio_that_chat_completions_can_hold_is_input_audio(
    media_type: str, url: str, part: dict[str, str] | None
) -> None:
    (found,) = read(message("user", {"type": "file", "mediaType": media_type, "url": url}))

    file = {"type": "file", "file": {"file_data": url}}
    assert found["content"] == [{"type": "input_audio", "input_audio": part} if part else file]


def test_each_step_becomes_a_message_followed_by_its_tool_results() -> None:
    weather = {"type": "tool-weather", "toolCallId": "c1", "input": {"city": "Köln"}}
    clock = {"type": "dynamic-tool", "toolName": "clock", "toolCallId": "c2", "input": None}
    found = read(
        message(
            "assistant",
            {"type": "step-start"},
            text("Let me see."),
            {**weather, "state": "output-available", "output": {"c": 21}},
            {**clock, "state": "output-error", "errorText": "no clock"},
            {**weather, "toolCallId": "c3", "state": "input-available"},
            {"type": "step-start"},
            text("21."),
        )
    )

    assert [chat_message["role"] for chat_message in found] == [
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    calls = found[0]["tool_calls"]
    assert [call["id"] for call in calls] == ["c1", "c2"]  # c3 has no result, so it is left out
    assert calls[0]["function"] == {"name": "weather", "arguments": '{"city":"Köln"}'}
    assert calls[1]["function"] == {"name": "clock", "arguments": "{}"}
    assert (found[1]["tool_call_id"], found[1]["content"]) == ("c1", '{"c":21}')
    assert found[2]["content"] == "no clock"
    assert found[3]["content"] == "21."


def test_chat_messages_pass_unchanged_and_message_may_replace_messages() -> None:
    assert read({"role": "user", "content": "Hi"}) == [{"role": "user", "content": "Hi"}]
    parsed = parse_ai_sdk({"message": message("user", text("Hi")), "id": "c"})
    assert parsed.request.messages == [{"role": "user", "content": "Hi"}]


def test_the_chat_becomes_the_session_where_it_is_a_valid_session() -> None:
    for chat, session in (("c1", "c1"), ("a/ü", "a/ü"), ("x" * 129, None), ("a\nb", None)):
        body: dict[str, Any] = {"id": chat, "messages": [message("user", text("Hi"))]}
        assert parse_ai_sdk(body).chat == chat
        assert body.get("session") == session
    named = {"id": "c1", "session": "s", "messages": [message("user", text("Hi"))]}
    parse_ai_sdk(named)
    assert named["session"] == "s"


def test_members_that_the_answer_needs_are_stored_in_dialect() -> None:
    hello = message("user", text("Hi"))
    assert parse_ai_sdk({"messages": [hello]}).request.dialect == {}
    stored = parse_ai_sdk({"messages": [hello], "resetStep": True}).request
    assert stored.dialect == {RESET_STEP: True}
    # After tool results the answer continues the last message of the client.
    continued = parse_ai_sdk({"messages": [hello, message("assistant", text("Well"))]}).request
    assert continued.dialect == {MESSAGE_ID: "assistant-1"}
    params = {"temperature": 0.5}
    parsed = parse_ai_sdk({"messages": [hello], "params": params, "userId": 7})
    assert parsed.request.params == params
    assert parsed.grace_s is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "Hi"},
        {"messages": ["Hi"]},
        {"messages": [message("user")]},
        {"messages": [message("tool", text("Hi"))]},
        {"messages": [{"role": "user", "parts": "Hi"}]},
        {"messages": [{"role": "user", "parts": ["Hi"]}]},
        {"messages": [message("user", {"type": 1})]},
        {"messages": [message("user", {"type": "text"})]},
        {"messages": [message("user", {"type": "file", "url": 1})]},
        {"messages": [message("user", text("Hi"))], "id": 7},
        {"messages": [message("user", text("Hi"))], "id": "x" * 5_000},
        {"messages": [message("user", text("Hi"))], "resetStep": "yes"},
        {"messages": [message("user", text("Hi"))], "params": {"model": "x"}},
    ],
)
def test_a_wrong_body_is_422(body: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        parse_ai_sdk(body)
    assert (caught.value.status, caught.value.code) == (422, "invalid_request")
