"""How the messages of deep-chat are read."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.deep_chat.request import parse_deep_chat
from shared.errors import RequestError


def test_a_history_is_read_with_the_roles_that_models_know() -> None:
    messages = [
        {"role": "system", "text": "Be short."},
        {"role": "user", "text": "Hi"},
        {"role": "status", "text": "parsing 3/50"},
        {"role": "ai", "html": "<b>Hello</b>"},
        {"error": "it broke"},
        {"role": "ai", "files": [{"src": "x", "type": "any"}]},
        {"role": "anna", "text": "And I?"},
    ]
    parsed = parse_deep_chat({"messages": messages, "params": {"max_tokens": 5}}, grace_s=7)
    assert parsed.request.messages == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<b>Hello</b>"},
        {"role": "user", "content": "And I?"},
    ]
    assert (parsed.request.params, parsed.grace_s) == ({"max_tokens": 5}, 7)


def test_a_picture_of_the_user_becomes_a_content_part() -> None:
    picture = {"src": "data:image/png;base64,AA", "type": "image", "name": "a.png"}
    message = {"role": "user", "text": "What is it?", "files": [picture, {"type": "any"}]}
    (read,) = parse_deep_chat({"messages": [message]}, grace_s=0).request.messages
    assert read["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": {}},
        {"messages": ["Hi"]},
        {"messages": [{}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "text": ""}]},
        {"messages": [{"role": "user", "text": 7}]},
        {"messages": [{"role": 7, "text": "x"}]},
        {"messages": [{"role": "user", "text": "x", "files": {}}]},
        {"messages": [{"role": "user", "text": "x", "files": ["a"]}]},
        {"messages": [{"role": "status", "text": "x"}]},
        {"messages": [{"text": "x"}], "params": []},
    ],
)
def test_a_wrong_body_is_422(body: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        parse_deep_chat(body, grace_s=0)
    assert caught.value.status == 422
