"""The request body: which members win, and where the prefix goes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared.config.models import Model
from shared.log.request import Request
from workers.backends.contract import is_plain
from workers.backends.openai.request import encode_body

USER = {"role": "user", "content": "q"}


def body(
    messages: list[dict[str, Any]], prefix: str = "", style: str = "trailing", /, **params: Any
) -> dict[str, Any]:
    model = Model(name="m", base_url="http://x/v1", continue_style=style)
    encoded = encode_body(model, Request(messages, params), prefix)
    decoded: dict[str, Any] = msgspec.json.decode(encoded)
    return decoded


def test_params_are_passed_on() -> None:
    sent = body([USER], max_tokens=5, tools=[{"type": "function"}], top_k=3, stop=["x"])

    assert (sent["max_tokens"], sent["top_k"], sent["stop"]) == (5, 3, ["x"])
    assert sent["tools"] == [{"type": "function"}]


def test_params_cannot_change_reserved_members() -> None:
    sent = body([USER], model="x", messages=[], stream=False, n=4, stream_options=None)

    assert sent == {
        "model": "m",
        "messages": [USER],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


TEXT, PICTURE = {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"role": "assistant", "content": [], "tool_calls": [{}]}, None),
        ({"role": "assistant", "tool_calls": [{}]}, None),
        ({"role": "assistant", "content": None, "function_call": {}}, None),
        ({"role": "assistant", "content": "", "tool_calls": [{}]}, ""),
        ({"role": "tool", "content": None}, ""),
        ({"role": "tool", "content": []}, ""),
        ({"role": "function"}, ""),
        ({"role": "user", "content": [TEXT, PICTURE, TEXT]}, [TEXT, PICTURE, TEXT]),
    ],
)
def test_no_content_has_the_form_that_every_server_takes(
    message: dict[str, Any], content: Any
) -> None:
    assert body([USER, message])["messages"] == [USER, message | {"content": content}]


@pytest.mark.parametrize(
    ("style", "turn", "members"),
    [
        ("trailing", {}, {}),
        ("prefix", {"prefix": True}, {}),
        (
            "continue_final_message",
            {},
            {"continue_final_message": True, "add_generation_prompt": False},
        ),
    ],
)
def test_each_continue_style(style: str, turn: dict[str, Any], members: dict[str, Any]) -> None:
    sent = body([USER], "So f", style)

    assert sent["messages"] == [USER, {"role": "assistant", "content": "So f"} | turn]
    for name in ("continue_final_message", "add_generation_prompt"):
        assert sent.get(name) == members.get(name)


@pytest.mark.parametrize(
    ("style", "turn", "params"),
    [
        ("trailing", {}, {}),
        ("prefix", {"prefix": True}, {}),
        ("continue_final_message", {}, {"continue_final_message": True}),
    ],
)
def test_a_turn_that_the_client_began_is_extended(
    style: str, turn: dict[str, Any], params: dict[str, Any]
) -> None:
    begun = {"role": "assistant", "content": "Answer: "} | turn
    sent = body([USER, begun], "42", style, **params)

    assert sent["messages"] == [USER, begun | {"content": "Answer: 42"}]


def test_an_earlier_answer_is_not_changed() -> None:
    before = {"role": "assistant", "content": "old"}
    sent = body([USER, before], "new", "continue_final_message")

    assert sent["messages"] == [USER, before, {"role": "assistant", "content": "new"}]


def test_the_request_itself_is_not_changed() -> None:
    messages = [USER, {"role": "assistant", "content": "a"}]
    body(messages, "b", "trailing")

    assert messages == [USER, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("params", "plain"),
    [
        ({}, True),
        ({"temperature": 1, "tools": [{}]}, True),
        ({"response_format": {"type": "text"}}, True),
        ({"response_format": {"type": "json_object"}}, False),
        ({"guided_json": {}}, True),
        ({"guided_json": {"type": "object"}}, False),
        ({"logprobs": True}, False),
        ({"logprobs": False}, True),
    ],
)
def test_plain_answers(params: dict[str, Any], plain: bool) -> None:
    assert is_plain(params) is plain
