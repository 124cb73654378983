"""The input of a steer, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.responses.response_object import INSTRUCTED, PREVIOUS
from api.dialects.responses.steering import (
    STEER_BYTES_MAX,
    Steer,
    SteerError,
    failed_event,
    joined_input,
    read_steer,
    required_input,
    successor_of,
)
from shared.log.request import Request, encode_request
from tests.support.hub_harness import make_meta

FRAME = {"type": "response.steer", "previous_response_id": "resp_1", "input": "be brief"}
USER = {"type": "message", "role": "user", "content": "be brief"}


def steer(given: Any = "be brief") -> Steer:
    return read_steer({**FRAME, "input": given}, 100)


def test_a_text_is_a_message_of_the_user() -> None:
    assert steer().items == [USER]
    assert steer().parent == "resp_1"
    assert steer().id != steer().id


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": ""},
        {"input": []},
        {"input": 7},
        {"input": None},
        {"input": ["x"]},
        {"input": [{"role": "system", "content": "x"}]},
        {"input": [{"role": "user", "content": "x", "type": "function_call_output"}]},
        {"input": [{"role": "user", "content": "x", "name": "y"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        {"stream_id": "main"},
        {"previous_response_id": 7},
    ],
)
def test_any_other_input_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SteerError) as refused:
        read_steer(FRAME | wrong, 100)
    assert refused.value.code == "invalid_input"


def test_a_large_steer_is_refused() -> None:
    with pytest.raises(SteerError):
        read_steer(dict(FRAME), STEER_BYTES_MAX + 1)


def test_the_input_of_steers_comes_first_and_in_their_order() -> None:
    first, second = steer("a"), steer([{"role": "user", "content": "b"}])
    joined = joined_input([first, second], "c")
    assert [item["content"] for item in joined] == ["a", "b", "c"]
    assert joined_input([first], [{"type": "x"}])[1:] == [{"type": "x"}]
    assert joined_input([first], 7) == 7


def test_calls_need_their_results() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f"}
    custom = {"type": "custom_tool_call", "call_id": "c2", "name": "g"}
    assert required_input([{"type": "message"}, call, custom]) == [
        {"type": "function_call_output", "call_id": "c1", "name": "f"},
        {"type": "custom_tool_call_output", "call_id": "c2"},
    ]


def test_a_successor_has_the_settings_of_its_parent_and_only_the_new_input() -> None:
    messages = [{"role": "system", "content": "rules"}, {"role": "user", "content": "old"}]
    request = Request(messages, params={"temperature": 0.5}, dialect={INSTRUCTED: True})
    parsed = successor_of(make_meta(request=encode_request(request)), "resp_1", [steer()])

    assert parsed.request.messages == [messages[0], {"role": "user", "content": "be brief"}]
    assert parsed.request.params == request.params
    assert parsed.request.dialect == {INSTRUCTED: True, PREVIOUS: "resp_1"}
    assert parsed.previous == "resp_1"


def test_a_failed_steer_gives_the_input_back() -> None:
    error = SteerError("response_not_active", "it has failed")
    assert failed_event(error, parent="resp_1", given="x", steer_id="steer_1") == {
        "type": "response.steer.failed",
        "steer": {"id": "steer_1", "previous_response_id": "resp_1", "input": "x"},
        "error": {
            "type": "invalid_request_error",
            "code": "response_not_active",
            "message": "it has failed",
        },
    }
    assert "id" not in failed_event(error, parent="resp_1", given="x")["steer"]
