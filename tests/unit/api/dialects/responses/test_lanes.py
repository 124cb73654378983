"""Which request of a socket runs next."""

from __future__ import annotations

import pytest

from api.dialects.responses.frames import SocketError
from api.dialects.responses.lanes import IN_FLIGHT_MAX, NAMES_MAX, WAITING_MAX, Lanes


def test_requests_of_one_stream_run_one_after_the_other() -> None:
    lanes: Lanes[str] = Lanes()
    for request in ("a1", "a2", "b1"):
        lanes.add(request[0], request)

    assert lanes.take_ready() == ["a1", "b1"]
    assert lanes.take_ready() == []
    lanes.finish("a")
    assert lanes.take_ready() == ["a2"]
    for name in "ab":
        lanes.finish(name)
    assert lanes.is_idle


def test_a_socket_runs_a_limited_number_of_requests_in_their_order() -> None:
    lanes: Lanes[int] = Lanes()
    for number in range(IN_FLIGHT_MAX + 2):
        lanes.add(f"s{number}", number)

    assert lanes.take_ready() == list(range(IN_FLIGHT_MAX))
    lanes.finish("s3")
    assert lanes.take_ready() == [IN_FLIGHT_MAX]


def test_the_default_stream_counts_no_name() -> None:
    lanes: Lanes[int] = Lanes()
    for number in range(NAMES_MAX):
        lanes.add(f"s{number}", number)
        lanes.take_ready()
        lanes.finish(f"s{number}")
    lanes.add("", 1)
    lanes.add("s0", 2)

    with pytest.raises(SocketError) as refused:
        lanes.add("one-more", 3)
    assert refused.value.code == "websocket_stream_limit_reached"
    assert lanes.take_ready() == [1, 2]


def test_a_socket_holds_a_limited_number_of_waiting_requests() -> None:
    lanes: Lanes[int] = Lanes()
    for number in range(WAITING_MAX):
        lanes.add("", number)

    with pytest.raises(SocketError) as refused:
        lanes.add("other", 1)
    assert (refused.value.code, refused.value.status) == ("rate_limited", 429)
    assert lanes.clear() == list(range(WAITING_MAX))
    assert lanes.is_idle
