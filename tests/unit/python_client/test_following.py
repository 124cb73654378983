"""The decisions of one reader over many connections, the same for both clients."""

from __future__ import annotations

import pytest

from tailrace_client.errors import TailraceError, broken
from tailrace_client.events import EndEvent, Event, TokenEvent, read_event
from tailrace_client.following import Following
from tailrace_client.options import shared_options
from tailrace_client.pace import FIRST_S
from tailrace_client.reading import Reading

UPGRADE = TailraceError("upgrade_required", "no WebSockets here", retryable=False, status=426)


def following(transport: str = "auto", reading: Reading | None = None, path: str = "") -> Following:
    shared = shared_options("http://node", transport, random=lambda: 0.5, clock=lambda: 100.0)
    return Following(shared, "gen_1", reading or Reading(), path=path, picker=None)


def token(event_id: str) -> Event:
    event = read_event({"type": "token", "text": "a"}, event_id)
    assert isinstance(event, TokenEvent)
    return event


def test_each_event_is_taken_once_and_the_next_connection_asks_behind_it() -> None:
    reader = following()
    assert reader.connect().cursor == "0-0"

    taken = [reader.take(item) for item in (None, token("1-1"), token("1-1"), token("1-2"))]

    assert taken == [False, True, False, True]
    asked = reader.connect()
    assert (asked.path, asked.cursor) == ("/v1/generations/gen_1", "1-2")
    assert following(path="/v1/batches/b").connect().path == "/v1/batches/b"


def test_a_connection_without_a_sign_of_life_leaves_its_transport() -> None:
    reader = following()
    reader.connect()
    assert reader.transport == "websocket"
    assert reader.pause_s(broken("no answer")) == FIRST_S / 2

    reader.connect()
    assert reader.transport == "sse"
    reader.take(None)
    assert reader.pause_s(None) == FIRST_S, "the ceiling doubles without a new event"
    reader.connect()
    assert reader.transport == "sse"
    reader.take(token("1-1"))
    assert reader.pause_s(None) == FIRST_S / 2


@pytest.mark.parametrize("is_held_back", [True, False])
def test_a_network_that_blocks_a_transport_gets_another_one_at_once(is_held_back: bool) -> None:
    reader = following()
    reader.connect()
    reader.take(None)
    error = broken("silence") if is_held_back else UPGRADE

    assert reader.pause_s(error, is_held_back=is_held_back) == 0
    reader.connect()
    assert reader.transport == "sse"


def test_an_error_that_no_connection_helps_is_raised() -> None:
    gone = TailraceError("not_found", "no such generation", retryable=False, status=404)
    for reader, error in ((following(), gone), (following("websocket"), UPGRADE)):
        reader.connect()
        with pytest.raises(TailraceError) as caught:
            reader.pause_s(error)
        assert caught.value is error


def test_the_end_is_taken_as_an_event() -> None:
    reading = Reading()
    reader = following(reading=reading)
    reader.connect()
    end = read_event({"type": "end", "status": "completed", "finish_reason": "stop"}, "1-1")
    assert isinstance(end, EndEvent)

    assert reader.take(end)
    assert reading.is_done
