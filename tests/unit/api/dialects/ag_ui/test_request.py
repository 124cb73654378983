"""RunAgentInput as a prompt: messages, parts, tools, context, and what all dialects share."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.ag_ui.request import STATE_BYTES_MAX, AgUiRequest, parse_ag_ui
from api.dialects.ag_ui.run import STATE
from shared.errors import RequestError

USER = {"id": "m1", "role": "user", "content": "Hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def parse(**members: Any) -> AgUiRequest:
    return parse_ag_ui("demo", {"threadId": "t", "runId": "r", "messages": [USER], **members})


def messages_of(*sent: dict[str, Any]) -> list[dict[str, Any]]:
    return parse(messages=list(sent)).request.messages


def parts_of(*parts: dict[str, Any]) -> Any:
    return messages_of({"role": "user", "content": list(parts)})[0]["content"]


def test_texts_alone_are_one_string() -> None:
    assert parts_of({"type": "text", "text": "a"}, {"type": "text", "text": "b"}) == "a\nb"


PARTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"type": "image", "source": {"type": "data", "value": "AA", "mimeType": "image/png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    ),
    (
        {"type": "video", "source": {"type": "url", "value": "https://a/b"}},
        {"type": "video_url", "video_url": {"url": "https://a/b"}},
    ),
    (
        {"type": "audio", "source": {"type": "data", "value": "AA", "mimeType": "audio/mpeg"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}},
    ),
    (
        {"type": "audio", "source": {"type": "data", "value": "AA", "mimeType": "audio/flac"}},
        {"type": "file", "file": {"file_data": "data:audio/flac;base64,AA"}},
    ),
    (
        {"type": "document", "metadata": {"filename": "a.pdf"},
         "source": {"type": "data", "value": "AA", "mimeType": "application/pdf"}},
        {"type": "file", "file": {"filename": "a.pdf",
                                  "file_data": "data:application/pdf;base64,AA"}},
    ),
    (
        {"type": "document", "source": {"type": "file", "value": "file-1", "provider": "x"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ),
    (
        {"type": "binary", "mimeType": "image/png", "data": "AA"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    ),
    (
        {"type": "binary", "mimeType": "text/csv", "url": "https://a/b", "filename": "b.csv"},
        {"type": "file", "file": {"filename": "b.csv", "file_data": "https://a/b"}},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("part", "expected"), PARTS)
def test_parts_are_those_of_chat_completions(
    part: dict[str, Any], expected: dict[str, Any]
) -> None:
    text = {"type": "text", "text": "see"}

    assert parts_of(text, part) == [text, expected]


def test_text_and_answered_calls_of_one_turn_are_one_message() -> None:
    unanswered = {**CALL, "id": "c2"}
    found = messages_of(
        USER,
        {"role": "reasoning", "content": "Hm.", "encryptedValue": '[{"type":"reasoning.text"}]'},
        {"role": "assistant", "content": "See."},
        {"role": "activity", "activityType": "x", "content": {}},
        {"role": "assistant", "toolCalls": [CALL, unanswered]},
        {"role": "tool", "toolCallId": "c1", "content": "", "error": "no"},
        {"role": "assistant", "content": "Done.", "encryptedValue": "of another server"},
    )

    assert found[1:] == [
        {
            "role": "assistant", "content": "See.", "tool_calls": [CALL],
            "reasoning_details": [{"type": "reasoning.text"}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "no"},
        {"role": "assistant", "content": "Done."},
    ]  # fmt: skip


def test_the_context_ends_the_first_system_message() -> None:
    context = [{"description": "the page", "value": "3"}]
    system = {"role": "system", "content": "Be brief."}
    added = parse(context=context).request.messages
    joined = parse(context=context, messages=[system, USER]).request.messages

    assert [each["role"] for each in added] == ["system", "user"]
    assert added[0]["content"].endswith("the page\n3")
    assert joined[0]["content"].startswith("Be brief.\n\n")
    assert len(joined) == 2


def test_tools_and_params_reach_the_model() -> None:
    tool = {"name": "f", "description": "", "parameters": {"type": "object"}}
    props = {"tailrace": {"params": {"temperature": 0}}, "other": 1}
    found = parse(tools=[tool], forwardedProps=props)

    function = {"name": "f", "parameters": {"type": "object"}}
    assert found.request.params == {
        "tools": [{"type": "function", "function": function}], "temperature": 0,
    }  # fmt: skip


def test_shared_members_come_from_the_props_and_the_thread_is_the_session() -> None:
    body = {
        "threadId": "t", "runId": "r", "messages": [USER],
        "forwardedProps": {"tailrace": {"priority": "batch", "model": "other"}},
    }  # fmt: skip
    parse_ag_ui("demo", body)

    assert (body["model"], body["session"], body["priority"]) == ("demo", "t", "batch")


def test_only_the_same_thread_and_run_have_the_same_key() -> None:
    keys = {
        parse(threadId=thread, runId=run).idempotency_key
        for thread, run in (("t", "r"), ("t r", "r"), ("t", "r r"), ("", "t r"), ("t", "r2"))
    }

    assert len(keys) == 5
    assert parse().idempotency_key in keys


def test_a_large_state_is_not_kept() -> None:
    assert parse(state={"a": 1}).request.dialect[STATE] == {"a": 1}
    assert STATE not in parse(state="x" * STATE_BYTES_MAX).request.dialect


def test_a_message_without_anything_for_a_model_is_refused() -> None:
    with pytest.raises(RequestError, match="nothing in them"):
        parse(messages=[{"role": "assistant", "toolCalls": [CALL]}])
