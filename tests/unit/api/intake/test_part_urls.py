"""URLs in prompts: found wherever they stand, and text is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from api.intake.part_urls import LOOKED_AT_MAX, check_urls
from shared.config.settings import Settings
from shared.errors import RequestError
from shared.log.request import Request

LISTED = Settings(part_urls="images.example.org")
INSIDE = "http://169.254.169.254/"


def said(*parts: Any, **members: Any) -> list[dict[str, Any]]:
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
def test_a_part_may_name_no_other_host(part: dict[str, Any]) -> None:
    text = {"type": "text", "text": "x"}

    assert refusal(Request(said(text, part))).startswith("messages[0].content[1].")
    check_urls(Request(said(text, part)), Settings())


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"a": [{"b": INSIDE}]}, "params.a[0].b"),
        ({"base_url": "evil"}, "params.base_url"),
        ({"tools": [{"type": "mcp", "server_url": INSIDE}]}, "params.tools[0].server_url"),
    ],
)
def test_so_may_no_parameter(params: dict[str, Any], where: str) -> None:
    assert refusal(Request(said(), params)).startswith(where + ":")


def test_a_member_beside_the_content_is_looked_at() -> None:
    assert refusal(Request(said(images=[INSIDE]))).startswith("messages[0].images[0]:")


def test_text_is_text() -> None:
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


def test_what_holds_its_content_itself_needs_no_list() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    raw = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}

    check_urls(Request(said(part, raw)), Settings(part_urls="none"))


def test_the_message_names_no_url() -> None:
    assert "169" not in refusal(Request(said(PARTS[0])))
    assert "data:" in refusal(Request(said(PARTS[0])), Settings(part_urls="none"))


def test_how_deep_it_stands_does_not_matter() -> None:
    deep: Any = INSIDE
    for _ in range(5_000):
        deep = {"a": [deep]}

    assert refusal(Request(said(), {"x": deep}))


def test_more_than_is_looked_at_is_refused() -> None:
    many = {"x": ["a:"] * (LOOKED_AT_MAX + 1)}

    assert str(LOOKED_AT_MAX) in refusal(Request(said(), many))
    check_urls(Request(said(), many), Settings())
    check_urls(Request(said(), {"x": ["a"] * 10 * LOOKED_AT_MAX}), LISTED)
