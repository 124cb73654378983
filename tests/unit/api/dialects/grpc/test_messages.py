"""Events, generations and requests as messages of tailrace.v1."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.grpc import fold
from api.dialects.grpc.generated import tailrace_pb2 as pb
from api.dialects.grpc.messages import (
    CONVERSION_ERRORS,
    event_message,
    generation_message,
    new_generation_fields,
    read_message,
)
from shared.errors import RequestError
from shared.log.events import Token, encode

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(TEXTS)
def test_a_token_put_together_from_bytes_is_what_protobuf_makes(text: str) -> None:
    raw = encode(Token(text))

    assert pb.Event.FromString(fold.protobuf_event("1-2", raw)) == event_message("1-2", raw)
    decoded = msgspec.json.decode(fold.json_event("1-2", raw))
    assert decoded["id"] == "1-2" and decoded["token"].get("text", "") == text


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"nonsense",
        b'{"text":"no type"}',
        b'{"type":["token"],"text":"x"}',
        b'{"type":"token","text":5}',
        b'{"type":"unheard_of","text":"x"}',
        b'{"type":"token","text":"\\ud800"}',
        b'{"type":"data","name":"n","value":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
        b'{"type":"usage","prompt_tokens":1e400}',
        b'{"type":"tool_call","index":99999999999}',
        b'{"type":"token","text":"x","extra":[1]}',
    ],
)
def test_of_an_entry_that_cannot_be_expressed_the_id_is_left(raw: bytes) -> None:
    assert event_message("3-4", raw) == pb.Event(id="3-4")
    assert pb.Event.FromString(fold.protobuf_event("3-4", raw)).id == "3-4"
    assert msgspec.json.decode(fold.json_event("3-4", raw))["id"] == "3-4"


def test_members_stand_where_the_page_says() -> None:
    raw = b'{"type":"tool_call","index":1,"name":"f","extra":{"a":1},"agent":"x"}'
    call = event_message("1-2", raw)
    text = event_message("1-3", b'{"type":"token","text":"t","extra":{"b":[2]},"agent":"y"}')

    assert (call.tool_call.extra["a"], call.agent) == (1, "x")  # type: ignore[attr-defined]
    assert (list(text.extra["b"]), text.agent, text.token.text) == ([2], "y", "t")  # type: ignore[attr-defined]


def test_a_native_type_that_is_no_kind_cannot_set_a_field_of_the_event() -> None:
    message = event_message("1-2", b'{"type":"id","id":"9-9"}')

    assert message == pb.Event(id="1-2")


def test_the_deepest_extra_of_a_log_can_be_read_by_clients() -> None:
    """Our logs have at most 32 levels, and clients' decoders take 100."""
    deep: Any = 1
    for _ in range(31):
        deep = {"a": deep}
    raw = msgspec.json.encode({"type": "token", "text": "x", "extra": deep})

    assert pb.Event.FromString(fold.protobuf_event("1-2", raw)).token.text == "x"


def test_a_request_becomes_the_members_of_a_native_body() -> None:
    request = pb.GenerateRequest(model="m", session="s", on_disconnect="2.5", deadline_s=3.5)
    request.params.update({"max_tokens": 64, "temperature": 0.5, "stop": ["a"], "seed": -1})
    request.metadata.update({"n": 1, "deep": {"x": [1, 2.5]}})
    first = request.messages.add(role="user")
    first.parts.extend([{"type": "text", "text": "Hi"}])
    second = request.messages.add(role="assistant")
    second.members.update({"tool_calls": [{"id": "c1"}]})
    request.messages.add(role="tool", content="42").members.update({"tool_call_id": "c1"})

    fields = new_generation_fields(request)

    assert fields == {
        "model": "m",
        "session": "s",
        "on_disconnect": 2.5,
        "deadline_s": 3.5,
        "params": {"max_tokens": 64, "temperature": 0.5, "stop": ["a"], "seed": -1},
        "metadata": {"n": 1, "deep": {"x": [1, 2.5]}},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "tool_calls": [{"id": "c1"}]},
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
        ],
    }
    assert isinstance(fields["params"]["max_tokens"], int)
    assert isinstance(fields["metadata"]["n"], int)


def test_members_of_a_message_cannot_replace_its_role() -> None:
    request = pb.GenerateRequest()
    request.messages.add(role="user", content="x").members.update({"role": "system"})

    assert new_generation_fields(request)["messages"] == [{"role": "user", "content": "x"}]


def test_words_of_on_disconnect_stay_words() -> None:
    assert new_generation_fields(pb.GenerateRequest(on_disconnect="cancel")) == {
        "on_disconnect": "cancel"
    }


def test_a_generation_shows_its_messages_and_metadata() -> None:
    fields = {
        "id": "gen_x", "status": "completed", "session": None, "created_at": 5, "ended_at": None,
        "metadata": msgspec.Raw(b'{"k":[1]}'), "text": "t", "error": None, "usage": None,
        "tool_calls": [{"index": 0, "call_id": "c", "name": "f", "arguments": "{}"}],
        "messages": [
            {"role": "user", "content": "Hi", "name": "Eve"},
            {"role": "assistant", "content": None},
        ],
        "events_url": "/v1/…",
    }  # fmt: skip
    message: Any = generation_message(fields)

    assert (message.id, message.ended_at, list(message.metadata["k"])) == ("gen_x", 0, [1])
    assert (message.messages[0].content, message.messages[0].members["name"]) == ("Hi", "Eve")
    assert message.tool_calls[0].name == "f"


def test_a_generation_with_a_foreign_value_is_shown_without_it() -> None:
    message: Any = generation_message({"id": "gen_x", "extra": [1], "text": "half \ud800"})

    assert message.id == "gen_x" and message.text.startswith("half ")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_an_error_for_the_client(raw: bytes) -> None:
    for is_json in (True, False):
        try:
            new_generation_fields(read_message(pb.GenerateRequest, raw, is_json=is_json))
        except ValueError as exc:
            assert "GenerateRequest" in str(exc)
        except RequestError as exc:
            assert is_json and exc.code == "invalid_json"


@pytest.mark.parametrize(
    "text", ["[]", "5", '"x"', "null", '{"prompt":5}', "{", '{"params":[]}', "[" * 3_000]
)
def test_json_of_another_shape_is_an_error_for_the_client(text: str) -> None:
    with pytest.raises((ValueError, RequestError), match="GenerateRequest|JSON|nested"):
        read_message(pb.GenerateRequest, text.encode(), is_json=True)


def test_numbers_that_json_does_not_have_are_an_error() -> None:
    request = pb.GenerateRequest(prompt="x")
    request.params.update({"temperature": float("inf")})

    with pytest.raises(CONVERSION_ERRORS):
        new_generation_fields(request)
