"""Request bodies: read within bounds; every body gives a generation or a 4xx."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.types import Message

from api.body_room import BodyRoom
from api.intake import arriving_body
from api.intake.arriving_body import read_body
from api.intake.body import parse_new_generation
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import RequestError
from shared.log.request import decode_request
from shared.queue.accept import NewGeneration

MODELS = {"first": Model(name="first"), "second": Model(name="second")}
SETTINGS = Settings()


def parse(fields: Any, key: str = "") -> NewGeneration:
    raw = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return parse_new_generation(
        raw, owner="alice", models=MODELS, settings=SETTINGS, idempotency_key=key
    )


def refusal(fields: Any, key: str = "") -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(fields, key)
    return caught.value


# Reading


class Client:
    """Sends a body in pieces, and counts the pieces that were received."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.taken = 0

    async def receive(self) -> Message:
        piece = self.pieces[self.taken]
        self.taken += 1
        return {
            "type": "http.request",
            "body": piece,
            "more_body": self.taken < len(self.pieces),
        }


def headers(content_type: str | None = "application/json", **more: str) -> Headers:
    given_headers = {} if content_type is None else {"content-type": content_type}
    return Headers({**given_headers, **{k.replace("_", "-"): v for k, v in more.items()}})


async def test_a_body_is_read_in_pieces() -> None:
    client = Client(b"{", b"}", b"")

    assert await read_body(headers(), client.receive, bytes_max=2) == b"{}"


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "application/json ;"]
)
async def test_json_with_parameters_is_json(content_type: str) -> None:
    assert await read_body(headers(content_type), Client(b"1").receive, bytes_max=9) == b"1"


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/jsonp", "json"])
async def test_another_content_type_is_415(content_type: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        await read_body(headers(content_type), Client(b"{}").receive, bytes_max=9)

    assert caught.value.status == 415


async def test_a_body_with_a_too_large_content_length_is_not_read() -> None:
    client = Client(b"{}")
    with pytest.raises(RequestError) as caught:
        await read_body(headers(content_length="10"), client.receive, bytes_max=9)

    assert caught.value.status == 413
    assert client.taken == 0


@pytest.mark.parametrize("announced", ["", "3", "9" * 5000 + "x", "-1", "²"])
async def test_reading_stops_when_a_body_grows_too_large(announced: str) -> None:
    client = Client(b"12345", b"12345", b"12345")
    with pytest.raises(RequestError) as caught:
        await read_body(
            headers(content_length=announced.encode().decode("latin-1")),
            client.receive,
            bytes_max=9,
        )

    assert caught.value.status == 413
    assert client.taken == 2


async def test_a_slow_body_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving_body, "BODY_S", 0.0)

    async def receive() -> Message:
        import anyio

        await anyio.sleep_forever()
        raise AssertionError

    with pytest.raises(RequestError) as caught:
        await read_body(headers(), receive, bytes_max=9)

    assert caught.value.status == 408


async def test_a_body_that_is_given_up_is_503_and_its_bytes_are_free() -> None:
    room = BodyRoom(4 * 2**20, 4 * 2**20)
    is_waiting = asyncio.Event()

    async def receive() -> Message:
        if room.used:
            is_waiting.set()
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"x" * 3 * 2**20, "more_body": True}

    async with room.body() as hold:
        reading = asyncio.create_task(read_body(headers(), receive, bytes_max=4 * 2**20, hold=hold))
        await is_waiting.wait()
        hold.give_up()
        with pytest.raises(RequestError) as caught:
            await reading

    assert (caught.value.status, caught.value.code) == (503, "bodies_full")
    assert room.used == 0


async def test_the_bytes_of_an_encoded_body_count_decoded() -> None:
    room = BodyRoom(2**20, 2**20)
    client = Client(gzip.compress(b'"' + b"x" * 2**21 + b'"'))

    with pytest.raises(RequestError) as caught:
        async with room.body() as hold:
            await read_body(
                headers(content_encoding="gzip"), client.receive, bytes_max=2**23, hold=hold
            )

    assert caught.value.code == "bodies_full"
    assert room.used == 0


# Members


def test_a_prompt_is_one_user_message() -> None:
    new = parse({"prompt": "Hi"})

    assert decode_request(new.request).messages == [{"role": "user", "content": "Hi"}]
    assert (new.owner, new.model, new.session, new.metadata) == ("alice", "first", "", b"{}")
    assert (new.priority, new.grace_s, new.idempotency_key) == ("interactive", None, "")


def test_messages_and_params_are_not_changed() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "ann"},
        {"role": "assistant", "tool_calls": [{"id": "1"}], "content": None},
        {"role": "tool", "tool_call_id": "1", "content": ""},
    ]
    request = decode_request(parse({"messages": messages, "params": {"stop": ["x"]}}).request)

    assert request.messages == messages
    assert request.params == {"stop": ["x"]}


def test_all_other_members_are_read() -> None:
    new = parse(
        {
            "prompt": "x",
            "model": "second",
            "session": "Käse/1",
            "metadata": {"a": [1]},
            "priority": "batch",
            "on_disconnect": 2.5,
            "unknown": {"is": "ignored"},
        },
        key="k-1",
    )

    assert (new.model, new.session, new.metadata) == ("second", "Käse/1", b'{"a":[1]}')
    assert (new.priority, new.grace_s, new.idempotency_key) == ("batch", 2.5, "k-1")


@pytest.mark.parametrize(
    ("value", "grace_s"), [("continue", None), ("cancel", 0.0), (0, 0.0), (30, 30.0)]
)
def test_on_disconnect(value: object, grace_s: float | None) -> None:
    assert parse({"prompt": "x", "on_disconnect": value}).grace_s == grace_s


def test_the_order_of_members_does_not_matter_to_a_repeat() -> None:
    first = {"prompt": "x", "metadata": {"a": {"c": 1, "d": 2}, "b": 3}}
    other = {"metadata": {"b": 3, "a": {"d": 2, "c": 1}}, "prompt": "x"}

    assert parse(first).body_digest == parse(other).body_digest
    assert parse(first).body_digest != parse(first | {"metadata": {"a": 1}}).body_digest


def test_null_means_the_same_as_absent() -> None:
    names = ("model", "params", "session", "metadata", "priority", "on_disconnect", "messages")

    assert parse({"prompt": "x", **dict.fromkeys(names)}) == parse({"prompt": "x"})


@pytest.mark.parametrize(
    "fields",
    [
        [],
        "prompt",
        None,
        7,
        {},
        {"prompt": "x", "messages": [{"role": "user", "content": "y"}]},
        {"prompt": ""},
        {"prompt": 7},
        {"prompt": ["x"]},
        {"messages": []},
        {"messages": "x"},
        {"messages": ["x"]},
        {"messages": [{}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "king", "content": "x"}]},
        {"messages": [{"role": ["user"], "content": "x"}]},
        {"messages": [{"role": {"a": 1}, "content": "x"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user", "content": []}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
        {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
        {"messages": [{"role": "assistant", "content": None}]},
        {"prompt": "x", "model": 7},
        {"prompt": "x", "model": ["first"]},
        {"prompt": "x", "params": []},
        {"prompt": "x", "params": {"stream": False}},
        {"prompt": "x", "params": {"model": "second"}},
        {"prompt": "x", "params": {"n": 2}},
        {"prompt": "x", "session": 7},
        {"prompt": "x", "session": "s" * 129},
        {"prompt": "x", "session": "a\nb"},
        {"prompt": "x", "session": "a\x85b"},
        {"prompt": "x", "metadata": []},
        {"prompt": "x", "metadata": {"a": "x" * 16_384}},
        {"prompt": "x", "priority": "high"},
        {"prompt": "x", "priority": ["batch"]},
        {"prompt": "x", "priority": {}},
        {"prompt": "x", "on_disconnect": "later"},
        {"prompt": "x", "on_disconnect": True},
        {"prompt": "x", "on_disconnect": -1},
        {"prompt": "x", "on_disconnect": 1e300},
        {"prompt": "x", "on_disconnect": []},
    ],
)
def test_wrong_fields_are_422(fields: object) -> None:
    error = refusal(fields)

    assert (error.status, error.code) == (422, "invalid_request")


def test_an_unknown_model_is_404() -> None:
    error = refusal({"prompt": "x", "model": "third"})

    assert (error.status, error.code) == (404, "model_not_found")


def test_a_lone_surrogate_anywhere_is_422() -> None:
    assert refusal(rb'{"prompt":"x","unknown":"\ud800"}').status == 422


def test_a_body_beyond_the_limit_is_413() -> None:
    assert refusal(b'"' + b"x" * SETTINGS.body_bytes_max + b'"').status == 413


@pytest.mark.parametrize("session", ["s" * 128, "\U0001f600" * 128])
def test_a_session_may_have_128_characters(session: str) -> None:
    assert parse({"prompt": "x", "session": session}).session == session


def test_metadata_may_have_16_kib() -> None:
    assert len(parse({"prompt": "x", "metadata": {"a": "x" * 16_376}}).metadata) == 16_384


@pytest.mark.parametrize("key", ["a b", "ä", "x" * 256, "\x7f", "a\n"])
def test_a_malformed_idempotency_key_is_400(key: str) -> None:
    assert refusal({"prompt": "x"}, key).status == 400


# The digest


def test_the_digest_is_of_the_meaning() -> None:
    first = parse(b'{"prompt":"x","params":{"a":1,"b":2},"other":1}')
    second = parse(b'{ "params": {"b":2,"a":1}, "messages":[{"content":"x","role":"user"}] }')

    assert first.body_digest == second.body_digest != ""


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "y"},
        {"model": "second"},
        {"session": "s"},
        {"metadata": {"a": 1}},
        {"priority": "batch"},
        {"on_disconnect": 0},
        {"params": {"top_p": 1}},
    ],
)
def test_every_part_changes_the_digest(change: dict[str, object]) -> None:
    assert parse({"prompt": "x"}).body_digest != parse({"prompt": "x", **change}).body_digest


# Fuzz

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**65) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "tool_calls", "n"]) | st.text(),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "tool", "x"]) | VALUES})
    | st.fixed_dictionaries({"role": st.just("assistant"), "content": VALUES})
)
NAMES = ("prompt", "messages", "model", "params", "session", "metadata", "priority")
BODIES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(NAMES, VALUES),
        "prompt": st.text(),
        "messages": MESSAGES,
        "model": st.sampled_from(["first", "nowhere"]) | VALUES,
        "on_disconnect": VALUES,
        "priority": st.sampled_from(["batch"]) | VALUES,
    },
)


def outcomes(raw: bytes) -> Iterator[NewGeneration | RequestError]:
    try:
        yield parse(raw)
    except RequestError as exc:
        yield exc


@given(BODIES.map(lambda fields: json.dumps(fields).encode()) | st.binary(max_size=100))
def test_any_body_gives_a_generation_or_a_4xx(raw: bytes) -> None:
    for outcome in outcomes(raw):
        if isinstance(outcome, RequestError):
            assert 400 <= outcome.status < 500
        else:
            assert decode_request(outcome.request).messages
