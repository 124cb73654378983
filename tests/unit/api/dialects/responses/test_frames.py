"""The frames of the socket: the events of the SSE stream, from a number on, and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.dialects.responses.fold import RESPONSES
from api.dialects.responses.frames import ResponsesFrameFold, SocketError, error_frame
from api.errors import request_error
from shared.errors import NotFound
from shared.log.ids import EventId
from tests.support.recorded import LOGS, bytes_of, frames_of, recorded_meta

META = recorded_meta()
BROKEN_OFF = b"(broken off)\n"


def frames(name: str, *, stream_id: str = "", first: int = 0) -> list[dict[str, Any]]:
    fold = ResponsesFrameFold(META, stream_id, first=first)
    lines = [*fold.opening(), *frames_of(lambda _: fold, LOGS[name], META).splitlines()]
    return [json.loads(line) for line in lines]


def sse_events(name: str) -> list[dict[str, Any]]:
    blocks = bytes_of(RESPONSES, LOGS[name], META).removesuffix(BROKEN_OFF).split(b"\n\n")
    return [json.loads(block.partition(b"\ndata: ")[2]) for block in blocks if block]


@pytest.mark.parametrize("name", sorted(LOGS))
def test_the_events_are_those_of_the_stream_over_http(name: str) -> None:
    found = frames(name)
    numbered = [event for event in found if "sequence_number" in event]
    for event in numbered:
        if event["type"] == "error":
            assert event.pop("status") >= 400

    assert numbered == sse_events(name)
    assert all(event["type"] == "error" for event in found if event not in numbered)


@pytest.mark.parametrize("name", ["normal", "tools", "reset", "failed"])
def test_a_reader_gets_exactly_the_events_from_its_number_on(name: str) -> None:
    whole = frames(name, stream_id="a")
    for first in range(len(whole) + 1):
        assert frames(name, stream_id="a", first=first) == whole[first:]
    assert all(event["stream_id"] == "a" for event in whole)


def test_a_log_that_changed_since_the_number_was_found_is_not_read() -> None:
    fold = ResponsesFrameFold(META, "a", first=5, found_at=EventId(1, 3))
    log = LOGS["takeover"].feed
    fold.opening()
    fold.add(EventId(1, 1), log.raws[0])
    fold.add(EventId(1, 2), log.raws[1])
    (line,) = fold.add(EventId(2, 3), log.raws[2])

    error = json.loads(line)
    assert fold.is_over
    assert (error["status"], error["stream_id"]) == (409, "a")
    assert error["error"]["code"] == "stream_reset"
    assert error["response_id"] == fold.response_id


def test_an_error_has_the_documented_shape() -> None:
    error = SocketError("previous_response_not_found", "no", "previous_response_id")
    assert json.loads(error_frame(error, stream_id="main")) == {
        "type": "error",
        "status": 400,
        "stream_id": "main",
        "error": {
            "type": "invalid_request_error",
            "code": "previous_response_not_found",
            "message": "no",
            "param": "previous_response_id",
        },
    }
    assert json.loads(error_frame(NotFound("response")))["status"] == 404


def test_a_pause_stands_in_the_headers() -> None:
    frame = json.loads(error_frame(request_error("unavailable", "wait", retry_after_s=2)))
    assert (frame["status"], frame["headers"]) == (503, {"retry-after": "2"})
