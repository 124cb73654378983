"""Messages of a WebSocket server: the usual shape, other shapes, errors and close codes."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest

from shared.config.models import Model, parse_models
from shared.errors import BackendError, ConfigurationError
from shared.log.events import Reasoning, Token, ToolCall, Usage
from shared.log.request import Request
from workers.backends.contract import BackendItem, Finish
from workers.backends.websocket.reader import MessageReader
from workers.backends.websocket.request import encode_message


def model_of(members: str = "") -> Model:
    table = f'[models.m]\nbackend = "websocket"\nbase_url = "ws://h/"\n{members}'
    return parse_models(tomllib.loads(table), "models.toml")["m"]


def read(*messages: dict[str, Any] | bytes, members: str = "") -> list[BackendItem]:
    reader = MessageReader(model_of(members).options.get("answer"), seed="s")
    items: list[BackendItem] = []
    for message in messages:
        raw = message if isinstance(message, bytes) else msgspec.json.encode(message)
        reader.feed(raw, items)
    assert reader.is_done
    return items


def failure_of(*messages: dict[str, Any] | bytes, members: str = "") -> BackendError:
    with pytest.raises(BackendError) as caught:
        read(*messages, members=members)
    return caught.value


def test_the_usual_shape() -> None:
    call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
    items = read(
        {"status": "queued"},
        {"reasoning": "hm"},
        {"token": "Hel"},
        {"token": ""},
        {"token": "lo", "usage": {"prompt_tokens": 2, "completion_tokens": 3}},
        {"tool_calls": [call]},
        {"done": True},
    )

    assert items == [
        Reasoning("hm"),
        Token("Hel"),
        Token("lo"),
        ToolCall(0, "call_s_0", "f", "{}"),
        Usage(2, 3, 5),
        Finish("tool_calls"),
    ]


@pytest.mark.parametrize(
    ("last", "finish"),
    [
        ({"done": True}, Finish("stop")),
        ({"done": "length"}, Finish("length")),
        ({"done": True, "finish_reason": "SAFETY"}, Finish("content_filter")),
        ({"done": {"took_ms": 5}}, Finish("stop")),
        ({"done": 1, "finish_reason": "tired"}, Finish("stop", "tired")),
    ],
    ids=str,
)
def test_the_end_of_an_answer(last: dict[str, Any], finish: Finish) -> None:
    assert read({"token": "a"}, {"token": "b", "done": False}, last)[2:] == [finish]


def test_a_character_in_two_messages_is_joined() -> None:
    assert read(b'{"token":"\\ud83d"}', b'{"token":"\\ude80"}', {"done": True})[:-1] == [
        Token("🚀")
    ]


WEB_UI = """
answer = {token = "text", done = "event=stream_end"}
request = {prompt = "$prompt", options = {model = "$model", chat = ["$messages"]}, max = "$params"}
"""


def test_the_shape_of_another_server() -> None:
    items = read(
        {"event": "text_stream", "message_num": 0, "text": "Hi"},
        {"event": "text_stream", "message_num": 1, "text": ""},
        {"event": "stream_end", "message_num": 2},
        members=WEB_UI,
    )

    assert items == [Token("Hi"), Finish("stop")]


def test_parts_at_the_end_of_a_path() -> None:
    members = """
[models.m.answer]
token = "data.choices.0.delta"
finish_reason = "data.choices.0.why"
done = "type=end"
"""
    items = read(
        {"type": "piece", "data": {"choices": [{"delta": "Hi"}]}},
        {"type": "piece", "data": {"choices": []}},
        {"type": "piece", "data": {"choices": [{"why": "length"}]}},
        {"type": "end"},
        members=members,
    )

    assert items == [Token("Hi"), Finish("length")]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("out of memory", "out of memory"),
        ({"message": "engine died", "code": 500}, "engine died"),
        (True, "an error without a message"),
    ],
    ids=str,
)
def test_an_error_ends_the_answer(error: Any, message: str) -> None:
    failure = failure_of({"token": "a"}, {"error": error})

    assert (failure.code, failure.retryable) == ("upstream_error", True)
    assert message in failure.message


def test_a_flag_for_an_error_has_its_message_beside_it() -> None:
    assert "out of memory" in failure_of({"error": True, "message": "out of memory"}).message


@pytest.mark.parametrize("value", [None, "", False, []])
def test_an_empty_error_is_none(value: Any) -> None:
    assert read({"token": "a", "error": value}, {"done": True}) == [Token("a"), Finish("stop")]


def test_an_error_that_names_the_length_of_the_prompt_is_the_clients_to_mend() -> None:
    failure = failure_of({"error": {"message": "prompt is too long", "code": 400}})

    assert failure.upstream is not None and failure.upstream.code == "context_length_exceeded"


@pytest.mark.parametrize("message", [b"hello", b"[1]", b'"a"', b"\xff", b'{"token":"\xff"}'])
def test_a_message_that_is_no_object_fails_the_attempt(message: bytes) -> None:
    assert failure_of(message).code == "upstream_error"


# Code: code of the failure, retryable, is_outage
CLOSES = {
    1000: ("upstream_error", True, False),
    None: ("upstream_error", True, False),
    1001: ("upstream_error", True, True),
    1008: ("upstream_refused", False, False),
    1009: ("upstream_refused", False, False),
    1011: ("upstream_error", True, False),
    1012: ("upstream_error", True, True),
    1013: ("upstream_error", True, True),
    3000: ("upstream_error", True, False),
    4000: ("upstream_error", True, False),
    4401: ("upstream_refused", False, False),
    4429: ("upstream_error", True, False),
    4503: ("upstream_error", True, True),
}


@pytest.mark.parametrize("code", CLOSES)
def test_a_close_before_the_end_is_a_failure(code: int | None) -> None:
    with pytest.raises(BackendError) as caught:
        MessageReader().feed_close(code, "as told", [])

    error = caught.value
    assert (error.code, error.retryable, error.is_outage) == CLOSES[code]
    assert ("as told" in error.message) is (code != 4401)


def test_a_close_can_be_the_end() -> None:
    paths = model_of('answer = {done = "close"}').options["answer"]
    items: list[BackendItem] = []
    reader = MessageReader(paths)
    reader.feed(b'{"token":"a","done":true}', items)
    assert not reader.is_done
    reader.feed_close(1000, "", items)

    assert items == [Token("a"), Finish("stop")]
    with pytest.raises(BackendError):
        MessageReader(paths).feed_close(1011, "", [])


# Requests

CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}]


def message_of(members: str = "", prefix: str = "", **params: Any) -> dict[str, Any]:
    raw = encode_message(model_of(members), Request(CHAT, params), prefix)
    return msgspec.json.decode(raw)  # type: ignore[no-any-return]


def test_the_usual_message() -> None:
    assert message_of(top_k=3, model="x") == {"messages": CHAT, "model": "m", "top_k": 3}


def test_a_partial_answer_is_the_last_turn() -> None:
    assert message_of(prefix="Hel")["messages"][2:] == [{"role": "assistant", "content": "Hel"}]


def test_a_message_by_the_models_file() -> None:
    assert message_of(WEB_UI, top_k=3) == {
        "prompt": "hello",
        "options": {"model": "m", "chat": [CHAT]},
        "max": {"top_k": 3},
    }


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ('request = {a = "b"}', 'models.m.request: must have "$messages" or "$prompt"'),
        ('request = {a = "$prompt", b = "$promt"}', "models.m.request: '$promt' is none of"),
        ("request = 3", "models.m.request: must be a table"),
        ('answer = {tokens = "x"}', "models.m.answer: unknown member 'tokens'"),
        ("answer = {token = 3}", "models.m.answer.token: must be a path"),
        ('answer = {token = "a..b"}', "models.m.answer.token: must have names with dots"),
        ('base_url = "http://h"', "must start with ws:// or wss://"),
    ],
)
def test_a_mistake_in_the_models_file_is_named(members: str, words: str) -> None:
    url = "" if "base_url" in members else 'base_url = "ws://h"'
    table = f'[models.m]\nbackend = "websocket"\n{url}\n{members}'
    with pytest.raises(ConfigurationError) as caught:
        parse_models(tomllib.loads(table), "models.toml")

    assert words in str(caught.value)
