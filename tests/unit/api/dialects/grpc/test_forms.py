"""The form of each call, and what its requests, answers and errors look like."""

from __future__ import annotations

import base64

import msgspec
import pytest

from api.dialects.grpc.forms import FORMS, NATIVE, choose_form, form_of, shape_of
from api.dialects.grpc.wire import frame
from api.transport.extensions import GRPC_CALL
from shared.errors import NotFound, RequestError

STREAMS = {name for name in FORMS if name.startswith(("application/grpc", "application/connect"))}
CALLS = {name for name in FORMS if not name.startswith("application/connect")}
BODY = b"message \x00\xff"
FRAMED = frame(BODY)


def scope_of(content_type: str, **extensions: object) -> dict[str, object]:
    headers = [(b"content-type", content_type.encode())]
    return {"type": "http", "headers": headers, "extensions": extensions}


@pytest.mark.parametrize("name", FORMS)
def test_a_content_type_fits_the_methods_of_its_kind(name: str) -> None:
    for is_stream, names in ((True, STREAMS), (False, CALLS)):
        if name in names:
            assert choose_form(scope_of(f"{name.upper()}; charset=utf-8"), is_stream=is_stream)
        else:
            with pytest.raises(RequestError) as caught:
                choose_form(scope_of(name), is_stream=is_stream)
            assert caught.value.status == 415


def test_native_grpc_is_sent_to_its_own_port() -> None:
    with pytest.raises(RequestError, match="--grpc-port"):
        choose_form(scope_of("application/grpc"), is_stream=True)
    assert form_of(scope_of("application/grpc", **{GRPC_CALL: True})) is NATIVE


@pytest.mark.parametrize("name", FORMS)
def test_the_message_of_a_request_is_found(name: str) -> None:
    form = FORMS[name]
    body = FRAMED if form.is_framed else BODY
    body = base64.b64encode(body) if form.is_text else body

    assert form.message_in(body) == BODY


@pytest.mark.parametrize("cut", range(1, len(FRAMED) - 1))
def test_base64_in_pieces_that_are_padded_each_is_one_message(cut: int) -> None:
    text = base64.b64encode(FRAMED[:cut]) + base64.b64encode(FRAMED[cut:])

    assert FORMS["application/grpc-web-text"].message_in(text) == BODY


@pytest.mark.parametrize(
    "body",
    [
        b"",
        FRAMED[:3],
        FRAMED[:-1],
        FRAMED + b"\0",
        FRAMED + FRAMED,
        b"\xff" * 20,
        frame(BODY, 2),
        frame(BODY, 0x80),
    ],
)
def test_what_is_not_one_frame_is_refused(body: bytes) -> None:
    for name in ("application/grpc-web", "application/connect+proto"):
        with pytest.raises(RequestError) as caught:
            FORMS[name].message_in(body)
        assert caught.value.code == "invalid_protobuf"


def test_a_compressed_message_is_refused() -> None:
    with pytest.raises(RequestError, match="without compression"):
        FORMS["application/grpc-web"].message_in(frame(BODY, 1))


@pytest.mark.parametrize("text", [b"@@@@", b"AAA", b"A===", b"=", b"AAAA=AAA"])
def test_what_is_no_base64_is_refused(text: bytes) -> None:
    with pytest.raises(RequestError):
        FORMS["application/grpc-web-text"].message_in(text)


def test_an_error_has_the_form_of_its_call() -> None:
    error = NotFound()
    web = shape_of(scope_of("application/grpc-web"))(error)
    text = shape_of(scope_of("application/grpc-web-text"))(error)
    stream = shape_of(scope_of("application/connect+json"))(error)
    call = shape_of(scope_of("application/proto"))(error)
    other = shape_of(scope_of("text/plain"))(error)

    assert (web.status, web.body[0]) == (200, 0x80)
    assert b"grpc-status: 5\r\n" in web.body
    assert base64.b64decode(text.body) == web.body
    assert (stream.status, stream.body[0]) == (200, 2)
    assert (call.status, call.content_type) == (404, b"application/json")
    assert msgspec.json.decode(call.body)["code"] == "not_found"
    assert msgspec.json.decode(other.body)["error"]["code"] == "not_found"
