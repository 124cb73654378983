"""Forms of deep-chat: bodies with files as the component sends them, and malformed bodies."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from api.dialects.deep_chat.form import FILES_MAX, read_form
from api.dialects.deep_chat.request import parse_deep_chat
from shared.errors import RequestError

BOUNDARY = "----WebKitFormBoundary0123456789abcdef"
HI = {"role": "user", "text": "What is this?"}
PNG = b"\x89PNG\r\n\x1a\n\r\n--not the boundary"
Part = tuple[str, bytes, dict[str, str]]


def field(name: str, value: str) -> Part:
    return name, value.encode(), {}


def file(content: bytes = PNG, media_type: str = "image/png", name: str = "a.png") -> Part:
    return "files", content, {"filename": name, "type": media_type}


def form(*parts: Part) -> bytes:
    body = b""
    for name, content, options in parts:
        filename = f'; filename="{options["filename"]}"' if "filename" in options else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n'
        if "type" in options:
            head += f"Content-Type: {options['type']}\r\n"
        body += head.encode() + b"\r\n" + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


async def read(raw: bytes, content_type: str = "") -> dict[str, Any]:
    content_type = content_type or f"multipart/form-data; boundary={BOUNDARY}"
    return await read_form(Headers({"content-type": content_type}), raw)


def picture(content: bytes = PNG, media_type: str = "image/png") -> dict[str, Any]:
    url = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def messages_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    return parse_deep_chat(body, grace_s=5).request.messages


async def test_pictures_belong_to_the_last_message_of_the_user() -> None:
    body = await read(form(
        file(), file(b"GIF", "image/gif"), field("model", "demo"),
        field("message1", json.dumps({"role": "ai", "text": "Hello"})),
        field("message2", json.dumps(HI)),
    ))  # fmt: skip
    assert body["model"] == "demo"
    assert messages_of(body) == [
        {"role": "assistant", "content": "Hello"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": HI["text"]},
                picture(),
                picture(b"GIF", "image/gif"),
            ],
        },
    ]


async def test_a_pdf_and_a_text_become_files_of_the_message() -> None:
    parts = [file(b"%PDF", "application/pdf", "a.pdf"), file(b"abc", "text/plain", "b.txt")]
    (message,) = messages_of(await read(form(*parts, field("message1", json.dumps(HI)))))

    assert message["content"][1:] == [
        {"type": "file", "file": {"filename": name, "file_data": f"data:{kind};base64,{data}"}}
        for name, kind, data in (
            ("a.pdf", "application/pdf", "JVBERg=="),
            ("b.txt", "text/plain", "YWJj"),
        )
    ]


@pytest.mark.parametrize("before", [[], [{"role": "ai", "text": "Hello"}]])
async def test_a_picture_without_text_becomes_a_message(before: list[Any]) -> None:
    parts = [field(f"message{number}", json.dumps(m)) for number, m in enumerate(before, 1)]
    *_, last = messages_of(await read(form(*parts, file())))
    assert last == {"role": "user", "content": [picture()]}


async def test_members_sent_as_strings_get_their_types_back() -> None:
    body = await read(form(
        field("message1", json.dumps(HI)), field("params", '{"temperature":0.5}'),
        field("metadata", '{"a":"b"}'), field("on_disconnect", "3.5"), field("session", "7"),
        field("messages", "[]"),
    ))  # fmt: skip
    members = {"params": {"temperature": 0.5}, "metadata": {"a": "b"}, "on_disconnect": 3.5}
    assert body == {**members, "session": "7", "messages": [HI]}
    assert (await read(form(field("on_disconnect", "cancel"))))["on_disconnect"] == "cancel"


async def test_an_empty_file_part_is_ignored() -> None:
    nothing_chosen: Part = ("files", b"", {"filename": "", "type": "application/octet-stream"})
    body = await read(form(field("message1", json.dumps(HI)), nothing_chosen))
    assert messages_of(body) == [{"role": "user", "content": HI["text"]}]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid_multipart"),
        (form()[:-8], "invalid_multipart"),
        (form(field("message1", "{}"), file())[:-10], "invalid_multipart"),
        (b"x" + form(file()), "invalid_multipart"),
        (form(*[file()] * (FILES_MAX + 1)), "invalid_multipart"),
        (form(file(name="a.zip", media_type="application/zip")), "unsupported_media_type"),
        (form(file(media_type="image/")), "unsupported_media_type"),
        (form(field("message1", "no json")), "invalid_json"),
        (form(field("message1", "NaN")), "invalid_json"),
        (form(field("params", "[object Object]")), "invalid_request"),
        (form(field("files", "x")), "invalid_request"),
    ],
)
async def test_a_wrong_form_is_refused_with_its_code(raw: bytes, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        await read(raw)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={BOUNDARY}; charset=punycode",
        f"multipart/form-data; boundary={'x' * 5_000}",
    ],
)
async def test_an_unreadable_content_type_is_400(content_type: str) -> None:
    with pytest.raises(RequestError) as caught:
        await read(form(field("message1", json.dumps(HI))), content_type)
    assert caught.value.status == 400


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 20))
async def test_any_bytes_are_read_as_a_form_or_refused_with_a_4xx(
    junk: bytes, at: int, gone: int
) -> None:
    whole = form(field("message1", json.dumps(HI)), field("params", "{}"), file())
    try:
        body = await read(whole[:at] + junk + whole[at + gone :])
        parse_deep_chat(body, grace_s=5)
    except RequestError as exc:
        assert 400 <= exc.status < 500
