"""Errors that a server sends with the status 200: each is quoted, however its bytes are cut."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from shared.errors import BackendError, Refusal
from shared.log.events import Token
from workers.backends.contract import SetUpFault
from workers.backends.openai.reader import ChatReader

BODY_BYTES_MAX = 2**20
PIECE = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


class Row(NamedTuple):
    """Attributes:
    message: of the failure.
    upstream: None: the failure can pass, and is tried again.
    """

    raw: bytes
    message: str
    upstream: Refusal | None = None


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def document(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


TOO_LONG = {
    "error": {"code": 400, "message": "too many", "type": "exceed_context_size_error",
              "n_prompt_tokens": 300, "n_ctx": 256}
}  # fmt: skip
TOLD = "too many (300 tokens in the prompt, 256 in the context)"
REFUSED = Refusal(TOLD, 400, "context_length_exceeded", "exceed_context_size_error")
ROWS = {
    "an error as the only event": Row(event(TOO_LONG) + DONE, TOLD, REFUSED),
    "an error as the whole body": Row(document(TOO_LONG), TOLD, REFUSED),
    "an error event": Row(
        b"event: error\n" + event({"type": "error", "error": {
            "type": "invalid_request_error", "message": "no"}}),
        "no", Refusal("no", 400, None, "invalid_request_error"),
    ),
    "an error event that can pass": Row(
        b"event: error\n" + event({"type": "error", "error": {
            "type": "overloaded_error", "message": "Overloaded"}}),
        "Overloaded",
    ),
    "Gemini's array": Row(
        document([{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}]),
        "no", Refusal("no", 400, None, "INVALID_ARGUMENT"),
    ),
    "an array as an event": Row(
        event([{"error": {"code": 404, "message": "no", "status": "NOT_FOUND"}}]),
        "no", Refusal("no", 404, None, "NOT_FOUND"),
    ),
    "an array of something else": Row(document([1, 2]), "the backend sent broken data"),
    "code and msg": Row(document({"code": 1002, "msg": "busy"}), "busy"),
    "code and msg of a 4xx": Row(
        event({"code": 400, "msg": "no", "data": None}), "no", Refusal("no", 400)
    ),
    "code and message": Row(
        document({"code": "InvalidParameter", "message": "no", "request_id": "1"}),
        "no", Refusal("no", 400, "InvalidParameter"),
    ),
    "base_resp": Row(
        document({"choices": None, "base_resp": {"status_code": 2013, "status_msg": "no"}}),
        "no", Refusal("no", 400, "2013"),
    ),
    "base_resp beside an empty choice": Row(
        event({"choices": [{"delta": {}}], "base_resp": {"status_code": 1008,
                                                         "status_msg": "no balance"}}),
        "no balance", Refusal("no balance", 429, "1008"),
    ),
    "base_resp that can pass": Row(
        document({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}), "rate limit"
    ),
    "an error of the server": Row(
        document({"error": {"message": "CUDA error", "type": "server_error", "code": 500}}),
        "CUDA error",
    ),
    "an HTML page": Row(
        b"<!DOCTYPE html>\n<html><head>\n<title>Wartung &amp; Pause</title></head></html>",
        "the backend answered with an HTML page: Wartung & Pause",
    ),
    "plain text": Row(
        b"Internal Server Error\n",
        "the backend's answer has no choices: Internal Server Error",
    ),
    "an object of another kind": Row(
        document({"response": "hello", "done": True}),
        "the backend's answer has no choices: {",
    ),
    "nothing": Row(b"", "the backend's answer is empty"),
    "white space": Row(b" \n\n", "the backend's answer is empty"),
    "no event but [DONE]": Row(DONE, "the backend said [DONE] without a finish_reason"),
}  # fmt: skip


def failure_of(*pieces: bytes) -> BackendError:
    reader = ChatReader(line_bytes_max=65_536, body_bytes_max=BODY_BYTES_MAX)
    items = [item for piece in pieces for item in reader.feed(piece)]
    items += reader.feed_eof()
    assert items == []
    assert reader.failure is not None
    return reader.failure


@pytest.mark.parametrize("name", ROWS)
def test_an_error_with_the_status_200_is_quoted(name: str) -> None:
    row = ROWS[name]
    for size in (1, 7, len(row.raw) or 1):
        error = failure_of(*(row.raw[at : at + size] for at in range(0, len(row.raw), size)))

        assert error.message.startswith(row.message)
        assert error.upstream == row.upstream
        assert error.retryable is (row.upstream is None)
        assert error.code == ("upstream_error" if error.retryable else "upstream_refused")


def test_a_key_that_a_server_refuses_with_the_status_200_is_a_fault_of_our_set_up() -> None:
    body = {"base_resp": {"status_code": 2049, "status_msg": "invalid api key k-12"}}
    error = failure_of(document(body))

    assert isinstance(error, SetUpFault)
    assert (error.code, error.upstream) == ("upstream_refused", None)
    assert "k-12" not in error.message and "k-12" in error.advice


@pytest.mark.parametrize("head", [b"<html>", b"no event\n", b'{"detail":"'])
def test_a_long_body_that_is_no_answer_is_quoted_in_part(head: bytes) -> None:
    error = failure_of(head, b"word " * 100_000)

    assert len(error.message) <= 600


def test_a_refusal_in_mid_answer_ends_the_answer_with_it() -> None:
    reader = ChatReader(line_bytes_max=65_536, body_bytes_max=BODY_BYTES_MAX)
    items = reader.feed(PIECE * 3 + event(TOO_LONG) + DONE)

    assert items == [Token("a")] * 3
    assert reader.failure is not None and reader.failure.upstream == REFUSED


def test_an_answer_that_breaks_off_is_not_quoted() -> None:
    reader = ChatReader(line_bytes_max=65_536, body_bytes_max=BODY_BYTES_MAX)
    reader.feed(PIECE)
    reader.feed_eof()

    assert reader.failure is not None
    assert reader.failure.message == "the backend's answer broke off without a finish_reason"
