"""Which request of a socket runs next."""

from __future__ import annotations

import pytest

from api.dialects.responses.frames import SocketError
from api.dialects.responses.socket_streams import (
    IN_FLIGHT_MAX,
    NAMES_MAX,
    WAITING_MAX,
    SocketStreams,
)


def test_requests_of_one_stream_run_one_after_the_other() -> None:
    streams: SocketStreams[str] = SocketStreams()
    for request in ("a1", "a2", "b1"):
        streams.add(request[0], request)

    assert streams.take_ready() == ["a1", "b1"]
    assert streams.take_ready() == []
    streams.finish("a")
    assert streams.take_ready() == ["a2"]
    for name in "ab":
        streams.finish(name)
    assert streams.is_idle


def test_a_socket_runs_a_limited_number_of_requests_in_their_order() -> None:
    streams: SocketStreams[int] = SocketStreams()
    for number in range(IN_FLIGHT_MAX + 2):
        streams.add(f"s{number}", number)

    assert streams.take_ready() == list(range(IN_FLIGHT_MAX))
    streams.finish("s3")
    assert streams.take_ready() == [IN_FLIGHT_MAX]


def test_the_default_stream_counts_no_name() -> None:
    streams: SocketStreams[int] = SocketStreams()
    for number in range(NAMES_MAX):
        streams.add(f"s{number}", number)
        streams.take_ready()
        streams.finish(f"s{number}")
    streams.add("", 1)
    streams.add("s0", 2)

    with pytest.raises(SocketError) as refused:
        streams.add("one-more", 3)
    assert refused.value.code == "websocket_stream_limit_reached"
    assert streams.take_ready() == [1, 2]


def test_a_socket_holds_a_limited_number_of_waiting_requests() -> None:
    streams: SocketStreams[int] = SocketStreams()
    for number in range(WAITING_MAX):
        streams.add("", number)

    with pytest.raises(SocketError) as refused:
        streams.add("other", 1)
    assert (refused.value.code, refused.value.status) == ("rate_limited", 429)
    assert streams.clear() == list(range(WAITING_MAX))
    assert streams.is_idle
