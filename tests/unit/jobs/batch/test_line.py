"""A line is read as the API reads a request; some members are fixed for lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.batch.line import Query, Terms, line_generation_id, read_query
from shared.config.models import DEMO
from shared.config.settings import Settings
from shared.log.ids import is_generation_id
from shared.log.request import decode_request

CHAT, RESPONSES, NATIVE = "/v1/chat/completions", "/v1/responses", "/v1/generations"
HELLO = [{"role": "user", "content": "tell me"}]


def read(body: Any, endpoint: str = CHAT, **settings: Any) -> Query:
    terms = Terms("batch_1", "me", endpoint, {"demo": DEMO}, Settings(**settings))
    raw = {"custom_id": "c1", "method": "POST", "url": endpoint, "body": body}
    return read_query(json.dumps(raw).encode(), terms, 60.0)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (CHAT, {"messages": HELLO, "temperature": 0.5}),
        (RESPONSES, {"input": "tell me", "temperature": 0.5}),
        (NATIVE, {"prompt": "tell me", "params": {"temperature": 0.5}}),
    ],
)
def test_every_endpoint_is_read(endpoint: str, body: dict[str, Any]) -> None:
    query = read(body, endpoint)

    assert query.error is None and query.new is not None
    request = decode_request(query.new.request)
    assert request.messages[0]["content"] == "tell me"
    assert request.params["temperature"] == 0.5


def test_half_a_surrogate_pair_in_a_body_is_refused_like_by_the_api() -> None:
    query = read({"messages": [{"role": "user", "content": "\ud800"}]})

    assert query.custom_id == "c1" and query.new is None
    assert query.error is not None and query.error.status == 422
    assert "surrogate" in query.error.message


def test_a_line_cannot_set_priority_or_session() -> None:
    query = read(
        {
            "messages": HELLO, "priority": "interactive", "session": "mine", "on_disconnect": 0,
            "stream": True, "metadata": {"a": "b"},
        }
    )  # fmt: skip

    assert query.new is not None
    new = query.new
    assert (new.priority, new.session, new.grace_s, new.wait_s) == ("batch", "batch_1", None, 60.0)
    assert (new.owner, new.metadata) == ("me", b'{"a":"b"}')


@pytest.mark.parametrize(
    ("body", "endpoint", "code"),
    [
        ({"messages": HELLO, "model": "other"}, CHAT, "model_not_found"),
        ({"messages": []}, CHAT, "invalid_request"),
        ([], CHAT, "invalid_request"),
        (None, CHAT, "invalid_request"),
        ({"messages": HELLO, "x": "x" * 33_554_432}, CHAT, "body_too_large"),
        ({"input": "on", "previous_response_id": "resp_1"}, RESPONSES, "invalid_request"),
        (
            {"input": [{"type": "item_reference", "id": "msg_1_0"}]},
            RESPONSES,
            "invalid_request",
        ),
        ({"prompt": ""}, NATIVE, "invalid_request"),
        ({"prompt": "x", "audio": {"media_type": "audio/ogg"}}, NATIVE, "invalid_request"),
    ],
)
def test_a_body_that_the_api_refuses_is_refused(body: Any, endpoint: str, code: str) -> None:
    query = read(body, endpoint)

    assert query.new is None and query.error is not None
    assert (query.custom_id, query.error.code) == ("c1", code)


def test_the_generation_id_of_a_line_is_derived() -> None:
    names = {
        line_generation_id(batch, line, tries)
        for batch in ("batch_1", "batch_2")
        for line in (1, 11)
        for tries in (0, 1)
    }

    assert len(names) == 8
    assert all(is_generation_id(name) and len(name) == 30 for name in names)
    assert line_generation_id("batch_1", 1, 0) == line_generation_id("batch_1", 1, 0)
