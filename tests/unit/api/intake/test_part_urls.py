"""URLs in prompts: checked in every place, and not in text for the model."""

from __future__ import annotations

from typing import Any

import pytest

from api.intake.part_urls import CHECKED_STRINGS_MAX, check_urls
from shared.config.settings import Settings
from shared.errors import RequestError
from shared.log.request import Request

LISTED = Settings(part_urls="images.example.org")
INSIDE = "http://169.254.169.254/"


def messages_with(*parts: Any, **members: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts), **members}]


def refusal(request: Request, settings: Settings = LISTED) -> str:
    with pytest.raises(RequestError) as caught:
        check_urls(request, settings)
    assert caught.value.code == "invalid_request"
    return caught.value.message


PARTS = [
    {"type": "image_url", "image_url": {"url": INSIDE}},
    {"type": "image_url", "image_url": INSIDE},
    {"type": "image_url", "image_url": {"url": "169.254.169.254"}},
    {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
    {"type": "video_url", "video_url": {"url": "https://images.example.org@evil.example/"}},
    {"type": "file", "file": {"file_data": INSIDE}},
    {"type": "file", "file": {"file_url": INSIDE}},
    {"type": "image", "image": INSIDE},
    {"type": "image", "source": {"type": "url", "imageUri": "gs://bucket/x"}},
    {"type": "image", "image": " \tht\ntp://169.254.169.254/"},
    {"type": "image", "image": "HTTP:169.254.169.254"},
    {"type": "image", "image": "http:\\\\169.254.169.254"},
    {"type": "input_audio", "input_audio": {"urls": ["data:,x", INSIDE]}},
]


@pytest.mark.parametrize("part", PARTS)
def test_a_url_in_a_part_must_name_a_listed_host(part: dict[str, Any]) -> None:
    text = {"type": "text", "text": "x"}

    assert refusal(Request(messages_with(text, part))).startswith("messages[0].content[1].")
    check_urls(Request(messages_with(text, part)), Settings())


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"a": [{"b": INSIDE}]}, "params.a[0].b"),
        ({"base_url": "evil"}, "params.base_url"),
        ({"tools": [{"type": "mcp", "server_url": INSIDE}]}, "params.tools[0].server_url"),
    ],
)
def test_a_url_in_params_must_name_a_listed_host(params: dict[str, Any], where: str) -> None:
    assert refusal(Request(messages_with(), params)).startswith(where + ":")


def test_members_beside_the_content_are_checked() -> None:
    assert refusal(Request(messages_with(images=[INSIDE]))).startswith("messages[0].images[0]:")


def test_text_for_the_model_is_not_checked() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": INSIDE}}
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "description": INSIDE}
    request = Request(
        [
            {"role": "user", "content": INSIDE},
            {"role": "user", "content": [{"type": "text", "text": INSIDE}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": INSIDE},
        ],
        {"stop": [INSIDE], "tools": [{"function": {"name": "f", "parameters": schema}}], "n": 1},
    )

    check_urls(request, Settings(part_urls="none"))


def test_data_urls_and_inline_data_need_no_listed_host() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    raw = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}

    check_urls(Request(messages_with(part, raw)), Settings(part_urls="none"))


def test_the_message_does_not_quote_the_url() -> None:
    assert "169" not in refusal(Request(messages_with(PARTS[0])))
    assert "data:" in refusal(Request(messages_with(PARTS[0])), Settings(part_urls="none"))


def test_a_url_is_found_at_any_depth() -> None:
    deep: Any = INSIDE
    for _ in range(5_000):
        deep = {"a": [deep]}

    assert refusal(Request(messages_with(), {"x": deep}))


def test_more_strings_than_the_limit_are_refused() -> None:
    many = {"x": ["a:"] * (CHECKED_STRINGS_MAX + 1)}

    assert str(CHECKED_STRINGS_MAX) in refusal(Request(messages_with(), many))
    check_urls(Request(messages_with(), many), Settings())
    check_urls(Request(messages_with(), {"x": ["a"] * 10 * CHECKED_STRINGS_MAX}), LISTED)
